"""Smaller, faster BERT-family encoders.

Importing this package is quick: it tells transformers about shrunk models and loads everything else when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sparsebert import autoload
from sparsebert.version import __version__

if TYPE_CHECKING:
    from sparsebert.api import (
        bench,
        compress,
        fff,
        finetune,
        glue,
        multitask,
        pretrain,
        prune_curve,
        report,
        search,
        train,
    )
    from sparsebert.deployment.predictor import Predictor
    from sparsebert.errors import UserError
    from sparsebert.fast_feedforward.convert import distill_blocks
    from sparsebert.fast_feedforward.layer import FastFeedForward, Routing
    from sparsebert.models.accelerate import accelerate
    from sparsebert.models.layout import layout_of
    from sparsebert.models.load import load_model, save_model
    from sparsebert.models.split import split_heads
    from sparsebert.models.storage import Packing
    from sparsebert.models.surgeon import convert_ffn, set_routing, shrink
    from sparsebert.recipe.base import Recipe
    from sparsebert.recipe.load import load_recipe
    from sparsebert.recipe.schema import Rule
    from sparsebert.records import Record, read_record
    from sparsebert.result import RunResult, SearchResult, open_run
    from sparsebert.studies.ask import study
    from sparsebert.studies.study import StudyOptions
    from sparsebert.training.trainer import SparseTrainer

_WHERE = {
    "FastFeedForward": "sparsebert.fast_feedforward.layer",
    "Packing": "sparsebert.models.storage",
    "Predictor": "sparsebert.deployment.predictor",
    "Recipe": "sparsebert.recipe.base",
    "Record": "sparsebert.records",
    "Routing": "sparsebert.fast_feedforward.layer",
    "Rule": "sparsebert.recipe.schema",
    "RunResult": "sparsebert.result",
    "SearchResult": "sparsebert.result",
    "SparseTrainer": "sparsebert.training.trainer",
    "StudyOptions": "sparsebert.studies.study",
    "UserError": "sparsebert.errors",
    "accelerate": "sparsebert.models.accelerate",
    "bench": "sparsebert.api",
    "compress": "sparsebert.api",
    "convert_ffn": "sparsebert.models.surgeon",
    "distill_blocks": "sparsebert.fast_feedforward.convert",
    "fff": "sparsebert.api",
    "finetune": "sparsebert.api",
    "glue": "sparsebert.api",
    "layout_of": "sparsebert.models.layout",
    "load_model": "sparsebert.models.load",
    "load_recipe": "sparsebert.recipe.load",
    "multitask": "sparsebert.api",
    "pretrain": "sparsebert.api",
    "open_run": "sparsebert.result",
    "prune_curve": "sparsebert.api",
    "read_record": "sparsebert.records",
    "report": "sparsebert.api",
    "save_model": "sparsebert.models.load",
    "search": "sparsebert.api",
    "set_routing": "sparsebert.models.surgeon",
    "shrink": "sparsebert.models.surgeon",
    "split_heads": "sparsebert.models.split",
    "study": "sparsebert.studies.ask",
    "train": "sparsebert.api",
}

__all__ = [
    "FastFeedForward",
    "Packing",
    "Predictor",
    "Recipe",
    "Record",
    "Routing",
    "Rule",
    "RunResult",
    "SearchResult",
    "SparseTrainer",
    "StudyOptions",
    "UserError",
    "__version__",
    "accelerate",
    "bench",
    "compress",
    "convert_ffn",
    "distill_blocks",
    "fff",
    "finetune",
    "glue",
    "layout_of",
    "load_model",
    "load_recipe",
    "multitask",
    "open_run",
    "pretrain",
    "prune_curve",
    "read_record",
    "report",
    "save_model",
    "search",
    "set_routing",
    "shrink",
    "split_heads",
    "study",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


autoload.install()

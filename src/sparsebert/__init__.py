"""Smaller, faster BERT-family encoders.

Importing this package is quick: it tells transformers about shrunk models and loads everything else when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sparsebert import autoload
from sparsebert.version import __version__

if TYPE_CHECKING:
    from sparsebert.errors import UserError
    from sparsebert.models.accelerate import accelerate
    from sparsebert.models.fff import FastFeedForward, Routing
    from sparsebert.models.layout import layout_of
    from sparsebert.models.load import Packing, load_model, save_model
    from sparsebert.parts import Rule
    from sparsebert.recipe import Recipe, load_recipe
    from sparsebert.records import Record, read_record
    from sparsebert.surgeon import plant, set_routing, shrink
    from sparsebert.train.trainer import SparseTrainer
    from sparsebert.train.trees import teach

_WHERE = {
    "FastFeedForward": "sparsebert.models.fff",
    "Packing": "sparsebert.models.load",
    "Recipe": "sparsebert.recipe",
    "Record": "sparsebert.records",
    "Routing": "sparsebert.models.fff",
    "Rule": "sparsebert.parts",
    "SparseTrainer": "sparsebert.train.trainer",
    "UserError": "sparsebert.errors",
    "accelerate": "sparsebert.models.accelerate",
    "layout_of": "sparsebert.models.layout",
    "load_model": "sparsebert.models.load",
    "load_recipe": "sparsebert.recipe",
    "plant": "sparsebert.surgeon",
    "read_record": "sparsebert.records",
    "save_model": "sparsebert.models.load",
    "set_routing": "sparsebert.surgeon",
    "shrink": "sparsebert.surgeon",
    "teach": "sparsebert.train.trees",
}

__all__ = [
    "FastFeedForward",
    "Packing",
    "Recipe",
    "Record",
    "Routing",
    "Rule",
    "SparseTrainer",
    "UserError",
    "__version__",
    "accelerate",
    "layout_of",
    "load_model",
    "load_recipe",
    "plant",
    "read_record",
    "save_model",
    "set_routing",
    "shrink",
    "teach",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


autoload.install()

"""A multitask model taken apart: its encoder with each of its heads, as three ordinary models.

Oscanoa, "Improving BERT computational efficiency" (Stanford CS224N), section 4.2 and Figure 1B.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.models.families import HeadName, family_of, is_shrunk
from sparsebert.models.labels import name_labels
from sparsebert.models.pair_classes import PARAPHRASE, SENTIMENT, SIMILARITY
from sparsebert.models.shrunk import model_class, stock_model_class
from sparsebert.tasks.kind import task_kind
from sparsebert.tasks.table import task_spec

HEADS: dict[str, str] = {SENTIMENT: "sst5", PARAPHRASE: "quora", SIMILARITY: "sts"}
"""The heads of a multitask model, and the task of the table that each is for."""


@torch.no_grad()
def split_heads(model: PreTrainedModel) -> dict[str, PreTrainedModel]:
    """By head, a model of its own with the same outputs, in evaluation mode; its weights are copies.

    Raises UserError for a model that is no multitask one.
    """
    if not type(model).__name__.endswith("ForMultitask"):
        raise UserError(
            "Only a multitask model can be split", got=type(model).__name__, fix="make one with `sparsebert multitask`"
        )
    return {head: _model_of(model, head) for head in HEADS}


def _model_of(model: PreTrainedModel, head: str) -> PreTrainedModel:
    spec, family = task_spec(HEADS[head]), family_of(model.config)
    kind = task_kind(spec.kind)
    config = copy.deepcopy(model.config)
    config.problem_type = kind.problem_type
    config.num_labels = kind.num_outputs or len(spec.labels)
    if spec.labels:
        name_labels(config, spec.labels)
    task: Any = kind.head
    build: Any = _class(config, family, task)
    config.architectures = [build.__name__]
    config._attn_implementation = model.config._attn_implementation
    with torch.random.fork_rng():
        alone: PreTrainedModel = build(config)
    torch.nn.Module.to(alone, device=model.device, dtype=model.dtype)
    alone.load_state_dict(_tensors(model, head), strict=True)
    alone.tie_weights()
    return alone.eval()


def _class(config: Any, family: Any, task: HeadName) -> type[PreTrainedModel]:
    return model_class(family, task) if is_shrunk(config) else stock_model_class(family, task)


def _tensors(model: PreTrainedModel, head: str) -> dict[str, torch.Tensor]:
    """The tensors under the names of the model with this head alone."""
    base, others = f"{model.base_model_prefix}.", tuple(f"{other}." for other in (PARAPHRASE, SIMILARITY))
    every = model.state_dict()
    if head == SENTIMENT:
        return {name: tensor for name, tensor in every.items() if not name.startswith(others)}
    own = {name: tensor for name, tensor in every.items() if name.startswith(f"{head}.")}
    return {name: tensor for name, tensor in every.items() if name.startswith(base)} | {
        f"classifier.{name.removeprefix(f'{head}.')}": tensor for name, tensor in own.items()
    }

"""Models whose weights are not where their own class keeps them: inside a wrapper, under an adapter, quantised."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.fast_feedforward.layer import FastFeedForward
from sparsebert.models.modeling_sparsebert import NoInputs, NoOutputs

PLAIN = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
# What this package puts in a linear layer's place: they hold nothing that rules could be about.
_OWN = (FastFeedForward, NoInputs, NoOutputs)
# By the class of a wrapper, how to get at what it holds.
_INSIDE = {
    "OptimizedModule": "model._orig_mod, and compile it afterwards",
    "DataParallel": "model.module",
    "DistributedDataParallel": "model.module",
    "FullyShardedDataParallel": "the model before it is sharded",
}
_MERGED = "the model that model.merge_and_unload() gives, or prune it before adapters are added"


def refuse_wrapped(model: nn.Module) -> None:
    """Raise UserError for a model in a wrapper, as the names of its weights are then others."""
    if isinstance(model, PreTrainedModel):
        return
    adapted = any(kind.__module__.partition(".")[0] == "peft" for kind in type(model).__mro__)
    inside = _MERGED if adapted else _INSIDE.get(type(model).__name__, "the model of transformers inside")
    raise UserError("This is no model of transformers itself", got=type(model).__name__, fix=f"give {inside}")


def refuse_changed(model: PreTrainedModel, linear: Iterable[str]) -> None:
    """Raise UserError, naming the layer, if one of these linear layers has no plain weight that could be pruned."""
    modules = dict(model.named_modules())
    quantised = "quantization_config" in vars(model.config)
    for name in linear:
        module = modules.get(name)
        if module is None or isinstance(module, _OWN) or not module.state_dict():
            continue
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        if quantised or weight is None or not _is_plain(weight):
            raise UserError(
                f"The layer {name} has no weight of plain numbers",
                got=type(module).__name__ if weight is None else f"{type(module).__name__} of {weight.dtype}",
                fix=_plain_again(module, quantised or weight is not None),
            )


def _is_plain(weight: torch.Tensor) -> bool:
    # Libraries that quantise in place put a tensor type of their own there, whose dtype looks like a float.
    own = type(weight).__module__.partition(".")[0] == "torch"
    return own and weight.dim() == 2 and weight.dtype in PLAIN


def _plain_again(module: nn.Module, quantised: bool) -> str:
    names = set(module.state_dict())
    if any("base_layer." in name for name in names):
        return f"give {_MERGED}"
    if "weight_orig" in names:
        return "make it plain: torch.nn.utils.prune.remove(layer, 'weight')"
    if any(name.startswith("parametrizations.") for name in names):
        return "make it plain: torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')"
    return f"give the model as it was before {'it was quantised' if quantised else 'its layers were replaced'}"

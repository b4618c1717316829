"""Models as transformers makes them, not wrapped, adapted or quantised by another library."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.models.families import Family


def check_unwrapped(model: nn.Module) -> None:
    """Raise UserError for a module around a model, such as torch.compile, PEFT or DataParallel make."""
    if not isinstance(model, PreTrainedModel):
        raise UserError(
            "This is no model of transformers, or one that is wrapped",
            got=_kind(model),
            fix="give the model inside: of torch.compile `model._orig_mod`, of DataParallel `model.module`, of PEFT "
            "`model.merge_and_unload()`",
        )


def check_projections(model: PreTrainedModel, family: Family, layers: Iterable[str]) -> None:
    """Raise UserError where a projection of the layers at these paths is another module, or holds no plain weight."""
    modules = dict(model.named_modules())
    names = {name for part in (family.attention, family.ffn) for name in (*part.inputs, part.output)}
    for path in (f"{layer}.{name}" for layer in layers for name in sorted(names)):
        if path in modules and not _is_plain(modules[path]):
            raise UserError(
                "The encoder's matrices are adapted or quantised, and only plain ones can be worked on",
                got=f"{path} is a {_kind(modules[path])}",
                allowed="torch.nn.Linear with a float weight",
                fix="give the model before that, or merge the adapters (PEFT: model.merge_and_unload())",
            )


def _is_plain(module: nn.Module) -> bool:
    if not isinstance(module, nn.Linear):
        return False
    weight: torch.Tensor = module.weight
    # Libraries that quantise in place put a tensor type of their own there, whose dtype looks like a float.
    return weight.is_floating_point() and type(weight).__module__.split(".")[0] == "torch"


def _kind(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__name__}"

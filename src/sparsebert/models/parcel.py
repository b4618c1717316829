"""A model on its way to another process: its object without numbers, which is small, and a file with all its tensors.

Exact for every model: no configuration, class, buffer, mode or kind of attention is chosen anew, as loading would.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Parcel:
    """A model whose tensors are empty, the file of their values, and the device that they belong to."""

    model: PreTrainedModel
    file: Path
    device: str


def parcel(model: PreTrainedModel, file: Path) -> Parcel:
    """Write the tensors of a model into `file`, and copy the rest of it."""
    tensors = _tensors(model)
    save_file({str(place): tensor.detach().cpu().clone() for place, tensor in enumerate(tensors)}, file)
    empty = copy.deepcopy(model, {id(tensor): _empty(tensor) for tensor in tensors})
    return Parcel(empty, file, str(model.device))


def unpacked(sent: Parcel) -> PreTrainedModel:
    """The model, filled in place."""
    values = load_file(sent.file, device=sent.device)
    for place, tensor in enumerate(_tensors(sent.model)):
        # What is loaded may lie in the file, not aligned as torch aligns what it makes, which products feel.
        tensor.data = values[str(place)].clone()
    return sent.model


def _tensors(model: nn.Module) -> list[Tensor]:
    """Weights, buffers, and what modules hold beside them, each once, in an order that a copy has too."""
    held = (value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor))
    return list({id(tensor): tensor for tensor in (*model.parameters(), *model.buffers(), *held)}.values())


def _empty(tensor: Tensor) -> Tensor:
    nothing = torch.empty(0, dtype=tensor.dtype)
    return nn.Parameter(nothing, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else nothing

"""What zeros a model has, and where: single ones, whole blocks, and those of dead heads and neurons."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.models.layout import encoder_linear_names, layout_of
from sparsebert.models.surgeon import live_units

BLOCK = 32


@dataclass(frozen=True)
class Zeros:
    """Fractions of the encoder's linear weights: zeros, those of them in whole 32 x 32 blocks, and all of dead units.

    A unit is dead as soon as nothing reads it, so that not all of its weights need be zero. two_of_four: every four
    neighbours in a row hold at most two weights that are not zero. packed_bytes: an estimate, of the pruned matrices as
    bitmask and values, as a part of their dense fp32 bytes.
    """

    elements: float
    blocks: float
    units: float
    two_of_four: bool
    packed_bytes: float


@torch.no_grad()
def zeros_of(model: PreTrainedModel) -> Zeros:
    """Count zeros in the encoder's linear weights. Raises UserError for a model that has none left there."""
    weights = [model.get_parameter(name).detach().flatten(0, -2) for name in encoder_linear_names(model)]
    total = sum(weight.numel() for weight in weights)
    if total == 0:
        raise UserError("The model has no weights left in its encoder")
    zero = sum(int((weight == 0).sum()) for weight in weights)
    elements = zero / total
    return Zeros(
        elements=elements,
        blocks=sum(_zero_blocks(weight) for weight in weights) / total,
        units=_dead(model) / total,
        two_of_four=zero > 0 and all(_is_two_of_four(weight) for weight in weights),
        # A bit for each of 32 that a dense weight has, and the values that are left.
        packed_bytes=min(1.0, 1 / 32 + 1 - elements),
    )


def _zero_blocks(weight: torch.Tensor) -> int:
    rows, columns = (size // BLOCK * BLOCK for size in weight.shape)
    tiles = weight[:rows, :columns].reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    return int((tiles == 0).all(dim=3).all(dim=1).sum()) * BLOCK * BLOCK


def _is_two_of_four(weight: torch.Tensor) -> bool:
    return weight.shape[1] % 4 == 0 and bool(((weight.reshape(-1, 4) != 0).sum(dim=1) <= 2).all())


def _dead(model: PreTrainedModel) -> int:
    live, dead = live_units(model), 0
    for group in layout_of(model).groups:
        gone = int((~live[group.name]).sum())
        for part in (*group.inputs, group.output):
            tensor = model.get_parameter(part.tensor)
            if tensor.dim() > 1:
                dead += gone * part.width * tensor.shape[1 - part.dim]
    return dead

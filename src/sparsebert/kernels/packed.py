"""Sparse matrices as the kernels read them: whole blocks, or single values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

WIDTH = 32
HEIGHTS = (32, 16)
SINGLE = 0


@dataclass(frozen=True)
class PackedMatrix:
    """What is left of a weight [outputs, inputs].

    height > 0: blocks of `height` outputs x 32 inputs. Row r of blocks has those from starts[r] to starts[r + 1]; block
    b begins at input 32 columns[b] and has values [32, height], zero outside the matrix. height 0: single values;
    output o has those from starts[o] to starts[o + 1], each at the input columns[i]. starts and columns are int32.
    """

    outputs: int
    inputs: int
    height: int
    values: torch.Tensor
    starts: torch.Tensor
    columns: torch.Tensor

    @property
    def density(self) -> float:
        """Values that are stored, also zeros inside blocks, as a part of the matrix."""
        return self.values.numel() / (self.outputs * self.inputs)


@torch.no_grad()
def pack_matrix(weight: torch.Tensor, height: int) -> PackedMatrix:
    """Everything of `weight` [outputs, inputs] that is not zero, in float32. `height` is 32 or 16, or 0 = single."""
    plain = weight.detach().float()
    return _single(plain) if height == SINGLE else _blocks(plain, height)


def unpack_matrix(packed: PackedMatrix) -> torch.Tensor:
    """The weight [outputs, inputs]."""
    counts = packed.starts.diff()
    row = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    column = packed.columns.long()
    if packed.height == SINGLE:
        weight = packed.values.new_zeros(packed.outputs, packed.inputs)
        weight[row, column] = packed.values
        return weight
    across = -(-packed.inputs // WIDTH)
    tiles = packed.values.new_zeros(len(counts), across, WIDTH, packed.height)
    tiles[row, column] = packed.values
    return tiles.permute(0, 3, 1, 2).reshape(-1, across * WIDTH)[: packed.outputs, : packed.inputs]


class WeightVersions:
    """Which weights something was packed of, so that it is packed anew when they are others or were written to.

    They are kept, else others could take their place in memory unnoticed. A copy has seen nothing.
    """

    def __init__(self) -> None:
        self._weights: tuple[torch.Tensor, ...] = ()

    def same(self, *weights: torch.Tensor) -> bool:
        """Whether these are the weights, as they were."""
        return bool(self._weights) and self._state == _state(weights)

    def remember(self, *weights: torch.Tensor) -> None:
        """These are packed now."""
        self._weights, self._state = tuple(weight.detach() for weight in weights), _state(weights)

    def forget(self) -> None:
        """Nothing is packed."""
        self._weights = ()

    def __deepcopy__(self, memo: object) -> WeightVersions:
        return WeightVersions()

    def __reduce__(self) -> tuple[type[WeightVersions], tuple[()]]:
        return WeightVersions, ()


def stamp_of(weight: torch.Tensor) -> torch.Tensor:
    """Where a weight is and how often it was written to, int64 [2]: for compiled graphs, which see only tensors."""
    ((place, _, version),) = _state((weight,))
    return torch.tensor([place, version], dtype=torch.int64, device="cpu")


def _state(weights: Sequence[torch.Tensor]) -> tuple[tuple[int, torch.dtype, int], ...]:
    return tuple(
        (weight.data_ptr(), weight.dtype, 0 if weight.is_inference() else weight._version) for weight in weights
    )


def _single(weight: torch.Tensor) -> PackedMatrix:
    kept = weight != 0
    outputs, inputs = weight.shape
    return PackedMatrix(outputs, inputs, SINGLE, weight[kept], _starts(kept.sum(dim=1)), kept.nonzero()[:, 1].int())


def _blocks(weight: torch.Tensor, height: int) -> PackedMatrix:
    outputs, inputs = weight.shape
    rows, across = -(-outputs // height), -(-inputs // WIDTH)
    whole = F.pad(weight, (0, across * WIDTH - inputs, 0, rows * height - outputs))
    tiles = whole.view(rows, height, across, WIDTH).permute(0, 2, 3, 1)
    kept = (tiles != 0).flatten(2).any(dim=2)
    values = tiles[kept].contiguous()
    return PackedMatrix(outputs, inputs, height, values, _starts(kept.sum(dim=1)), kept.nonzero()[:, 1].int())


def _starts(counts: torch.Tensor) -> torch.Tensor:
    return F.pad(counts.cumsum(0), (1, 0)).int()

"""Structures: the shape of what is removed. Each makes sites, whose units criteria rank, from a scope."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from sparsebert.errors import UserError
from sparsebert.groups import Group, GroupKind, Slice
from sparsebert.sparse.budgets import keep_highest
from sparsebert.sparse.scope import Scope
from sparsebert.sparse.sites import Masks, Site

# How far the sparsity of an n:m pattern may be off, as 0.6667 is that of 1:3.
SLACK = 1e-4


@dataclass(frozen=True)
class Element:
    """Single weights."""

    def sites(self, scope: Scope) -> list[Site]:
        """One site a matrix."""
        return [_Blocks(name, shape, 1, 1) for name, shape in scope.matrices.items()]


@dataclass(frozen=True)
class Block:
    """Tiles of `rows` x `cols` weights (outputs x inputs)."""

    rows: int
    cols: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1:
            raise ValueError(f"blocks need at least one row and one column, got {self.rows} x {self.cols}")

    def sites(self, scope: Scope) -> list[Site]:
        """One site a matrix. Raises UserError for a matrix that the blocks do not divide."""
        for name, (rows, columns) in scope.matrices.items():
            if rows % self.rows or columns % self.cols:
                raise UserError(
                    f"Blocks of {self.rows} x {self.cols} do not divide {name}",
                    got=f"{rows} x {columns}",
                    allowed=f"rows that divide {rows}, cols that divide {columns}",
                    fix="choose another block, or narrow the scope",
                )
        return [_Blocks(name, shape, self.rows, self.cols) for name, shape in scope.matrices.items()]


@dataclass(frozen=True)
class NM:
    """`n` of every `m` neighbours in a row (along the inputs) stay, as sparse tensor cores want with 2 of 4.

    Mishra et al. 2021, arXiv:2104.08378, section 3.
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 0 < self.n <= self.m:
            raise ValueError(f"n weights of every m can stay only if n is 1 to m, got n = {self.n}, m = {self.m}")

    def sites(self, scope: Scope) -> list[Site]:
        """One site a matrix. Raises UserError for a matrix whose columns m does not divide."""
        for name, (rows, columns) in scope.matrices.items():
            if columns % self.m:
                raise UserError(
                    f"Groups of {self.m} do not divide the columns of {name}",
                    got=f"{rows} x {columns}",
                    fix="narrow the scope",
                )
        return [_Pattern(name, shape, self.n, self.m) for name, shape in scope.matrices.items()]


@dataclass(frozen=True)
class Head:
    """Whole attention heads."""

    def sites(self, scope: Scope) -> list[Site]:
        """One site a layer. Raises UserError if the scope has no heads."""
        return _group_sites(scope, "head", "attention")


@dataclass(frozen=True)
class Neuron:
    """Whole feedforward neurons."""

    def sites(self, scope: Scope) -> list[Site]:
        """One site a layer. Raises UserError if the scope has no neurons."""
        return _group_sites(scope, "neuron", "ffn")


@dataclass(frozen=True)
class Layer:
    """Whole layers: all heads and all neurons of a layer together.

    Its two LayerNorms and output biases stay: a removed layer still adds these biases and normalises, so that it can be
    cut to width zero exactly. A layer that is skipped adds nothing, and gives other logits.
    """

    def sites(self, scope: Scope) -> list[Site]:
        """One site, whose units are the layers. Raises UserError if the scope has none."""
        layers = sorted({group.layer for group in scope.groups})
        if not layers:
            raise UserError("The scope has no heads and no neurons, so no layers", fix="set scope: [attention, ffn]")
        parts = [[_Units(group, scope.shapes) for group in scope.groups if group.layer == layer] for layer in layers]
        return [_Layers(tuple(tuple(part) for part in parts))]


def _group_sites(scope: Scope, kind: GroupKind, word: str) -> list[Site]:
    found: list[Site] = [_Units(group, scope.shapes) for group in scope.groups if group.kind == kind]
    if not found:
        raise UserError(f"The scope has no {kind}s", got=", ".join(scope.matrices), fix=f"set scope: [{word}]")
    return found


@dataclass(frozen=True)
class _Blocks:
    """One matrix in tiles."""

    name: str
    shape: tuple[int, int]
    rows: int
    cols: int
    pattern: float | None = None

    @property
    def tensors(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def scored(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def units(self) -> int:
        return self.weights // (self.rows * self.cols)

    @property
    def weights(self) -> int:
        return self.shape[0] * self.shape[1]

    def pool(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        tiles = values[self.name].reshape(self.shape[0] // self.rows, self.rows, self.shape[1] // self.cols, self.cols)
        return tiles.sum(dim=(1, 3)).flatten() if self.rows * self.cols > 1 else tiles.flatten()

    def expand(self, keep: torch.Tensor) -> Masks:
        return self.spread(keep)

    def spread(self, values: torch.Tensor) -> Masks:
        high, wide = self.shape[0] // self.rows, self.shape[1] // self.cols
        tiles = values.view(high, 1, wide, 1).expand(high, self.rows, wide, self.cols)
        return {self.name: tiles.reshape(self.shape)}

    def choose(self, scores: torch.Tensor, sparsity: float) -> torch.Tensor:
        return keep_highest(scores, sparsity)


@dataclass(frozen=True)
class _Pattern:
    """One matrix in which n of every m neighbours of a row stay in the end."""

    name: str
    shape: tuple[int, int]
    n: int
    m: int

    @property
    def tensors(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def scored(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def units(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def pattern(self) -> float | None:
        return 1 - self.n / self.m

    @property
    def weights(self) -> int:
        return self.units

    def pool(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return values[self.name].flatten()

    def expand(self, keep: torch.Tensor) -> Masks:
        return self.spread(keep)

    def spread(self, values: torch.Tensor) -> Masks:
        return {self.name: values.view(self.shape)}

    def choose(self, scores: torch.Tensor, sparsity: float) -> torch.Tensor:
        """As many of every m as fit into the target. Raises UserError for more than the pattern gives up."""
        if sparsity > 1 - self.n / self.m + SLACK:
            raise UserError(
                f"{self.n} of {self.m} is less sparse than the target",
                got=sparsity,
                allowed=f"at most {1 - self.n / self.m:g}",
            )
        # Rounded down: on its way to the target a schedule asks for shares that no whole number of m gives.
        gone = math.floor((sparsity + SLACK) * self.m)
        keep = torch.ones(len(scores) // self.m, self.m, dtype=torch.bool, device=scores.device)
        if gone:
            # Stable, as equal scores must be broken alike on all processes and after a resume.
            lowest = torch.argsort(scores.view(-1, self.m), dim=1, stable=True)[:, :gone]
            keep.scatter_(1, lowest, False)
        return keep.flatten()


@dataclass(frozen=True)
class _Units:
    """The units of one group, in all tensors where they lie; biases are masked and not scored."""

    group: Group
    shapes: Mapping[str, tuple[int, ...]]
    pattern: float | None = None

    @property
    def name(self) -> str:
        return self.group.name

    @property
    def tensors(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.tensor for part in self._parts))

    @property
    def scored(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.tensor for part in self._matrices))

    @property
    def units(self) -> int:
        return self.group.units

    @property
    def weights(self) -> int:
        return sum(self.units * part.width * self.shapes[part.tensor][1 - part.dim] for part in self._matrices)

    @property
    def shape(self) -> tuple[int, int]:
        return self.units, self.weights // self.units

    @property
    def _parts(self) -> tuple[Slice, ...]:
        return (*self.group.inputs, self.group.output)

    @property
    def _matrices(self) -> tuple[Slice, ...]:
        return tuple(part for part in self._parts if len(self.shapes[part.tensor]) == 2)

    def pool(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        sums = []
        for part in self._matrices:
            entries = values[part.tensor].narrow(part.dim, part.offset, self.units * part.width)
            sums.append(entries.movedim(part.dim, 0).reshape(self.units, -1).sum(dim=1))
        return torch.stack(sums).sum(dim=0)

    def expand(self, keep: torch.Tensor) -> Masks:
        return {name: self._spread(name, keep).contiguous() for name in self.tensors}

    def spread(self, values: torch.Tensor) -> Masks:
        # The output columns alone: a unit reaches the rest of the model only through them, and a gate on its other
        # tensors too would scale it by a power of the gate.
        return {self.group.output.tensor: self._spread(self.group.output.tensor, values)}

    def choose(self, scores: torch.Tensor, sparsity: float) -> torch.Tensor:
        return keep_highest(scores, sparsity)

    def _spread(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """One value an entry of the dimension along which the units lie, seen in the tensor's full shape."""
        shape, parts = self.shapes[name], sorted((p for p in self._parts if p.tensor == name), key=lambda p: p.offset)
        dim, end, pieces = parts[0].dim, 0, []
        for part in parts:
            pieces += [values.new_ones(part.offset - end), values.repeat_interleave(part.width)]
            end = part.offset + self.units * part.width
        line = torch.cat([*pieces, values.new_ones(shape[dim] - end)])
        return line.view([-1 if axis == dim else 1 for axis in range(len(shape))]).expand(shape)


@dataclass(frozen=True)
class _Layers:
    """Layers as units, each of all its heads and neurons."""

    layers: tuple[tuple[_Units, ...], ...]
    name: str = "layers"
    pattern: float | None = None

    @property
    def tensors(self) -> tuple[str, ...]:
        return tuple(name for layer in self.layers for part in layer for name in part.tensors)

    @property
    def scored(self) -> tuple[str, ...]:
        return tuple(name for layer in self.layers for part in layer for name in part.scored)

    @property
    def units(self) -> int:
        return len(self.layers)

    @property
    def weights(self) -> int:
        return sum(part.weights for layer in self.layers for part in layer)

    @property
    def shape(self) -> tuple[int, int]:
        return self.units, self.weights // self.units

    def pool(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return torch.stack([torch.stack([part.pool(values).sum() for part in layer]).sum() for layer in self.layers])

    def expand(self, keep: torch.Tensor) -> Masks:
        return {n: mask for one, part in self._parts(keep) for n, mask in part.expand(one).items()}

    def spread(self, values: torch.Tensor) -> Masks:
        return {n: value for one, part in self._parts(values) for n, value in part.spread(one).items()}

    def choose(self, scores: torch.Tensor, sparsity: float) -> torch.Tensor:
        return keep_highest(scores, sparsity)

    def _parts(self, values: torch.Tensor) -> Iterator[tuple[torch.Tensor, _Units]]:
        for value, layer in zip(values, self.layers, strict=True):
            for part in layer:
                yield value.expand(part.units), part

"""Sites: the units that are ranked and removed together, and the tensors in which they lie.

A structure makes sites from a scope; all that follows (criteria, budgets, updates, gates) sees units only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch

Masks = dict[str, torch.Tensor]


class Site(Protocol):
    """`units` things to keep or remove, in the tensors named; True in a mask or in `keep` = keep."""

    @property
    def name(self) -> str:
        """The tensor, or the group, for example `encoder.layer.0.attention.self.query.weight`."""
        ...

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of all parameters that are masked, biases of removed units included."""
        ...

    @property
    def scored(self) -> tuple[str, ...]:
        """Names of the matrices that `pool` reads; a subset of `tensors`."""
        ...

    @property
    def units(self) -> int:
        """Number of units."""
        ...

    @property
    def weights(self) -> int:
        """Number of entries of the scored matrices that the units hold together; equal for every unit."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """What decides an ERK share: the matrix's rows and columns, or units and weights of one unit."""
        ...

    @property
    def pattern(self) -> float | None:
        """The sparsity of the pattern that every group of weights must meet; None if any unit may go.

        Where there is one, no threshold can be shared, and no other target be met.
        """
        ...

    def pool(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Sum of the values of each unit's entries [units]; `values` has one tensor for each name in `scored`."""
        ...

    def expand(self, keep: torch.Tensor) -> Masks:
        """A mask of the full shape for each tensor, from `keep` [units] bool."""
        ...

    def spread(self, values: torch.Tensor) -> Masks:
        """What entries are multiplied with, from real numbers [units], differentiable.

        Only in the tensors where it is enough: a head is silent when its columns of the output projection are zero.
        """
        ...

    def choose(self, scores: torch.Tensor, sparsity: float) -> torch.Tensor:
        """The units to keep [units] bool: the highest scores, round(sparsity * units) of them removed.

        A removed unit has the score -inf, so that it goes first. n:m patterns remove alike in every group of m.
        """
        ...

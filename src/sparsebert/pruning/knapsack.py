"""Budgets: how a target is shared among the layers. Exact dynamic programming over a table of costs and errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Literal

import numpy as np

from sparsebert.errors import UnreachableError
from sparsebert.groups import GroupKind

BINS = 1000


@dataclass(frozen=True)
class LayerChoice:
    """One way to leave one layer: so many units of each kind kept, or the whole layer gone."""

    kept: Mapping[GroupKind, int]
    dropped: bool
    cost: float
    error: float


@dataclass(frozen=True)
class CostTable:
    """What a layer costs, in the unit of the target (milliseconds, parameters).

    blocks[kind][n]: the block with n units of that kind; `layer`: what a layer costs besides; `fixed`: what the model
    costs besides its layers. A dropped layer costs nothing. `scope`: what a ratio of costs is of, the layers alone, or
    the whole model where layers cannot be measured alone.
    """

    blocks: Mapping[GroupKind, Mapping[int, float]]
    layer: float
    fixed: float = 0.0
    scope: Literal["encoder", "model"] = "encoder"

    def cost(self, kept: Mapping[GroupKind, int]) -> float:
        """Cost of one layer with these units; sizes between table entries are interpolated."""
        # Not `sum`, which rounds otherwise from Python 3.12 on: a layer costs to the bit what `layer_choices` says.
        return reduce(add, (_interpolate(block, kept[kind]) for kind, block in self.blocks.items()), self.layer)

    def total(self, choices: Sequence[LayerChoice]) -> float:
        """Cost of the whole model, where the choices were made by this table."""
        return self.fixed + sum(choice.cost for choice in choices)


def within_both(first: CostTable, budget: float, second: CostTable, room: float) -> CostTable:
    """Costs as parts of two budgets, of which the larger counts: what costs at most 1 is within `budget` and `room`.

    Sizes are those of `first`. Raises UnreachableError where what is fixed leaves nothing for layers.
    """
    left, space = budget - first.fixed, room - second.fixed
    if left <= 0 or space <= 0:
        raise UnreachableError("What lies outside the layers costs more than there is", got=f"{left:.4g}, {space:.4g}")
    return CostTable(
        blocks={
            kind: {n: max(cost / left, _interpolate(second.blocks[kind], n) / space) for n, cost in block.items()}
            for kind, block in first.blocks.items()
        },
        layer=max(first.layer / left, second.layer / space),
    )


def layer_choices(
    table: CostTable, errors: Mapping[GroupKind, Mapping[int, float]], skip_error: float | None
) -> list[LayerChoice]:
    """All combinations for one layer that no other beats in both cost and error; skip_error None = may not go.

    errors[kind][n]: the error of the block with n units of that kind.
    """
    choices = [LayerChoice({}, False, table.layer, 0.0)]
    for kind, block in table.blocks.items():
        options = [(count, _interpolate(block, count), error) for count, error in errors[kind].items()]
        choices = [
            LayerChoice({**choice.kept, kind: count}, False, choice.cost + cost, choice.error + error)
            for choice in choices
            for count, cost, error in options
        ]
    if skip_error is not None:
        choices.append(LayerChoice(dict.fromkeys(table.blocks, 0), True, 0.0, skip_error))
    front: list[LayerChoice] = []
    for choice in sorted(choices, key=lambda c: (c.cost, c.error, [-count for count in c.kept.values()])):
        if not front or choice.error < front[-1].error:
            front.append(choice)
    return front


def share(layers: Sequence[Sequence[LayerChoice]], budget: float, fixed: float = 0.0) -> list[LayerChoice]:
    """One choice a layer with the least total error and a total cost of at most `budget`.

    Knapsack by dynamic programming on a grid of 1,000 cost steps; costs are rounded up, so the budget holds.
    Raises UnreachableError with the nearest reachable cost when even the cheapest choices cost more.
    """
    room = budget - fixed
    cheapest = sum(min(choice.cost for choice in choices) for choices in layers)
    if cheapest > room:
        raise UnreachableError(
            "The target cannot be met", got=f"cost {budget:.4g}", allowed=f"at least {cheapest + fixed:.4g}"
        )
    step = room / BINS or 1.0
    best = np.zeros(BINS + 1)
    picks = []
    for choices in layers:
        best, pick = _add_layer(best, choices, step)
        picks.append(pick)
    if not np.isfinite(best[BINS]):
        return [min(choices, key=lambda choice: choice.cost) for choices in layers]
    return _trace(layers, picks, step)


def _steps(choice: LayerChoice, step: float) -> int:
    return int(np.ceil(choice.cost / step - 1e-9))


def _add_layer(best: np.ndarray, choices: Sequence[LayerChoice], step: float) -> tuple[np.ndarray, np.ndarray]:
    table = np.full((len(choices), BINS + 1), np.inf)
    for row, choice in enumerate(choices):
        cost = _steps(choice, step)
        if cost <= BINS:
            table[row, cost:] = best[: BINS + 1 - cost] + choice.error
    pick = table.argmin(axis=0)
    return table[pick, np.arange(BINS + 1)], pick


def _trace(layers: Sequence[Sequence[LayerChoice]], picks: Sequence[np.ndarray], step: float) -> list[LayerChoice]:
    left = BINS
    chosen = []
    for choices, pick in zip(reversed(layers), reversed(picks), strict=True):
        choice = choices[int(pick[left])]
        chosen.append(choice)
        left -= _steps(choice, step)
    return chosen[::-1]


def _interpolate(table: Mapping[int, float], size: int) -> float:
    if size in table:
        return table[size]
    known = sorted(table)
    return float(np.interp(size, known, [table[key] for key in known]))

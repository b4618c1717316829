"""Targets: from what the user asked for to a budget in the unit of a cost table, and back to what was achieved."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel

from sparsebert.counts import example_inputs
from sparsebert.errors import UnreachableError
from sparsebert.measurement.bench import Setting
from sparsebert.models.layout import layout_of
from sparsebert.progress import busy
from sparsebert.pruning.assemble import assemble
from sparsebert.pruning.calibration import Calibrated
from sparsebert.pruning.costs import parameter_table
from sparsebert.pruning.knapsack import CostTable
from sparsebert.pruning.search import Found, Scorer, search_even, search_layers, search_shape
from sparsebert.recipe.compress import CompressRecipe
from sparsebert.recipe.schema import Target
from sparsebert.timing import Variant, encoder_timer, measure, torch_threads

CLOSE_ENOUGH = 0.02
ATTEMPTS = 4


@dataclass(frozen=True)
class Goal:
    """A target, the recipe it belongs to, the setting it is about, the dense model, and the model to thin."""

    target: Target
    recipe: CompressRecipe
    setting: Setting
    dense: PreTrainedModel
    current: PreTrainedModel


def meet(
    goal: Goal, latency_table: Callable[[], CostTable], calibrated: Calibrated, score: Scorer
) -> tuple[Found, float]:
    """Search for the goal and measure what was found; gives the shape and what it achieved, in the target's unit.

    Speed targets are corrected by measurement: the shape found is timed against the dense model in interleaved
    rounds, the budget is scaled by the error, and the search goes on from where it was, until it is 2 % close.
    Whole layers are as many as come nearest. Raises UnreachableError, with the nearest reachable value, for a target
    that cannot be met.
    """
    timed = goal.target.kind in ("speedup", "latency_ms")
    table = latency_table() if timed else _counting_table(goal)
    budget = _budget(goal, table)
    if goal.recipe.shape == "layers":
        found = search_layers(calibrated, table, _layers_for(calibrated, table, budget), score)
        return found, _achieved(goal, calibrated, found, table)
    candidates, factors = 0 if timed else goal.recipe.search.candidates, None
    best: tuple[Found, float] | None = None
    for attempt in range(ATTEMPTS if timed else 1):
        try:
            found = _search(goal, calibrated, table, budget, score, candidates, factors)
        except UnreachableError:
            if best is None:
                raise
            # The table said that the corrected budget cannot be met; what was measured is as close as it gets.
            break
        achieved = _achieved(goal, calibrated, found, table)
        if best is None or attempt < 2 or _miss(goal, achieved) < _miss(goal, best[1]):
            best = found, achieved
        if attempt > 0 and _miss(goal, achieved) <= CLOSE_ENOUGH:
            break
        budget = _corrected(goal, table, budget, achieved)
        candidates, factors = goal.recipe.search.candidates // (1 if attempt == 0 else 4), found.factors
    assert best is not None
    return best


def _search(
    goal: Goal,
    calibrated: Calibrated,
    table: CostTable,
    budget: float,
    score: Scorer,
    candidates: int,
    factors: np.ndarray | None,
) -> Found:
    drop = goal.recipe.search.drop_layers
    try:
        if goal.recipe.even:
            return search_even(calibrated, table, budget, score, drop)
        return search_shape(calibrated, table, budget, score, candidates, goal.recipe.seed, drop, factors)
    except UnreachableError as error:
        raise UnreachableError(
            f"The target {goal.target.kind} {goal.target.value:g} cannot be met",
            allowed=f"the nearest reachable is about {_nearest(goal, calibrated, table):.3g}",
        ) from error


def _counting_table(goal: Goal) -> CostTable:
    if goal.target.kind == "sparsity":
        return parameter_table(goal.dense, 1, encoder_linear_only=True)
    bytes_each = next(goal.dense.parameters()).element_size()
    return parameter_table(goal.dense, bytes_each, encoder_linear_only=False)


def _full_cost(goal: Goal, table: CostTable) -> float:
    layers = layout_of(goal.dense).layers
    return sum(
        table.cost(layer.attention.units if layer.attention else 0, layer.ffn.units if layer.ffn else 0)
        for layer in layers
    )


def _budget(goal: Goal, table: CostTable) -> float:
    full, value = _full_cost(goal, table), goal.target.value
    if goal.target.kind == "speedup":
        return full / value + table.fixed
    if goal.target.kind == "latency_ms":
        return value
    if goal.target.kind == "size":
        return value * (full + table.fixed)
    return (1 - value) * full


def _nearest(goal: Goal, calibrated: Calibrated, table: CostTable) -> float:
    """The most that the narrowest layers would reach, one of them or all if none may go, in the target's unit."""
    layers, full = calibrated.layout.layers, _full_cost(goal, table)
    heads, neurons = 0, 0
    if goal.recipe.even:
        heads = calibrated.layout.full_heads
        neurons = min(
            count for layer in layers if layer.ffn for count in calibrated.candidates[layer.ffn.name] if count
        )
    least = table.cost(heads, neurons) * (1 if goal.recipe.search.drop_layers else len(layers))
    if goal.target.kind == "speedup":
        return full / max(least, 1e-9)
    if goal.target.kind == "latency_ms":
        return table.fixed + least
    if goal.target.kind == "size":
        return (table.fixed + least) / (full + table.fixed)
    return 1 - least / full


def _achieved(goal: Goal, calibrated: Calibrated, found: Found, table: CostTable) -> float:
    full = _full_cost(goal, table)
    if goal.target.kind == "size":
        return found.cost / (full + table.fixed)
    if goal.target.kind == "sparsity":
        return 1 - (found.cost - table.fixed) / full
    small = assemble(goal.current, calibrated.candidates, found.choices)
    speedup, latency_ms = measure_pair(
        goal.dense, small, goal.setting, goal.recipe.measure.rounds, goal.recipe.measure.threads
    )
    return speedup if goal.target.kind == "speedup" else latency_ms


def measure_pair(
    dense: PreTrainedModel, small: PreTrainedModel, setting: Setting, rounds: int, threads: int | None
) -> tuple[float, float]:
    """Encoder speedup of `small` over `dense` (median ratio of interleaved rounds) and its whole-model median in ms.

    Where the machine is noisy, `rounds` become more (see clock.measure).
    """
    inputs = example_inputs([dense, small], setting.batch, setting.length)
    with ExitStack() as stack:
        stack.enter_context(busy("Measuring the candidate against the dense model"))
        stack.enter_context(torch_threads(threads))
        clocks = [
            stack.enter_context(encoder_timer(model, [layer.path for layer in layout_of(model).layers]))
            for model in (dense, small)
        ]
        variants = [
            Variant("dense", lambda: dense(**inputs), lambda: clocks[0].total_ns),
            Variant("small", lambda: small(**inputs), lambda: clocks[1].total_ns),
        ]
        samples = measure(variants, rounds, compared=[("small", "dense")])
    base, own = np.array(samples["dense"].part_ms), np.array(samples["small"].part_ms)
    return float(np.median(base / own)), float(np.median(samples["small"].whole_ms))


def _layers_for(calibrated: Calibrated, table: CostTable, budget: float) -> int:
    """The number of whole layers whose cost is nearest to the budget, as a ratio."""
    layer = calibrated.layout.layers[0]
    each = table.cost(layer.attention.units if layer.attention else 0, layer.ffn.units if layer.ffn else 0)
    room = max(budget - table.fixed, each * 1e-3)
    counts = range(1, len(calibrated.layout.layers) + 1)
    return min(counts, key=lambda count: abs(np.log(count * each / room)))


def _miss(goal: Goal, achieved: float) -> float:
    return abs(achieved / goal.target.value - 1)


def _corrected(goal: Goal, table: CostTable, budget: float, achieved: float) -> float:
    """The budget scaled by the error; a speedup is of the layers alone, so what lies outside them is left as it is."""
    ratio = achieved / goal.target.value
    return table.fixed + (budget - table.fixed) * ratio if goal.target.kind == "speedup" else budget / ratio

"""Targets: from what the user asked for to a budget in the unit of a cost table, and back to what was achieved."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from transformers import PreTrainedModel

from sparsebert import registry
from sparsebert.counts import example_inputs
from sparsebert.errors import UnreachableError
from sparsebert.groups import LAYER_KINDS
from sparsebert.measurement.setting import Setting
from sparsebert.measurement.station import Forward, variant_of
from sparsebert.models.layout import layout_of
from sparsebert.progress import busy
from sparsebert.pruning.assemble import assemble
from sparsebert.pruning.calibration import Calibrated
from sparsebert.pruning.costs import parameter_table
from sparsebert.pruning.knapsack import CostTable
from sparsebert.pruning.search import Found, Scorer, search_even, search_layers, search_shape
from sparsebert.pruning.target_kinds import CountedTarget, DenseCost, TimedTarget
from sparsebert.recipe.compress import CompressRecipe
from sparsebert.recipe.schema import Target
from sparsebert.recipe.storing import Weights
from sparsebert.runtimes.pytorch import EAGER
from sparsebert.runtimes.runtime import Runtime
from sparsebert.timing import measure, torch_threads

CLOSE_ENOUGH = 0.02
# Codes with a scale of two bytes for 64 of them (models/rounding.py).
BYTES: dict[Weights, float] = {"bf16": 2.0, "int8": 1 + 2 / 64, "int4": 0.5 + 2 / 64}
ATTEMPTS = 4


@dataclass(frozen=True)
class Goal:
    """A target, the recipe it belongs to, the setting it is about, the dense model, and the model to thin.

    `start` is the first of those that heads and neurons were taken from: the dense model, or one with a smaller hidden
    size, on which what is left of a layer costs less. `bytes_gone` were taken off the dense model before: sizes are
    against what it had with them.
    """

    target: Target
    recipe: CompressRecipe
    setting: Setting
    dense: PreTrainedModel
    start: PreTrainedModel
    current: PreTrainedModel
    bytes_gone: int = 0


def meet(
    goal: Goal, latency_table: Callable[[PreTrainedModel], CostTable], calibrated: Calibrated, score: Scorer
) -> tuple[Found, float]:
    """Search for the goal and measure what was found; gives the shape and what it achieved, in the target's unit.

    Speed targets are corrected by measurement: the shape found is timed against the dense model in interleaved
    rounds, the budget is scaled by the error, and the search goes on from where it was, until it is 2 % close.
    Whole layers are as many as come nearest. Raises UnreachableError, with the nearest reachable value, for a target
    that cannot be met.
    """
    kind = goal.target.rules
    timed = isinstance(kind, TimedTarget)
    tables = partial(_counting_table, goal, kind.counts) if isinstance(kind, CountedTarget) else latency_table
    table = tables(goal.start)
    dense = _dense_cost(goal, tables(goal.dense), table)
    budget = kind.budget(goal.target.value, dense)
    if goal.recipe.shape == "layers":
        found = search_layers(calibrated, table, _layers_for(calibrated, table, budget), score)
        return found, _achieved(goal, calibrated, found, dense)
    candidates, factors = 0 if timed else goal.recipe.search.candidates, None
    best: tuple[Found, float] | None = None
    for attempt in range(ATTEMPTS if timed else 1):
        try:
            found = _search(goal, calibrated, (table, dense), budget, score, candidates, factors)
        except UnreachableError:
            if best is None:
                raise
            # The table said that the corrected budget cannot be met; what was measured is as close as it gets.
            break
        achieved = _achieved(goal, calibrated, found, dense)
        if best is None or attempt < 2 or _miss(goal, achieved) < _miss(goal, best[1]):
            best = found, achieved
        if attempt > 0 and _miss(goal, achieved) <= CLOSE_ENOUGH:
            break
        if isinstance(kind, TimedTarget):
            budget = kind.corrected(budget, dense.fixed, achieved / goal.target.value)
        candidates, factors = goal.recipe.search.candidates // (1 if attempt == 0 else 4), found.factors
    assert best is not None
    return best


def _search(
    goal: Goal,
    calibrated: Calibrated,
    costs: tuple[CostTable, DenseCost],
    budget: float,
    score: Scorer,
    candidates: int,
    factors: np.ndarray | None,
) -> Found:
    drop, (table, dense) = goal.recipe.search.drop_layers, costs
    try:
        if goal.recipe.even:
            return search_even(calibrated, table, budget, score, drop)
        return search_shape(calibrated, table, budget, score, candidates, goal.recipe.seed, drop, factors)
    except UnreachableError as error:
        raise UnreachableError(
            f"The target {goal.target.kind} {goal.target.value:g} cannot be met",
            allowed=f"the nearest reachable is about {_nearest(goal, calibrated, table, dense):.3g}",
        ) from error


def _counting_table(goal: Goal, counts: Literal["bytes", "encoder_weights"], model: PreTrainedModel) -> CostTable:
    if counts == "encoder_weights":
        return parameter_table(model, 1, encoder_linear_only=True)
    return parameter_table(model, _bytes_each(goal), encoder_linear_only=False)


def _bytes_each(goal: Goal) -> float:
    """Bytes that a weight takes in the file: nearly all are rounded as `weights` says."""
    how = goal.recipe.weights
    return next(goal.dense.parameters()).element_size() if how is None else BYTES[how]


def _dense_cost(goal: Goal, whole: CostTable, table: CostTable) -> DenseCost:
    """By the table of the dense model, with what lies outside the layers of the model that is thinned."""
    full = sum(whole.cost(layer.units) for layer in layout_of(goal.dense).layers)
    kind = goal.target.rules
    if isinstance(kind, CountedTarget) and kind.counts == "bytes":
        # The dense model's own file is not rounded.
        times = next(goal.dense.parameters()).element_size() / _bytes_each(goal)
        return DenseCost((full + whole.fixed) * times + goal.bytes_gone, 0.0)
    return DenseCost(full, table.fixed) if whole.scope == "encoder" else DenseCost(full + whole.fixed, 0.0)


def _nearest(goal: Goal, calibrated: Calibrated, table: CostTable, dense: DenseCost) -> float:
    """The most that the narrowest layers would reach, one of them or all if none may go, in the target's unit."""
    layers = calibrated.layout.layers
    kept = dict.fromkeys(LAYER_KINDS, 0)
    if goal.recipe.even:
        blocks = [layer.groups["neuron"].name for layer in layers if "neuron" in layer.groups]
        narrowest = min(count for name in blocks for count in calibrated.candidates[name] if count)
        kept |= {"head": calibrated.layout.full_heads, "neuron": narrowest}
    least = table.cost(kept) * (1 if goal.recipe.search.drop_layers else len(layers))
    return goal.target.rules.value_at(table.fixed + least, dense)


def _achieved(goal: Goal, calibrated: Calibrated, found: Found, dense: DenseCost) -> float:
    kind = goal.target.rules
    if not isinstance(kind, TimedTarget):
        return kind.value_at(found.cost, dense)
    small = assemble(goal.current, calibrated.candidates, found.choices)
    wanted = goal.recipe.measure
    runtime: Runtime = registry.get("runtime", wanted.runtime)
    speedup, latency_ms = measure_pair(goal.dense, small, goal.setting, wanted.rounds, wanted.threads, runtime)
    return kind.measured(speedup, latency_ms)


def measure_pair(
    dense: PreTrainedModel,
    small: PreTrainedModel,
    setting: Setting,
    rounds: int,
    threads: int | None,
    runtime: Runtime = EAGER,
) -> tuple[float, float]:
    """Encoder speedup of `small` over `dense` (median ratio of interleaved rounds) and its whole-model median in ms.

    The speedup is of the whole model in a runtime that runs it as one program. Where the machine is noisy, `rounds`
    become more (see timing.measure). Raises RuntimeUnavailableError where the runtime cannot run one of the two.
    """
    inputs = example_inputs([dense, small], setting.batch, setting.length)
    with ExitStack() as stack:
        stack.enter_context(busy("Measuring the candidate against the dense model"))
        stack.enter_context(torch_threads(threads))
        ready = {name: runtime.prepare(model, inputs) for name, model in (("dense", dense), ("small", small))}
        variants = [variant_of(name, found, Forward(found, [inputs]), stack) for name, found in ready.items()]
        samples = measure(variants, rounds, compared=[("small", "dense")])
    base, own = (np.array(found.part_ms or found.whole_ms) for found in (samples["dense"], samples["small"]))
    return float(np.median(base / own)), float(np.median(samples["small"].whole_ms))


def _layers_for(calibrated: Calibrated, table: CostTable, budget: float) -> int:
    """The number of whole layers whose cost is nearest to the budget, as a ratio."""
    layer = calibrated.layout.layers[0]
    each = table.cost(layer.units)
    room = max(budget - table.fixed, each * 1e-3)
    counts = range(1, len(calibrated.layout.layers) + 1)
    return min(counts, key=lambda count: abs(np.log(count * each / room)))


def _miss(goal: Goal, achieved: float) -> float:
    return abs(achieved / goal.target.value - 1)

"""Targets: from what the user asked for to a budget in the unit of a cost table, and back to what was achieved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
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
from sparsebert.models.layout import LayerLayout, encoder_linear_names, layout_of
from sparsebert.models.storage import AS_TRAINED, Packing, bytes_each
from sparsebert.progress import busy
from sparsebert.pruning.assemble import assemble
from sparsebert.pruning.calibration import Calibrated
from sparsebert.pruning.costs import parameter_table
from sparsebert.pruning.knapsack import CostTable, within_both
from sparsebert.pruning.search import Found, Scorer, search_even, search_layers, search_shape
from sparsebert.pruning.target_kinds import CountedTarget, DenseCost, TimedTarget
from sparsebert.recipe.compress import CompressRecipe
from sparsebert.recipe.schema import Target
from sparsebert.runtimes.pytorch import EAGER
from sparsebert.runtimes.runtime import Runtime
from sparsebert.timing import measure, torch_threads

CLOSE_ENOUGH = 0.02
ATTEMPTS = 4
# Of the layers' bytes: what fine-tuning brings back; with less left, fewer bits lose less than a smaller shape does.
ENOUGH_LEFT = 0.5


@dataclass(frozen=True)
class ByteRoom:
    """Bytes that a file has for weights, and what each layer takes of them besides its weights, such as for names."""

    weights: float
    a_layer: float


@dataclass(frozen=True)
class Goal:
    """A target, the recipe it belongs to, the setting it is about, the dense model, and the model to thin.

    `start` is the first of those that heads and neurons were taken from: the dense model, or one with a smaller hidden
    size, on which what is left of a layer costs less. `bytes_gone` were taken off the dense model before: sizes are
    against what it had with them. Sizes are of weights stored as `packing` says; where that is given, what is left of
    them besides has to find `room`.
    """

    target: Target
    recipe: CompressRecipe
    setting: Setting
    dense: PreTrainedModel
    start: PreTrainedModel
    current: PreTrainedModel
    bytes_gone: int = 0
    packing: Packing = AS_TRAINED
    room: ByteRoom | None = None


# A table of what is thinned, and what the dense model costs in its unit.
Costs = tuple[CostTable, DenseCost]


def meet(
    goal: Goal, latency_table: Callable[[PreTrainedModel], CostTable], calibrated: Calibrated, score: Scorer
) -> tuple[Found, float]:
    """Search for the goal and measure what was found; gives the shape and what it achieved, in the target's unit.

    Speed targets are corrected by measurement: the shape found is timed against the dense model in interleaved
    rounds, the budget is scaled by the error, and the search goes on from where it was, until it is 2 % close.
    Whole layers are as many as come nearest. Raises UnreachableError, with the nearest reachable value, for a target
    that cannot be met. Where there is `room` for fewer bytes than the target alone would take, the shape has no more of
    them, and what it achieves is more than was asked for.
    """
    kind = goal.target.rules
    timed = isinstance(kind, TimedTarget)
    tables = partial(_counting_table, goal, kind.counts) if isinstance(kind, CountedTarget) else latency_table
    table = tables(goal.start)
    dense = _dense_cost(goal, table if goal.start is goal.dense else tables(goal.dense), table)
    budget = kind.budget(goal.target.value, dense)
    if goal.recipe.shape == "layers":
        found = search_layers(calibrated, table, _layers_for(goal, calibrated, table, budget), score)
        return found, _achieved(goal, calibrated, found, (table, dense))
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
        achieved = _achieved(goal, calibrated, found, (table, dense))
        if best is None or attempt < 2 or _miss(goal, achieved) < _miss(goal, best[1]):
            best = found, achieved
        if attempt > 0 and _miss(goal, achieved) <= CLOSE_ENOUGH:
            break
        if isinstance(kind, TimedTarget):
            # Where bytes are what is scarce, the time that was spent is less than there was.
            spent = budget if goal.room is None else _cost(found, table)
            budget = kind.corrected(spent, dense.fixed, achieved / goal.target.value)
        candidates, factors = goal.recipe.search.candidates // (1 if attempt == 0 else 4), found.factors
    assert best is not None
    return best


def _search(
    goal: Goal,
    calibrated: Calibrated,
    costs: Costs,
    budget: float,
    score: Scorer,
    candidates: int,
    factors: np.ndarray | None,
) -> Found:
    drop, (table, dense) = goal.recipe.search.drop_layers, costs
    try:
        within = (table, budget) if goal.room is None else (_within(table, budget, goal, goal.room), 1.0)
        if goal.recipe.even:
            return search_even(calibrated, *within, score, drop)
        return search_shape(calibrated, *within, score, candidates, goal.recipe.seed, drop, factors)
    except UnreachableError as error:
        raise UnreachableError(
            f"The target {goal.target.kind} {goal.target.value:g} cannot be met",
            allowed=f"the nearest reachable is about {_nearest(goal, calibrated, table, dense):.3g}",
        ) from error


def _within(table: CostTable, budget: float, goal: Goal, room: ByteRoom) -> CostTable:
    sizes = byte_table(goal)
    return within_both(table, budget, replace(sizes, layer=sizes.layer + room.a_layer), room.weights)


def byte_table(goal: Goal) -> CostTable:
    """Bytes of weights as the goal says that they are stored."""
    return parameter_table(goal.start, bytes_each(goal.start, goal.packing))


def packing_for_size(goal: Goal, packings: Sequence[Packing], calibrated: Calibrated) -> Packing:
    """How a member is stored that is to have a part of the bytes: as the first says, where any shape has so few so.

    Else the finest of the others in which half of the layers' bytes may stay, or the last. Those are finest first.
    """
    first = replace(goal, packing=packings[0])
    if _nearest(first, calibrated, byte_table(first), _dense_bytes(goal)) <= goal.target.value:
        return packings[0]
    fits = (one for one in packings[1:] if _left(replace(goal, packing=one)) >= ENOUGH_LEFT)
    return next(fits, packings[-1])


def _left(goal: Goal) -> float:
    """Part of the layers' bytes that may stay in the size that is asked for."""
    table = byte_table(goal)
    budget = goal.target.rules.budget(goal.target.value, _dense_bytes(goal))
    return (budget - table.fixed) / sum(table.cost(layer.units) for layer in layout_of(goal.start).layers)


def _counting_table(goal: Goal, counts: Literal["bytes", "encoder_weights"], model: PreTrainedModel) -> CostTable:
    if counts == "encoder_weights":
        return parameter_table(model, dict.fromkeys(encoder_linear_names(model), 1.0))
    return byte_table(goal)


def _dense_cost(goal: Goal, whole: CostTable, table: CostTable) -> DenseCost:
    """By the table of the dense model, with what lies outside the layers of the model that is thinned."""
    kind = goal.target.rules
    if isinstance(kind, CountedTarget) and kind.counts == "bytes":
        return _dense_bytes(goal)
    full = sum(whole.cost(layer.units) for layer in layout_of(goal.dense).layers)
    return DenseCost(full, table.fixed) if whole.scope == "encoder" else DenseCost(full + whole.fixed, 0.0)


def _dense_bytes(goal: Goal) -> DenseCost:
    """The dense model's own file is not rounded."""
    weights = sum(weight.numel() * weight.element_size() for weight in goal.dense.parameters())
    return DenseCost(float(weights + goal.bytes_gone), 0.0)


def _nearest(goal: Goal, calibrated: Calibrated, table: CostTable, dense: DenseCost) -> float:
    """The most that the narrowest layers would reach, one of them or all if none may go, in the target's unit."""
    layers = calibrated.layout.layers
    kept = dict.fromkeys(LAYER_KINDS, 0)
    if goal.recipe.shape == "layers":
        kept |= layers[0].units
    elif goal.recipe.even:
        blocks = [layer.groups["neuron"].name for layer in layers if "neuron" in layer.groups]
        narrowest = min(count for name in blocks for count in calibrated.candidates[name] if count)
        kept |= {"head": calibrated.layout.full_heads, "neuron": narrowest}
    least = table.cost(kept) * (1 if goal.recipe.search.drop_layers else len(layers))
    return goal.target.rules.value_at(table.fixed + least, dense)


def _cost(found: Found, table: CostTable) -> float:
    """Of the whole model, by another table than the search went by."""
    return table.fixed + sum(table.cost(choice.kept) for choice in found.choices if not choice.dropped)


def _achieved(goal: Goal, calibrated: Calibrated, found: Found, costs: Costs) -> float:
    kind = goal.target.rules
    if not isinstance(kind, TimedTarget):
        return kind.value_at(_cost(found, costs[0]), costs[1])
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


def _layers_for(goal: Goal, calibrated: Calibrated, table: CostTable, budget: float) -> int:
    """The number of whole layers whose cost is nearest to the budget, as a ratio, and for which there is room."""
    layer = calibrated.layout.layers[0]
    each = table.cost(layer.units)
    room = max(budget - table.fixed, each * 1e-3)
    counts = range(1, _most_layers(goal, layer, len(calibrated.layout.layers)) + 1)
    return min(counts, key=lambda count: abs(np.log(count * each / room)))


def _most_layers(goal: Goal, layer: LayerLayout, count: int) -> int:
    if goal.room is None:
        return count
    table = byte_table(goal)
    fitting = int((goal.room.weights - table.fixed) // (table.cost(layer.units) + goal.room.a_layer))
    if fitting < 1:
        raise UnreachableError("Not one layer is so small", got=f"room for {goal.room.weights:,.0f} bytes of weights")
    return min(count, fitting)


def _miss(goal: Goal, achieved: float) -> float:
    """How far off it is, as a ratio; with little room for bytes, more than was asked for is not too much."""
    value = goal.target.value
    return abs(achieved / value - 1) if goal.room is None else max(0.0, 1 - goal.target.rules.reached(achieved, value))

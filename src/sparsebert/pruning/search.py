"""Search: the shape that meets a budget and hurts the outputs least."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from transformers import PreTrainedModel

from sparsebert.data.labels import labels_of
from sparsebert.errors import UnreachableError, UserError
from sparsebert.groups import LAYER_KINDS, Group
from sparsebert.models.layout import LayerLayout
from sparsebert.progress import tracked
from sparsebert.pruning.assemble import assemble
from sparsebert.pruning.calibration import Calibrated
from sparsebert.pruning.knapsack import CostTable, LayerChoice, layer_choices, share
from sparsebert.training.collate import Collator
from sparsebert.training.evaluate import predict_logits

# Few blocks at a time, so that a trial is near the best shape so far; those by a factor of about e either way.
MUTATED = 0.2
SPREAD = 1.0
# Each costs a pass over the scoring examples.
MOST_SUBSETS = 200
Scorer = Callable[[Sequence[LayerChoice]], float]


@dataclass(frozen=True)
class Found:
    """A shape, its cost in the table's unit, its score (a divergence, see `scorer`), and how many shapes were tried."""

    choices: tuple[LayerChoice, ...]
    cost: float
    divergence: float
    tried: int
    factors: np.ndarray


def scorer(model: PreTrainedModel, calibrated: Calibrated, collate: Collator, by_loss: bool = False) -> Scorer:
    """A function from choices to the divergence of the model they give, on the calibration examples.

    With `by_loss` it is the task's training loss instead, for the criterion that goes by its rise.
    """
    kind, labels = calibrated.kind, labels_of(calibrated.score_rows)

    def score(choices: Sequence[LayerChoice]) -> float:
        small = assemble(model, calibrated.candidates, choices)
        logits = predict_logits(small, calibrated.score_rows, collate, kind=kind)
        return kind.mean_loss(logits, labels) if by_loss else kind.divergence(calibrated.teacher_logits, logits)

    return score


def search_shape(
    calibrated: Calibrated,
    table: CostTable,
    budget: float,
    score: Scorer,
    candidates: int,
    seed: int,
    drop_layers: bool,
    start: np.ndarray | None = None,
) -> Found:
    """Dynamic programming over measured costs and estimated errors, then a random local search on the real outputs.

    Each candidate scales the estimated errors of some blocks by random factors, solves again, and is kept if the
    assembled model's outputs diverge less (ZipLM, arXiv:2302.04089, section 3.2, with the divergence from the dense
    model as the loss). Same seed, same shape. `start` are the factors [layers, kinds + 1], the last for the layer as a
    whole, of an earlier search to go on from.
    Raises UnreachableError when the budget cannot be met.
    """
    rng = np.random.default_rng(seed)
    factors = _ones(calibrated, table) if start is None else start
    best = share(_all_choices(calibrated, table, factors, drop_layers), budget, table.fixed)
    lowest = score(best)
    seen = {_shape(best)}
    for _ in tracked(range(candidates), "Searching shapes"):
        # Log-normal factors: an error stays positive, and twice as much is as likely as half. What the estimates get
        # wrong first is the scale between blocks, so that alone is varied, not the order of units within a block.
        trial = factors * np.exp(rng.normal(0, SPREAD, factors.shape) * (rng.random(factors.shape) < MUTATED))
        choices = share(_all_choices(calibrated, table, trial, drop_layers), budget, table.fixed)
        # Many factors lead to one shape, and to assemble and score it is what takes the time.
        if _shape(choices) in seen:
            continue
        seen.add(_shape(choices))
        value = score(choices)
        if value < lowest:
            best, lowest, factors = choices, value, trial
    return Found(tuple(best), table.total(best), lowest, len(seen), factors)


def search_layers(calibrated: Calibrated, table: CostTable, keep: int, score: Scorer) -> Found:
    """The control: keep `keep` whole layers, the subset whose outputs diverge least; greedy where subsets are many.

    The first layer is among them where the model cannot do without it.
    """
    full = [_full_choice(layer, table) for layer in calibrated.layout.layers]
    total = len(full)
    if not 1 <= keep <= total:
        raise UserError("The number of layers to keep is out of range", got=keep, allowed=f"1-{total}")
    tried: dict[frozenset[int], float] = {}

    def try_kept(kept: frozenset[int]) -> float:
        if kept not in tried:
            tried[kept] = score(_dropping(full, kept))
        return tried[kept]

    fixed = frozenset({0}) if calibrated.layout.first_stays else frozenset()
    free = sorted(set(range(total)) - fixed)
    if comb(len(free), keep - len(fixed)) <= MOST_SUBSETS:
        subsets = [fixed | frozenset(kept) for kept in combinations(free, keep - len(fixed))]
        best = min(tracked(subsets, "Searching layers"), key=try_kept)
    else:
        best = frozenset(range(total))
        while len(best) > keep:
            best = min((best - {layer} for layer in sorted(best - fixed)), key=try_kept)
    choices = _dropping(full, best)
    return Found(tuple(choices), table.total(choices), try_kept(best), len(tried), _ones(calibrated, table))


def search_even(calibrated: Calibrated, table: CostTable, budget: float, score: Scorer, drop_layers: bool) -> Found:
    """All heads kept and one feedforward width in every layer that stays, so that stock classes can load the model.

    Layers go one by one if they may, the least missed first; at each depth the widest width within the budget is
    scored. The first layer stays where the model cannot do without it or the stock one's is built unlike the others.
    Raises UnreachableError when even one layer with the narrowest width costs more.
    """
    layers = calibrated.layout.layers
    kept = list(range(len(layers)))
    found: list[Found] = []
    while True:
        width = _widest(calibrated, table, budget, kept)
        if width is not None:
            choices = _dropping([_full_choice(layer, table, width) for layer in layers], frozenset(kept))
            cost, tried = table.total(choices), len(found) + 1
            found.append(Found(tuple(choices), cost, score(choices), tried, _ones(calibrated, table)))
        removable = kept[1:] if calibrated.layout.first_stays or calibrated.layout.family.first_norm else kept
        if not drop_layers or len(kept) == 1:
            break
        kept.remove(min(removable, key=lambda index: calibrated.skip_errors[index]))
    if not found:
        raise UnreachableError("The target cannot be met with even widths", got=f"cost {budget:.4g}")
    return min(found, key=lambda one: one.divergence)


def _widest(calibrated: Calibrated, table: CostTable, budget: float, kept: Sequence[int]) -> int | None:
    layers = [calibrated.layout.layers[index] for index in kept]
    blocks = [layer.groups.get("neuron") for layer in layers]
    widths: set[int] = set.intersection(*(set(calibrated.candidates[ffn.name]) if ffn else {0} for ffn in blocks))
    for width in sorted(widths - {0}, reverse=True):
        if table.fixed + sum(_full_choice(layer, table, width).cost for layer in layers) <= budget:
            return width
    return None


def _ones(calibrated: Calibrated, table: CostTable) -> np.ndarray:
    return np.ones((len(calibrated.layout.layers), len(table.blocks) + 1))


def _shape(choices: Sequence[LayerChoice]) -> tuple[tuple[int | bool, ...], ...]:
    return tuple((*choice.kept.values(), choice.dropped) for choice in choices)


def _all_choices(
    calibrated: Calibrated, table: CostTable, factors: np.ndarray, drop_layers: bool
) -> list[list[LayerChoice]]:
    skips = calibrated.skip_errors
    # One layer has to stay, and it had better be the one that is missed most.
    stays = 0 if calibrated.layout.first_stays else int(np.argmax(skips))
    return [
        layer_choices(
            table,
            {kind: _errors(calibrated, layer.groups.get(kind), row[place]) for place, kind in enumerate(table.blocks)},
            skips[index] * float(row[-1]) if drop_layers and index != stays else None,
        )
        for index, (layer, row) in enumerate(zip(calibrated.layout.layers, factors, strict=True))
    ]


def _errors(calibrated: Calibrated, group: Group | None, factor: float) -> dict[int, float]:
    if group is None:
        return {0: 0.0}
    return {count: option.error * float(factor) for count, option in calibrated.candidates[group.name].items()}


def _full_choice(layer: LayerLayout, table: CostTable, width: int | None = None) -> LayerChoice:
    """All of a layer, or all but for a feedforward block of this width."""
    kept = dict(layer.units)
    if width is not None:
        kept["neuron"] = width
    return LayerChoice(kept, False, table.cost(kept), 0.0)


def _dropping(full: Sequence[LayerChoice], kept: frozenset[int]) -> list[LayerChoice]:
    gone = LayerChoice(dict.fromkeys(LAYER_KINDS, 0), True, 0.0, 0.0)
    return [choice if index in kept else gone for index, choice in enumerate(full)]

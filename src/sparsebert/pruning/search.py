"""Search: the shape that meets a budget and hurts the outputs least."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from transformers import PreTrainedModel

from sparsebert.errors import UnreachableError, UserError
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
    kind, labels = calibrated.kind, np.array(list(calibrated.score_rows["label"]))

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
    model as the loss). Same seed, same shape. `start` are the factors [layers, 3] of an earlier search to go on from.
    Raises UnreachableError when the budget cannot be met.
    """
    rng = np.random.default_rng(seed)
    factors = np.ones((len(calibrated.layout.layers), 3)) if start is None else start
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
    return Found(tuple(choices), table.total(choices), try_kept(best), len(tried), np.ones((total, 3)))


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
            choices = _even_choices(layers, table, kept, width)
            ones = np.ones((len(layers), 3))
            found.append(Found(tuple(choices), table.total(choices), score(choices), len(found) + 1, ones))
        removable = kept[1:] if calibrated.layout.first_stays or calibrated.layout.family.first_norm else kept
        if not drop_layers or len(kept) == 1:
            break
        kept.remove(min(removable, key=lambda index: calibrated.skip_errors[index]))
    if not found:
        raise UnreachableError("The target cannot be met with even widths", got=f"cost {budget:.4g}")
    return min(found, key=lambda one: one.divergence)


def _widest(calibrated: Calibrated, table: CostTable, budget: float, kept: Sequence[int]) -> int | None:
    groups = [(calibrated.layout.layers[index].attention, calibrated.layout.layers[index].ffn) for index in kept]
    widths: set[int] = set.intersection(*(set(calibrated.candidates[ffn.name]) if ffn else {0} for _, ffn in groups))
    for width in sorted(widths - {0}, reverse=True):
        cost = table.fixed + sum(table.cost(attention.units if attention else 0, width) for attention, _ in groups)
        if cost <= budget:
            return width
    return None


def _even_choices(
    layers: Sequence[LayerLayout], table: CostTable, kept: Sequence[int], width: int
) -> list[LayerChoice]:
    choices = []
    for layer in layers:
        heads = layer.attention.units if layer.attention else 0
        cost = table.cost(heads, width)
        stays = layer.index in kept
        choices.append(LayerChoice(heads, width, False, cost, 0.0) if stays else LayerChoice(0, 0, True, 0.0, 0.0))
    return choices


def _shape(choices: Sequence[LayerChoice]) -> tuple[tuple[int, int, bool], ...]:
    return tuple((choice.heads, choice.neurons, choice.dropped) for choice in choices)


def _all_choices(
    calibrated: Calibrated, table: CostTable, factors: np.ndarray, drop_layers: bool
) -> list[list[LayerChoice]]:
    skips = calibrated.skip_errors
    # One layer has to stay, and it had better be the one that is missed most.
    stays = 0 if calibrated.layout.first_stays else int(np.argmax(skips))
    return [
        layer_choices(
            table,
            _errors(calibrated, layer.attention.name if layer.attention else None, factors[index, 0]),
            _errors(calibrated, layer.ffn.name if layer.ffn else None, factors[index, 1]),
            skips[index] * float(factors[index, 2]) if drop_layers and index != stays else None,
        )
        for index, layer in enumerate(calibrated.layout.layers)
    ]


def _errors(calibrated: Calibrated, group: str | None, factor: float) -> dict[int, float]:
    if group is None:
        return {0: 0.0}
    return {count: option.error * float(factor) for count, option in calibrated.candidates[group].items()}


def _full_choice(layer: LayerLayout, table: CostTable) -> LayerChoice:
    heads = layer.attention.units if layer.attention else 0
    neurons = layer.ffn.units if layer.ffn else 0
    return LayerChoice(heads, neurons, False, table.cost(heads, neurons), 0.0)


def _dropping(full: Sequence[LayerChoice], kept: frozenset[int]) -> list[LayerChoice]:
    gone = LayerChoice(0, 0, True, 0.0, 0.0)
    return [choice if index in kept else gone for index, choice in enumerate(full)]

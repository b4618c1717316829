"""Search: the budget is met, a layer stays, the same seed finds the same shape, and the controls are what they say."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
import scipy.stats

from sparsebert.errors import UserError
from sparsebert.models.layout import encoder_linear_names
from sparsebert.pruning import search
from sparsebert.pruning.calibration import Calibrated, calibrate
from sparsebert.pruning.costs import parameter_table
from sparsebert.pruning.knapsack import CostTable, LayerChoice
from sparsebert.pruning.search import scorer, search_even, search_layers, search_shape
from sparsebert.tasks.classification import CLASSIFICATION
from sparsebert.tasks.regression import REGRESSION
from tiny import HEADS, LAYERS, NEURONS, tiny_model
from toy import both, calibrated_with, toy_collate, toy_rows

TABLE = CostTable(
    {"head": {heads: 4.0 * heads for heads in range(HEADS + 1)}, "neuron": {0: 0.0, NEURONS: 24.0}},
    layer=2.0,
    fixed=7.0,
)
FULL = LAYERS * 42.0


@pytest.fixture(scope="module")
def calibrated() -> Calibrated:
    return calibrated_with(tiny_model("bert"), skip_errors=[9.0, 1.5, 6.0], unit_errors=[0.3, 0.1, 0.2])


def removed(choices: Sequence[LayerChoice]) -> float:
    """A stand-in for a divergence: disagrees with the calibration about which layer matters."""
    wanted = [3.0, 5.0, 1.0]
    return sum(w * (HEADS + NEURONS - sum(c.kept.values())) for w, c in zip(wanted, choices, strict=True))


def test_divergence_is_the_mean_relative_entropy():
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (teacher, student))
    assert CLASSIFICATION.divergence(teacher, student) == pytest.approx(np.mean(scipy.stats.entropy(p, q, axis=1)))
    assert CLASSIFICATION.divergence(teacher, teacher + 5) == pytest.approx(0, abs=1e-12)


def test_divergence_of_one_output_is_the_squared_error():
    assert REGRESSION.divergence(np.array([[1.0], [2.0]]), np.array([[0.0], [5.0]])) == 5.0


@pytest.mark.parametrize("part", [0.95, 0.5, 0.2, 0.02])
@pytest.mark.parametrize("seed", range(3))
def test_budget_is_met_and_one_layer_stays(calibrated: Calibrated, part: float, seed: int):
    budget = part * FULL + TABLE.fixed
    found = search_shape(calibrated, TABLE, budget, removed, 20, seed, drop_layers=True)
    assert found.cost == pytest.approx(TABLE.total(found.choices)) and found.cost <= budget * (1 + 1e-9)
    assert not all(choice.dropped for choice in found.choices)
    assert found.divergence == removed(found.choices)
    assert 1 <= found.tried <= 21


def test_same_seed_same_shape(calibrated: Calibrated):
    found = [search_shape(calibrated, TABLE, 91, removed, 30, seed, True) for seed in (1, 1, 2)]
    assert found[0].choices == found[1].choices and found[0].tried == found[1].tried
    assert np.array_equal(found[0].factors, found[1].factors)
    assert not np.array_equal(found[0].factors, found[2].factors)


def test_search_without_candidates_trusts_the_errors(calibrated: Calibrated):
    # 42 have to go: layer 1 as a whole for 1.5, or its heads and those of layer 2 and three more for 2.1.
    found = search_shape(calibrated, TABLE, 84 + TABLE.fixed, removed, 0, 0, drop_layers=True)
    assert [(*c.kept.values(), c.dropped) for c in found.choices] == [(4, 24, False), (0, 0, True), (4, 24, False)]
    assert found.tried == 1 and np.array_equal(found.factors, np.ones((LAYERS, 3)))


def test_candidates_improve_the_real_score(calibrated: Calibrated):
    first = search_shape(calibrated, TABLE, 84 + TABLE.fixed, removed, 0, 0, drop_layers=True)
    better = search_shape(calibrated, TABLE, 84 + TABLE.fixed, removed, 60, 0, drop_layers=True)
    assert better.divergence < first.divergence
    again = search_shape(calibrated, TABLE, 84 + TABLE.fixed, removed, 0, 0, True, start=better.factors)
    assert again.choices == better.choices


def test_no_shape_is_scored_twice(calibrated: Calibrated):
    scored: list[tuple[LayerChoice, ...]] = []

    def score(choices: Sequence[LayerChoice]) -> float:
        scored.append(tuple(choices))
        return removed(choices)

    found = search_shape(calibrated, TABLE, 60, score, 40, 0, drop_layers=True)
    shapes = [tuple((*c.kept.values(), c.dropped) for c in choices) for choices in scored]
    assert len(shapes) == len(set(shapes)) == found.tried


def test_layers_stay_when_they_must(calibrated: Calibrated):
    found = search_shape(calibrated, TABLE, 20 + TABLE.fixed, removed, 20, 0, drop_layers=False)
    assert not any(choice.dropped for choice in found.choices)
    with pytest.raises(UserError, match=r"got cost 12; allowed: at least 13\."):
        search_shape(calibrated, TABLE, 12, removed, 0, 0, drop_layers=False)


def kept(choices: Sequence[LayerChoice]) -> tuple[int, ...]:
    return tuple(index for index, choice in enumerate(choices) if not choice.dropped)


PAIRS = {(0, 1): 5.0, (0, 2): 3.0, (1, 2): 4.0, (0,): 9.0, (1,): 2.0, (2,): 8.0, (0, 1, 2): 0.0}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_layers_control_finds_the_best_subset(calibrated: Calibrated, count: int):
    found = search_layers(calibrated, TABLE, count, lambda choices: PAIRS[kept(choices)])
    best = min(combinations(range(LAYERS), count), key=PAIRS.__getitem__)
    assert kept(found.choices) == best
    assert found.divergence == PAIRS[best]
    assert found.tried == [0, 3, 3, 1][count]
    assert found.cost == TABLE.fixed + 42 * count
    assert all(c.kept == both(HEADS, NEURONS) for c in found.choices if not c.dropped)


def test_layers_control_is_greedy_where_subsets_are_many(calibrated: Calibrated, monkeypatch: pytest.MonkeyPatch):
    # Greedy drops layer 1 first (0, 2), and cannot come back to layer 1, the best alone.
    monkeypatch.setattr(search, "MOST_SUBSETS", 0)
    found = search_layers(calibrated, TABLE, 1, lambda choices: PAIRS[kept(choices)])
    assert kept(found.choices) == (2,)
    assert found.tried == 5


def test_layers_control_rejects_none(calibrated: Calibrated):
    with pytest.raises(UserError, match="out of range; got 0; allowed: 1-3"):
        search_layers(calibrated, TABLE, 0, removed)


def widths(choices: Sequence[LayerChoice]) -> set[tuple[int, int]]:
    return {(choice.kept["head"], choice.kept["neuron"]) for choice in choices if not choice.dropped}


@pytest.mark.parametrize("part", [1.0, 0.9, 0.7, 0.5])
def test_even_shapes_are_even_and_within_the_budget(calibrated: Calibrated, part: float):
    budget = part * FULL + TABLE.fixed
    found = search_even(calibrated, TABLE, budget, removed, drop_layers=True)
    (shape,) = widths(found.choices)
    assert shape[0] == HEADS and shape[1] in (8, 16, 24)
    assert found.cost == TABLE.total(found.choices) <= budget


def test_even_takes_the_best_of_wide_and_deep(calibrated: Calibrated):
    # Room for 3 layers of 8 neurons, or 2 of 24 without the least missed layer 1.
    deep = search_even(calibrated, TABLE, 91, lambda choices: float(len(kept(choices)) < 3), drop_layers=True)
    wide = search_even(calibrated, TABLE, 91, lambda choices: float(len(kept(choices)) > 2), drop_layers=True)
    assert (kept(deep.choices), widths(deep.choices)) == ((0, 1, 2), {(4, 8)})
    assert (kept(wide.choices), widths(wide.choices)) == ((0, 2), {(4, 24)})
    assert deep.tried + wide.tried == 1 + 2


def test_even_keeps_layers_that_must_stay(calibrated: Calibrated):
    found = search_even(calibrated, TABLE, 91, lambda choices: float(len(kept(choices)) > 2), drop_layers=False)
    assert kept(found.choices) == (0, 1, 2)
    with pytest.raises(UserError, match=r"cannot be met with even widths; got cost 60"):
        search_even(calibrated, TABLE, 60, removed, drop_layers=False)


def test_even_never_drops_the_first_layer_of_a_family_that_needs_it():
    calibrated = calibrated_with(tiny_model("modernbert"), skip_errors=[0.0, 4.0, 6.0], unit_errors=[1.0, 1.0, 1.0])
    found = search_even(calibrated, TABLE, 42 + TABLE.fixed, removed, drop_layers=True)
    assert kept(found.choices) == (0,)


def test_no_search_drops_a_layer_that_a_convolution_reads(monkeypatch: pytest.MonkeyPatch):
    model = tiny_model("deberta-v2", conv_kernel_size=3)
    calibrated = calibrated_with(model, skip_errors=[0.0, 4.0, 6.0], unit_errors=[1.0, 1.0, 1.0])
    assert kept(search_shape(calibrated, TABLE, 42 + TABLE.fixed, removed, 20, 0, drop_layers=True).choices)[0] == 0
    assert kept(search_even(calibrated, TABLE, 42 + TABLE.fixed, removed, drop_layers=True).choices) == (0,)
    assert kept(search_layers(calibrated, TABLE, 1, lambda choices: PAIRS[kept(choices)]).choices) == (0,)
    monkeypatch.setattr(search, "MOST_SUBSETS", 0)
    assert kept(search_layers(calibrated, TABLE, 2, lambda choices: PAIRS[kept(choices)]).choices) == (0, 2)


def test_scorer_is_zero_for_the_whole_model_and_not_for_a_part():
    model, rows = tiny_model("bert", num_labels=2), toy_rows(12)
    calibrated = calibrate(model, model, rows, toy_collate, "obs", 12, 8, seed=0)
    assert calibrated.teacher_logits.shape == (8, 2) and len(calibrated.score_rows) == 8
    score = scorer(model, calibrated, toy_collate)
    table = parameter_table(model, dict.fromkeys(encoder_linear_names(model), 1.0))
    full = LayerChoice(both(HEADS, NEURONS), False, table.cost(both(HEADS, NEURONS)), 0.0)
    assert score([full] * LAYERS) == pytest.approx(0, abs=1e-6)
    one_head = LayerChoice(both(1, NEURONS), False, 0.0, 0.0)
    assert score([full, one_head, full]) > 1e-5

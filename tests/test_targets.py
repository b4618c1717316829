"""Targets: what was asked for is what the model holds, and what cannot be had is said with the nearest that can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from transformers import PreTrainedModel

from sparsebert.counts import sizes
from sparsebert.errors import UserError
from sparsebert.measurement.setting import Setting
from sparsebert.models.layout import encoder_linear_names
from sparsebert.models.surgeon import shrink
from sparsebert.pruning import targets
from sparsebert.pruning.assemble import assemble
from sparsebert.pruning.calibration import Calibrated, calibrate
from sparsebert.pruning.knapsack import CostTable, LayerChoice
from sparsebert.pruning.targets import CLOSE_ENOUGH, Goal, measure_pair, meet
from sparsebert.recipe.compress import CompressRecipe
from sparsebert.recipe.schema import Search, Target
from sparsebert.timing import Samples
from tiny import AS_ONE_PROGRAM, HEADS, LAYERS, NEURONS, tiny_model
from toy import calibrated_with, toy_collate, toy_rows

MODEL = tiny_model("bert", num_labels=2)
TABLE = CostTable(
    {"head": {heads: 4.0 * heads for heads in range(HEADS + 1)}, "neuron": {0: 0.0, NEURONS: 24.0}},
    layer=2.0,
    fixed=30.0,
)


@pytest.fixture(scope="module")
def calibrated() -> Calibrated:
    return calibrate(MODEL, MODEL, toy_rows(16), toy_collate, "obs", 16, 8, seed=0)


@pytest.fixture
def thin() -> Calibrated:
    """Options for shapes alone."""
    return calibrated_with(MODEL, skip_errors=[3.0, 1.0, 2.0], unit_errors=[0.3, 0.1, 0.2])


def goal(kind: str, value: float, **recipe: Any) -> Goal:
    search = Search(candidates=recipe.pop("candidates", 5), drop_layers=recipe.pop("drop_layers", True))
    target = Target.model_validate({"kind": kind, "value": value})
    return Goal(target, CompressRecipe(search=search, **recipe), Setting(1, 8), MODEL, MODEL, MODEL)


def removed(choices: Sequence[LayerChoice]) -> float:
    return float(sum(HEADS + NEURONS - sum(c.kept.values()) for c in choices))


def no_table(_: PreTrainedModel) -> CostTable:
    raise AssertionError("a target that is counted needs no latency table")


def linear(model: PreTrainedModel) -> int:
    return sizes(model, encoder_linear_names(model)).encoder_linear_parameters


@pytest.mark.parametrize("value", [0.3, 0.6, 0.9])
def test_sparsity_is_that_of_the_assembled_model(calibrated: Calibrated, value: float):
    found, achieved = meet(goal("sparsity", value), no_table, calibrated, removed)
    small = assemble(MODEL, calibrated.candidates, found.choices)
    assert achieved == pytest.approx(1 - linear(small) / linear(MODEL), abs=1e-9)
    assert value <= achieved < value + 0.05


@pytest.mark.parametrize("value", [0.9, 0.5])
def test_size_is_that_of_the_assembled_model(calibrated: Calibrated, value: float):
    found, achieved = meet(goal("size", value), no_table, calibrated, removed)
    small = assemble(MODEL, calibrated.candidates, found.choices)
    assert achieved == pytest.approx(sizes(small, ()).weight_bytes / sizes(MODEL, ()).weight_bytes, abs=1e-9)
    assert value - 0.05 < achieved <= value


def test_size_counts_against_the_dense_model_not_the_current_one(calibrated: Calibrated):
    current = shrink(MODEL, {}, [0])
    later = calibrate(current, MODEL, toy_rows(16), toy_collate, "magnitude", 16, 8, seed=0)
    first = goal("sparsity", 0.5)
    found, achieved = meet(
        Goal(first.target, first.recipe, first.setting, MODEL, MODEL, current), no_table, later, removed
    )
    small = assemble(current, later.candidates, found.choices)
    assert achieved == pytest.approx(1 - linear(small) / linear(MODEL), abs=1e-9)
    assert 0.5 <= achieved < 0.6


def test_a_size_out_of_reach_names_the_nearest(thin: Calibrated):
    with pytest.raises(
        UserError, match=r"The target size 0\.01 cannot be met; allowed: the nearest reachable is about "
    ) as raised:
        meet(goal("size", 0.01), no_table, thin, removed)
    nearest = float(str(raised.value).removesuffix(".").split()[-1])
    _, achieved = meet(goal("size", nearest + 0.001), no_table, thin, removed)
    assert achieved == pytest.approx(nearest, abs=0.005)


# Full layers cost 3 x 42; the least is one layer without units, 2, or three of them, or one of 8 neurons, 26.
UNREACHABLE = [
    ("speedup", 64, {}, "63"),
    ("speedup", 22, {"drop_layers": False}, "21"),
    ("speedup", 5, {"even": True}, "4.85"),
    ("latency_ms", 31, {}, "32"),
    ("latency_ms", 35, {"drop_layers": False}, "36"),
]


@pytest.mark.parametrize(("kind", "value", "recipe", "nearest"), UNREACHABLE)
def test_a_speed_out_of_reach_names_the_nearest(
    thin: Calibrated, kind: str, value: float, recipe: dict[str, Any], nearest: str
):
    message = rf"The target {kind} {value} cannot be met; allowed: the nearest reachable is about {nearest}\."
    with pytest.raises(UserError, match=message):
        meet(goal(kind, value, **recipe), lambda _: TABLE, thin, removed)


Pair = tuple[float, float]


def measuring(
    monkeypatch: pytest.MonkeyPatch, found: list[Sequence[LayerChoice]], pair: Callable[[float], Pair]
) -> None:
    """Stand in for the clock, whose noise would hide the rule: `pair` of the cost of the layers that were found."""

    def assemble_choices(model: object, candidates: object, choices: Sequence[LayerChoice]) -> float:
        found.append(choices)
        return sum(choice.cost for choice in choices)

    def timed(dense: object, small: float, *args: object) -> Pair:
        return pair(small)

    monkeypatch.setattr(targets, "assemble", assemble_choices)
    monkeypatch.setattr(targets, "measure_pair", timed)


@pytest.mark.parametrize("truth", [0.85, 1.0, 1.2])
@pytest.mark.parametrize("value", [2.0, 4.0])
def test_speedups_are_corrected_by_measurement(
    thin: Calibrated, monkeypatch: pytest.MonkeyPatch, value: float, truth: float
):
    # `truth` is by how much the table is wrong; what lies outside the layers (30 of 156) is no part of a speedup.
    found: list[Sequence[LayerChoice]] = []
    measuring(monkeypatch, found, lambda cost: (truth * 126 / cost, 30 + cost / truth))
    _, achieved = meet(goal("speedup", value, candidates=8), lambda _: TABLE, thin, removed)
    # One unit of cost is the grain of these choices: 4 a head.
    assert achieved == pytest.approx(value, rel=CLOSE_ENOUGH + 4 / (126 / value))
    assert 2 <= len(found) <= 4


def test_speedups_of_whole_models_are_met_where_layers_cannot_be_measured_alone(
    thin: Calibrated, monkeypatch: pytest.MonkeyPatch
):
    # Of 156, and 30 of it stays: twice as fast leaves 48 for the layers, which is 2.6 times as fast for them.
    found: list[Sequence[LayerChoice]] = []
    measuring(monkeypatch, found, lambda cost: (156 / (30 + cost), 30 + cost))
    table = replace(TABLE, scope="model")
    _, achieved = meet(goal("speedup", 2.0, candidates=8), lambda _: table, thin, removed)
    assert achieved == pytest.approx(2, rel=CLOSE_ENOUGH + 4 / 78)
    assert 42 <= sum(choice.cost for choice in found[0]) <= 48
    message = r"The target speedup 6 cannot be met; allowed: the nearest reachable is about 4\.88\."
    with pytest.raises(UserError, match=message):
        meet(goal("speedup", 6), lambda _: table, thin, removed)


def test_a_pair_in_a_runtime_that_runs_the_whole_has_the_ratio_of_the_whole(monkeypatch: pytest.MonkeyPatch):
    def measure(variants: Sequence[Any], rounds: int, compared: Any) -> dict[str, Samples]:
        assert all(one.part_ns is None for one in variants)
        return {"dense": Samples((6.0, 6.0), None, 1), "small": Samples((2.0, 2.0), None, 1)}

    monkeypatch.setattr(targets, "measure", measure)
    assert measure_pair(MODEL, MODEL, Setting(1, 8), 3, 1, AS_ONE_PROGRAM) == (3.0, 2.0)


def test_what_was_measured_is_kept_where_the_corrected_budget_cannot_be_met(
    thin: Calibrated, monkeypatch: pytest.MonkeyPatch
):
    # The table says that 21 is the most; measured, its 20 is 10, for which it would have to be 40.
    found: list[Sequence[LayerChoice]] = []
    measuring(monkeypatch, found, lambda cost: (63 / cost, 30 + cost))
    _, achieved = meet(goal("speedup", 20, drop_layers=False), lambda _: TABLE, thin, removed)
    assert len(found) == 1 and achieved == pytest.approx(10.5, abs=0.6)


@pytest.mark.parametrize("truth", [0.8, 1.0, 1.2])
def test_latencies_are_corrected_by_measurement(thin: Calibrated, monkeypatch: pytest.MonkeyPatch, truth: float):
    found: list[Sequence[LayerChoice]] = []
    measuring(monkeypatch, found, lambda cost: (126 / cost, (30 + cost) * truth))
    _, achieved = meet(goal("latency_ms", 90, candidates=8), lambda _: TABLE, thin, removed)
    assert achieved == pytest.approx(90, rel=CLOSE_ENOUGH + 4 / 90)


def test_a_wide_margin_outside_the_layers_does_not_upset_the_correction(
    thin: Calibrated, monkeypatch: pytest.MonkeyPatch
):
    # Scaling the whole budget would overshoot by 1,000 / 63 each time and leave the table.
    found: list[Sequence[LayerChoice]] = []
    table = replace(TABLE, fixed=1000.0)
    measuring(monkeypatch, found, lambda cost: (1.1 * 126 / cost, 0.0))
    _, achieved = meet(goal("speedup", 2), lambda _: table, thin, removed)
    assert achieved == pytest.approx(2, rel=0.08)


@pytest.mark.parametrize(("value", "kept"), [(1.4, 2), (3.0, 1), (30.0, 1), (1.1, 3)])
def test_layer_control_keeps_the_nearest_number(
    thin: Calibrated, monkeypatch: pytest.MonkeyPatch, value: float, kept: int
):
    measuring(monkeypatch, [], lambda cost: (126 / cost, 0.0))
    found, achieved = meet(goal("speedup", value, shape="layers"), lambda _: TABLE, thin, removed)
    assert sum(not choice.dropped for choice in found.choices) == kept
    assert achieved == pytest.approx(LAYERS / kept)


def test_even_targets_give_stock_shapes(calibrated: Calibrated):
    found, achieved = meet(goal("sparsity", 0.4, even=True), no_table, calibrated, removed)
    small = assemble(MODEL, calibrated.candidates, found.choices, even=True)
    assert type(small) is type(MODEL)
    assert achieved == pytest.approx(1 - linear(small) / linear(MODEL), abs=1e-9) and achieved >= 0.4


def test_a_noisy_candidate_is_measured_in_more_rounds(monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []

    def measure(variants: Sequence[Any], rounds: int, compared: Any) -> dict[str, Samples]:
        asked.append((rounds, [*compared]))
        return {one.name: Samples((2.0, 2.0), (1.0, 1.0), 1) for one in variants}

    monkeypatch.setattr(targets, "measure", measure)
    assert measure_pair(MODEL, MODEL, Setting(1, 8), rounds=7, threads=1) == (1.0, 2.0)
    assert asked == [(7, [("small", "dense")])]


def test_measured_pair_sees_that_fewer_layers_are_faster():
    # So many that a busy machine does not hide it.
    dense = tiny_model("bert", hidden_size=128, intermediate_size=512, num_hidden_layers=16)
    small = shrink(dense, {}, range(1, 16))
    speedup, latency_ms = measure_pair(dense, small, Setting(4, 32), rounds=5, threads=1)
    # How much more is a matter of caches, and of what else the machine does.
    assert speedup > 3
    assert 0.05 < latency_ms < 1000

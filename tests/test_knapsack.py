"""Sharing a budget: exact against brute force, never exceeded, and honest when it cannot be met."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sparsebert.errors import UnreachableError, UserError
from sparsebert.groups import GroupKind
from sparsebert.pruning.knapsack import BINS, CostTable, LayerChoice, layer_choices, share, within_both
from toy import both

TABLE = CostTable({"head": {0: 0.0, 1: 3.0, 2: 4.0}, "neuron": {0: 0.0, 8: 2.0, 16: 6.0}}, layer=1.0, fixed=10.0)


def choice(cost: float, error: float) -> LayerChoice:
    return LayerChoice(both(0, 0), False, cost, error)


def test_cost_adds_up_and_interpolates():
    assert TABLE.cost(both(2, 16)) == 1 + 4 + 6
    assert TABLE.cost(both(1, 12)) == 1 + 3 + 4
    assert TABLE.cost(both(0, 2)) == 1 + 0 + 0.5


def test_total_counts_dropped_layers_as_nothing():
    layers = [LayerChoice(both(2, 16), False, 11.0, 0.0), LayerChoice(both(0, 0), True, 0.0, 5.0)]
    assert TABLE.total(layers) == 21.0


def test_choices_of_a_layer_are_the_front():
    found = layer_choices(
        TABLE, {"head": {2: 0.0, 1: 1.0, 0: 5.0}, "neuron": {16: 0.0, 8: 0.5, 0: 9.0}}, skip_error=14.5
    )
    shapes = [(*one.kept.values(), one.dropped, one.cost, one.error) for one in found]
    # Left out, because another is as cheap and better: (1, 0) at 4 and 10, (2, 0) at 5 and 9, (0, 16) at 7 and 5.
    assert shapes == [
        (0, 0, True, 0.0, 14.5),
        (0, 0, False, 1.0, 14.0),
        (0, 8, False, 3.0, 5.5),
        (1, 8, False, 6.0, 1.5),
        (2, 8, False, 7.0, 0.5),
        (2, 16, False, 11.0, 0.0),
    ]


def test_a_choice_costs_to_the_bit_what_the_table_says():
    # Added up in another order, these give 0.6 and not 0.6000000000000001.
    table = CostTable({"head": {1: 0.2, 0: 0.0}, "neuron": {8: 0.3, 0: 0.0}}, layer=0.1)
    errors: dict[GroupKind, dict[int, float]] = {"head": {1: 0.0, 0: 1.0}, "neuron": {8: 0.0, 0: 2.0}}
    found = layer_choices(table, errors, skip_error=None)
    assert [one.cost for one in found] == [table.cost(one.kept) for one in found]
    assert found[-1].cost == 0.6000000000000001


def test_a_layer_that_may_not_go_has_no_such_choice():
    assert not any(
        one.dropped for one in layer_choices(TABLE, {"head": {2: 0.0}, "neuron": {16: 0.0}}, skip_error=None)
    )


def test_a_skip_that_costs_no_error_beats_all():
    found = layer_choices(TABLE, {"head": {2: 0.0, 0: 1.0}, "neuron": {16: 0.0}}, skip_error=0.0)
    assert [(one.dropped, one.cost) for one in found] == [(True, 0.0)]


CHOICES = st.lists(
    st.builds(choice, st.integers(0, 600).map(float), st.floats(0, 100, allow_nan=False)), min_size=1, max_size=4
)


def best_error(layers: list[list[LayerChoice]], room: float) -> float:
    """The least error by trying everything."""
    totals = [(sum(c.cost for c in picks), sum(c.error for c in picks)) for picks in product(*layers)]
    return min((error for cost, error in totals if cost <= room), default=float("inf"))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(layers=st.lists(CHOICES, min_size=1, max_size=4), fixed=st.sampled_from([0.0, 50.0]))
def test_whole_costs_on_the_grid_give_the_exact_optimum(layers: list[list[LayerChoice]], fixed: float):
    assume(best_error(layers, BINS) < float("inf"))
    found = share(layers, BINS + fixed, fixed)
    assert sum(c.cost for c in found) <= BINS
    assert all(one in choices for one, choices in zip(found, layers, strict=True))
    assert sum(c.error for c in found) == pytest.approx(best_error(layers, BINS))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(layers=st.lists(CHOICES, min_size=1, max_size=4), budget=st.floats(0.5, 3000, allow_nan=False))
def test_any_budget_is_kept_and_nearly_used(layers: list[list[LayerChoice]], budget: float):
    cheapest = sum(min(c.cost for c in choices) for choices in layers)
    if cheapest > budget:
        with pytest.raises(UserError, match="cannot be met"):
            share(layers, budget)
        return
    found = share(layers, budget)
    assert sum(c.cost for c in found) <= budget * (1 + 1e-6)
    # Rounding up costs at most one step a layer.
    grid = budget * (1 - len(layers) / BINS)
    if cheapest <= grid:
        assert sum(c.error for c in found) <= best_error(layers, grid) + 1e-9


def test_the_error_names_the_cheapest():
    with pytest.raises(UserError, match=r"cannot be met; got cost 14; allowed: at least 15\."):
        share([[choice(2, 0), choice(9, 0)], [choice(3, 0)]], budget=14, fixed=10)


def test_costs_are_rounded_up():
    # On a grid of 1,000 steps each costs 334 of them; rounded down, all three would fit and cost 1,001.7.
    layers = [[choice(333.9, 0), choice(0, 1)]] * 3
    assert sum(c.cost for c in share(layers, budget=1000)) == pytest.approx(667.8)


def test_a_budget_of_exactly_the_cheapest_is_met():
    layers = [[choice(1 / 3, 1), choice(5, 0)] for _ in range(7)]
    assert [c.cost for c in share(layers, budget=sum(1 / 3 for _ in range(7)))] == [1 / 3] * 7


def test_a_budget_above_the_dearest_takes_nothing_away():
    layers = [[choice(1, 9), choice(2, 0)], [choice(0, 9), choice(1, 0)]]
    assert [c.error for c in share(layers, budget=3.1)] == [0, 0]
    assert [c.error for c in share(layers, budget=3e6)] == [0, 0]


def test_layers_that_cost_nothing_are_no_trouble():
    found = share([[choice(0, 2), choice(0, 1)], [choice(0, 3)]], budget=5)
    assert [c.error for c in found] == [1, 3]
    assert [c.error for c in share([[choice(0, 2)]], budget=0)] == [2]


def test_of_two_budgets_the_larger_part_counts():
    # 20 and 40 are left for layers: a head is 5 or 5, a neuron 0 or 1; so one head is a quarter of the first budget.
    first = CostTable({"head": {0: 0.0, 2: 10.0}, "neuron": {0: 0.0, 8: 0.0}}, layer=4.0, fixed=30.0)
    second = CostTable({"head": {0: 0.0, 4: 20.0}, "neuron": {0: 0.0, 8: 8.0}}, layer=2.0, fixed=60.0)
    table = within_both(first, 50.0, second, 100.0)
    assert table == CostTable({"head": {0: 0.0, 2: 0.5}, "neuron": {0: 0.0, 8: 0.2}}, layer=0.2)
    with pytest.raises(UnreachableError, match="What lies outside the layers costs more than there is"):
        within_both(first, 50.0, second, 60.0)

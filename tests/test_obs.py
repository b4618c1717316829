"""Optimal brain surgeon against cases solved by hand and against a least-squares refit."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsebert.errors import UserError
from sparsebert.pruning.candidates import Candidate
from sparsebert.pruning.obs import DAMPING, obs_candidates
from sparsebert.pruning.statistics import CalibrationStatistics
from toy import samples, statistics_of


def small(
    second: list[list[float]], weight: list[list[float]], mean: list[float] | None = None
) -> CalibrationStatistics:
    """CalibrationStatistics with the given moments, width 1, and a Fisher matrix of ones on the diagonal."""
    like = statistics_of(samples(len(second), 1, 0), 1, d=len(weight), fisher=np.eye(len(weight)))
    tensor = torch.tensor
    values = {"second": tensor(second).double(), "weight": tensor(weight).double()}
    if mean is None:
        return replace(like, **values, centred=False)
    return replace(like, **values, mean=tensor(mean).double(), centred=True)


def refit(statistics: CalibrationStatistics, x: np.ndarray, units: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The least-squares weights of the kept columns, pulled a little towards the old ones, and the intercept's shift.

    Stacked rows: sqrt(1/N) of the (centred) samples, then sqrt(damping) of the identity.
    """
    mean = x.mean(axis=0) if statistics.centred else np.zeros(x.shape[1])
    centred, weight = (x - mean) / np.sqrt(len(x)), statistics.weight.numpy()
    kept = statistics.columns(units).numpy()
    ridge = np.sqrt(DAMPING * (centred**2).sum(axis=0).mean())
    left = np.vstack([centred[:, kept], ridge * np.eye(len(kept))])
    right = np.vstack([centred @ weight.T, ridge * weight[:, kept].T])
    new = np.linalg.lstsq(left, right, rcond=None)[0].T
    return new, weight @ mean - new @ mean[kept]


def measured_error(statistics: CalibrationStatistics, x: np.ndarray, found: Candidate) -> float:
    """Mean of (change of the output)^T F (change of the output) over the samples."""
    kept = statistics.columns(found.units)
    before = x @ statistics.weight.numpy().T
    after = x[:, kept.numpy()] @ found.weight.double().numpy().T + found.bias_shift.double().numpy()
    change = before - after
    return float(np.mean(np.sum(change @ statistics.fisher.numpy() * change, axis=1)))


def test_two_columns_by_hand():
    # H^-1 = [[2, -1], [-1, 2]] / 3, so removing column 1 costs 1 / (2/3), column 0 costs 9 / (2/3).
    both, one, none = obs_candidates(small([[2, 1], [1, 2]], [[3, 1]]), [2, 1, 0])
    assert both.units.tolist() == [0, 1]
    assert one.units.tolist() == [0]
    assert one.weight.tolist() == [[pytest.approx(3 + 1 / (2 + 2 * DAMPING), abs=1e-6)]]
    assert one.error == pytest.approx(1.5, rel=1e-6)
    assert none.weight.shape == (1, 0)
    assert none.error == pytest.approx(2 * 9 + 2 * 3 + 2)


def test_three_uncorrelated_columns_go_by_weight_times_spread():
    # Costs w^2 h: 9, 4, 16; nothing can make up for an uncorrelated column.
    found = obs_candidates(small([[1, 0, 0], [0, 4, 0], [0, 0, 16]], [[3, 1, 1]]), [3, 2, 1, 0])
    assert [one.units.tolist() for one in found] == [[0, 1, 2], [0, 2], [2], []]
    assert [one.weight.tolist() for one in found[:3]] == [[[3, 1, 1]], [[3, 1]], [[1]]]
    assert [one.error for one in found] == pytest.approx([0, 4, 13, 29])


def test_a_bias_takes_the_mean_up():
    # The covariance is [[2, 1], [1, 2]] as above; the lost change (-1/2, 1) times the mean (1, -1) is -3/2.
    one = obs_candidates(small([[3, 0], [0, 3]], [[3, 1]], mean=[1, -1]), [1])[0]
    assert one.units.tolist() == [0]
    assert one.weight.item() == pytest.approx(3.5, abs=1e-4)
    assert one.bias_shift.item() == pytest.approx(-1.5, abs=1e-4)
    assert one.error == pytest.approx(1.5, rel=1e-6)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    width=st.sampled_from([1, 1, 3, 4]),
    units=st.integers(2, 12),
    left=st.integers(0, 11),
    seed=st.integers(0, 10_000),
    centred=st.booleans(),
)
def test_weights_are_the_least_squares_refit(width: int, units: int, left: int, seed: int, centred: bool):
    x = samples(units, width, seed)
    statistics = statistics_of(x, width, seed=seed, centred=centred)
    counts = [units, min(left, units - 1)]
    for found, count in zip(obs_candidates(statistics, counts), counts, strict=True):
        assert len(found.units) == count
        weight, shift = refit(statistics, x, found.units)
        np.testing.assert_allclose(found.weight.numpy(), weight, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found.bias_shift.numpy(), shift, rtol=1e-6, atol=2e-6)
        assert found.error == pytest.approx(measured_error(statistics, x, found), rel=1e-4, abs=1e-6)


def test_batches_and_compaction_keep_the_refit_exact():
    x = samples(96, 1, 5, count=500)
    statistics = statistics_of(x, 1, seed=5)
    for found in obs_candidates(statistics, [90, 64, 33, 7]):
        weight, shift = refit(statistics, x, found.units)
        np.testing.assert_allclose(found.weight.numpy(), weight, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.bias_shift.numpy(), shift, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("width", [1, 4])
def test_the_cheapest_unit_goes_first(width: int):
    x = samples(6, width, 2)
    statistics = statistics_of(x, width, seed=2)
    best = obs_candidates(statistics, [5])[0]
    errors = []
    for gone in range(6):
        kept = torch.tensor([unit for unit in range(6) if unit != gone])
        weight, shift = refit(statistics, x, kept)
        candidate = Candidate(kept, torch.tensor(weight), torch.tensor(shift), 0.0)
        errors.append(measured_error(statistics, x, candidate))
    assert set(range(6)) - set(best.units.tolist()) == {int(np.argmin(errors))}


def test_fisher_decides_who_goes_but_not_the_update():
    x = samples(8, 1, 3)
    first, second = (statistics_of(x, 1, d=2, seed=3, fisher=np.diag(diagonal)) for diagonal in ([1, 0], [0, 1]))
    left, right = obs_candidates(first, [7])[0], obs_candidates(second, [7])[0]
    assert left.units.tolist() != right.units.tolist()
    for statistics, found in ((second, left), (first, right)):
        weight, _ = refit(statistics, x, found.units)
        np.testing.assert_allclose(found.weight.numpy(), weight, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("seed", range(5))
def test_the_path_is_nested_and_its_errors_rise(width: int, seed: int):
    found = obs_candidates(statistics_of(samples(10, width, seed), width, seed=seed), range(10, -1, -1))
    errors = np.array([one.error for one in found])
    assert (np.diff(errors) > -1e-4 * errors[-1]).all()
    assert errors[-1] > 10 * errors[1] > 0
    for more, fewer in pairwise(found):
        assert set(fewer.units.tolist()) < set(more.units.tolist())


@pytest.mark.parametrize("width", [1, 4])
def test_keeping_all_changes_nothing(width: int):
    statistics = statistics_of(samples(5, width, 1), width)
    found = obs_candidates(statistics, [5])[0]
    assert torch.equal(found.weight, statistics.weight.float())
    assert found.error == 0
    assert not found.bias_shift.any()


def test_a_unit_that_is_never_active_goes_first_and_costs_nothing():
    x = samples(6, 1, 4)
    x[:, 2] = 0
    statistics = statistics_of(x, 1, seed=4)
    found = obs_candidates(statistics, [5])[0]
    assert found.units.tolist() == [0, 1, 3, 4, 5]
    assert found.error == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(found.weight.numpy(), statistics.weight[:, found.units].numpy(), rtol=1e-6)


def test_moments_that_are_not_positive_definite_get_more_damping():
    # The smaller eigenvalue is -0.005, so of DAMPING times 1, 10 and 100 the last is the first that is enough.
    [one] = obs_candidates(small([[1, 1], [1, 0.99]], [[3, 1]]), [1])
    assert one.units.tolist() == [0]
    assert one.weight.tolist() == [[pytest.approx(3 + 1 / (1 + 100 * DAMPING * 0.995), abs=1e-6)]]


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3, 1e15])
@pytest.mark.parametrize("width", [1, 4])
def test_inputs_that_never_change_are_taken_up_by_the_bias(scale: float, width: int):
    x = np.repeat(scale * samples(6, width, 2, count=1), 50, axis=0).astype(np.float32)
    statistics = statistics_of(x, width, seed=2)
    rounding = torch.tensor(np.random.default_rng(0).normal(size=statistics.second.shape) * 1e-7 * scale**2)
    statistics = replace(statistics, second=statistics.second + rounding + rounding.T)
    for found in obs_candidates(statistics, [5, 1, 0]):
        assert torch.isfinite(found.weight).all() and found.error <= 1e-2 * scale**2
        after = found.weight.double() @ torch.tensor(x[0]).double()[statistics.columns(found.units)] + found.bias_shift
        before = statistics.weight @ torch.tensor(x[0]).double()
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("name", ["second", "fisher"])
def test_moments_that_overflow_are_refused(name: str):
    statistics = statistics_of(samples(6, 1, 2), 1)
    with pytest.raises(UserError, match=r"inputs or gradients of layer\.0\.neurons are too large to be squared"):
        obs_candidates(replace(statistics, **{name: getattr(statistics, name) * torch.inf}), [3])


def test_statistics_are_left_as_they_were():
    statistics = statistics_of(samples(6, 2, 1), 2)
    before = {name: value.clone() for name, value in vars(statistics).items() if isinstance(value, torch.Tensor)}
    obs_candidates(statistics, [3, 0])
    assert len(before) == 7
    assert all(torch.equal(value, getattr(statistics, name)) for name, value in before.items())

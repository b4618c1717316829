"""Options: the grid of counts, and errors that equal the weighted change on real samples."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsebert.pruning.candidates import candidate, candidates_by_score, levels
from toy import samples, statistics_of


@pytest.mark.parametrize(
    ("units", "width", "expected"),
    [
        (4, 8, [4, 3, 2, 1, 0]),
        (3, 1, [3, 2, 1, 0]),
        (16, 1, list(range(16, -1, -1))),
        (24, 1, [24, 16, 8, 0]),
        (100, 1, [100, 88, 80, 72, 64, 48, 40, 32, 24, 16, 8, 0]),
    ],
)
def test_levels_by_hand(units: int, width: int, expected: list[int]):
    assert levels(units, width) == expected


@given(units=st.integers(1, 5000))
def test_levels_fall_from_all_to_none(units: int):
    found = levels(units, 1)
    assert found[0] == units and found[-1] == 0
    assert all(more > fewer for more, fewer in pairwise(found))
    assert len(found) <= 19


def sampled_error(root: np.ndarray, change: np.ndarray) -> float:
    """E ||F^(1/2) change||^2 over the rows of `change` [count, d]."""
    return float(np.mean(np.sum((change @ root.T) ** 2, axis=1)))


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("width", [1, 4])
def test_error_is_the_weighted_change_on_the_samples(width: int, centred: bool):
    x = samples(6, width, 8)
    statistics = statistics_of(x, width, seed=8, centred=centred)
    units = torch.tensor([0, 2, 5])
    kept = statistics.columns(units)
    weight = statistics.weight[:, kept] * 1.1
    found = candidate(statistics, units, weight)
    change = x @ statistics.weight.numpy().T - x[:, kept.numpy()] @ weight.numpy().T
    expected_shift = change.mean(axis=0) if centred else np.zeros(5)
    np.testing.assert_allclose(found.bias_shift.numpy(), expected_shift, rtol=1e-5, atol=1e-6)
    root = scipy.linalg.sqrtm(statistics.fisher.numpy()).real
    assert found.error == pytest.approx(sampled_error(root, change - expected_shift), rel=1e-9)
    assert found.weight.dtype == found.bias_shift.dtype == torch.float32


def test_scores_keep_the_highest_and_leave_weights_and_bias_alone():
    x = samples(4, 2, 9)
    statistics = statistics_of(x, 2, seed=9)
    found = candidates_by_score(statistics, torch.tensor([0.3, 2.0, -1.0, 0.4]), [4, 2, 1, 0])
    assert [one.units.tolist() for one in found] == [[0, 1, 2, 3], [1, 3], [1], []]
    assert torch.equal(found[1].weight, statistics.weight[:, [2, 3, 6, 7]].float())
    assert not any(one.bias_shift.any() for one in found)
    change = x[:, [0, 1, 4, 5]] @ statistics.weight.numpy()[:, [0, 1, 4, 5]].T
    root = scipy.linalg.sqrtm(statistics.fisher.numpy()).real
    assert found[1].error == pytest.approx(sampled_error(root, change), rel=1e-9)
    assert found[0].error == 0


def test_equal_scores_keep_the_first_units():
    found = candidates_by_score(statistics_of(samples(5, 1, 1), 1), torch.ones(5), [3])
    assert found[0].units.tolist() == [0, 1, 2]


def test_columns_of_units_follow_one_another():
    assert statistics_of(samples(4, 3, 1), 3).columns(torch.tensor([1, 3])).tolist() == [3, 4, 5, 9, 10, 11]

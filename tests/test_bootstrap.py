"""Bootstrap over examples: all metrics on all resamples at once are what they are one by one, and intervals by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sparsebert.tasks import bootstrap
from sparsebert.tasks.bootstrap import difference_interval, interval, resampled_scores
from sparsebert.tasks.metrics import score


def example(metric: str, rows: int, classes: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Outputs that follow the labels roughly; of correlations with ties on both sides."""
    rng = np.random.default_rng(seed)
    if metric in ("pearson", "spearman"):
        labels = rng.integers(4, size=rows).astype(float)
        return np.round(labels + rng.normal(size=rows), 0)[:, None], labels
    labels = rng.integers(classes, size=rows)
    return np.eye(classes)[labels] + rng.normal(size=(rows, classes)), labels


@pytest.mark.parametrize("rows", [3, 60])
@pytest.mark.parametrize("metric", ["accuracy", "f1", "matthews", "pearson", "spearman"])
def test_all_at_once_is_one_by_one(metric: str, rows: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bootstrap, "AT_ONCE", 7 * rows)
    logits, labels = example(metric, rows)
    rng = np.random.default_rng(5)
    drawn = [rng.integers(rows, size=rows) for _ in range(50)]
    expected = [score([metric], logits[one], labels[one]).get(metric, np.nan) for one in drawn]
    # Of three rows some are all of one label.
    assert bool(np.isnan(expected).any()) == (rows == 3 and metric not in ("accuracy", "f1"))
    assert resampled_scores(metric, logits, labels, 50, 5) == pytest.approx(np.array(expected), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("metric", ["accuracy", "matthews"])
def test_of_several_classes(metric: str):
    logits, labels = example(metric, 40, classes=5)
    drawn = np.random.default_rng(0).integers(40, size=(1, 40))[0]
    expected = score([metric], logits[drawn], labels[drawn])[metric]
    assert resampled_scores(metric, logits, labels, 1)[0] == pytest.approx(expected)


def test_f1_has_no_value_where_no_row_is_of_class_one():
    found = resampled_scores("f1", np.eye(2)[[0, 0, 1]], np.array([0, 0, 1]), 200)
    assert set(found[np.isfinite(found)]) == {1.0} and 0.2 < np.isnan(found).mean() < 0.4


def test_the_interval_of_an_accuracy_is_that_of_the_binomial():
    labels = np.zeros(400, dtype=int)
    logits = np.eye(2)[(np.arange(400) >= 320).astype(int)]
    found = interval(resampled_scores("accuracy", logits, labels))
    # 80 %, give or take 1.96 times the square root of 0.8 * 0.2 / 400.
    assert found == pytest.approx((0.7608, 0.8392), abs=0.006)


def test_an_interval_holds_whatever_the_undefined_resamples_would_have_been():
    values = np.linspace(0, 1, 1001)
    assert interval(values) == pytest.approx((0.025, 0.975))
    # 20 of 1001 unknown may be the least or the most: the ends move out by as many on both sides.
    values[490:510] = np.nan
    assert interval(values) == pytest.approx((0.005, 0.995))
    values[:100] = np.nan
    assert interval(values) is None


def test_resamples_that_never_vary_give_no_interval():
    assert interval(np.ones(2000)) is None


def test_differences_are_paired():
    logits, labels = example("accuracy", 300)
    own = resampled_scores("accuracy", logits, labels)
    assert difference_interval(own, resampled_scores("accuracy", logits, labels)) == (0.0, 0.0)
    worse = logits.copy()
    right = np.flatnonzero(logits.argmax(-1) == labels)[:15]
    worse[right] = worse[right, ::-1]
    low, high = difference_interval(resampled_scores("accuracy", worse, labels), own) or (1, 1)
    # 15 of 300 became wrong, none right: 5 points, far more narrow than either score is known.
    assert -0.08 < low < -0.05 < high < -0.02

"""Bootstrap over examples (Efron 1979): a metric on many resamples of the same rows, computed for all of them at once.

Equal seeds draw equal rows, so that scores of two models are paired resample by resample.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sparsebert import registry
from sparsebert.tasks.metric import Metric

# Fewer where that would be many rows in all: the more rows, the narrower the interval, and the less its ends matter.
RESAMPLES, FEWEST, MOST_ROWS = 2000, 500, 2 * 10**7
LEVEL = 0.05
# Rows drawn at once, so that memory stays small where there are many of them.
AT_ONCE = 2**21

Interval = tuple[float, float]


def resampled_scores(
    metric: str, logits: np.ndarray, labels: np.ndarray, resamples: int | None = None, seed: int = 0
) -> np.ndarray:
    """The metric on each resample of the rows [resamples]; nan where it has no value, as in tasks/metrics.py.

    `resamples`: None = RESAMPLES, down to FEWEST where the rows are very many.
    `logits` and `labels` are as `metrics.score` takes them, and fit the metric as it says.
    """
    count = max(FEWEST, min(RESAMPLES, MOST_ROWS // len(labels))) if resamples is None else resamples
    of: Metric = registry.get("metric", metric)
    return of.resampled(logits, labels, _draws(len(labels), count, np.random.default_rng(seed)))


def resampled_ratios(sums: np.ndarray, seed: int = 0) -> np.ndarray:
    """Of `sums` [rows, 2] the first column's total by the second's on each resample of the rows [resamples].

    It is nan where the second is 0.
    """
    count = max(FEWEST, min(RESAMPLES, MOST_ROWS // len(sums)))
    drawn = _draws(len(sums), count, np.random.default_rng(seed))
    totals = np.concatenate([sums[rows].sum(axis=1) for rows in drawn])
    return np.divide(totals[:, 0], totals[:, 1], out=np.full(len(totals), np.nan), where=totals[:, 1] > 0)


def interval(resampled: np.ndarray) -> Interval | None:
    """The middle 95 % of resampled values, whatever those without a value would have been; None where that is unknown.

    It is unknown where so many have no value that an end would be one of them, and where all are the same: then the
    rows drawn say nothing of those that were not.
    """
    low, high = _quantile(resampled, LEVEL / 2, -np.inf), _quantile(resampled, 1 - LEVEL / 2, np.inf)
    return (low, high) if np.isfinite([low, high]).all() and low < high else None


def difference_interval(one: np.ndarray, other: np.ndarray) -> Interval | None:
    """The middle 95 % of `one` less `other`, paired resamples of two models; (0, 0) where they always score alike."""
    apart = one - other
    return (0.0, 0.0) if not np.any(apart) else interval(apart)


def _quantile(values: np.ndarray, level: float, unknown: float) -> float:
    ordered = np.sort(np.where(np.isnan(values), unknown, values))
    return float(ordered[round(level * (len(ordered) - 1))])


def _draws(rows: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Numbers of the rows drawn, [some of the resamples, rows] at a time."""
    step = max(1, AT_ONCE // rows)
    for start in range(0, resamples, step):
        yield rng.integers(rows, size=(min(step, resamples - start), rows))

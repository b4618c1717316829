"""Bootstrap over examples (Efron 1979): a metric on many resamples of the same rows, computed for all of them at once.

Equal seeds draw equal rows, so that scores of two models are paired resample by resample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from sparsebert.tasks.metrics import REGRESSION

# Fewer where that would be many rows in all: the more rows, the narrower the interval, and the less its ends matter.
RESAMPLES, FEWEST, MOST_ROWS = 2000, 500, 2 * 10**7
LEVEL = 0.05
# Rows drawn at once, so that memory stays small where there are many of them.
AT_ONCE = 2**21

Interval = tuple[float, float]


def resampled_scores(
    metric: str, logits: np.ndarray, labels: np.ndarray, resamples: int | None = None, seed: int = 0
) -> np.ndarray:
    """The metric on each resample of the rows [resamples]; nan where it has no value, as in data/metrics.py.

    `resamples`: None = RESAMPLES, down to FEWEST where the rows are very many.
    `logits` and `labels` are as `metrics.score` takes them, and fit the metric as it says.
    """
    count = max(FEWEST, min(RESAMPLES, MOST_ROWS // len(labels))) if resamples is None else resamples
    drawn = _draws(len(labels), count, np.random.default_rng(seed))
    if metric in REGRESSION:
        sides = logits.reshape(-1).astype(np.float64), labels.astype(np.float64)
        return np.concatenate([_OF_WEIGHTS[metric](_weights(rows), *sides) for rows in drawn])
    cells, code = np.unique(_codes(logits, labels), return_inverse=True)
    classes = logits.shape[-1]
    true, given = cells // classes, cells % classes
    counts = np.concatenate([_counts(code[rows], len(cells)) for rows in drawn])
    return _OF_COUNTS[metric](counts, true, given, classes)


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


def _codes(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return labels.astype(np.int64) * logits.shape[-1] + logits.argmax(axis=-1)


def _counts(values: np.ndarray, kinds: int) -> np.ndarray:
    """How often each of `kinds` numbers is in each row of `values`: [rows, kinds]."""
    places = values + kinds * np.arange(len(values))[:, None]
    return np.bincount(places.reshape(-1), minlength=kinds * len(values)).reshape(len(values), kinds)


def _weights(drawn: np.ndarray) -> np.ndarray:
    return _counts(drawn, drawn.shape[1]).astype(np.float64)


def _accuracy(counts: np.ndarray, true: np.ndarray, given: np.ndarray, classes: int) -> np.ndarray:
    return counts @ (true == given) / counts.sum(axis=1)


def _f1(counts: np.ndarray, true: np.ndarray, given: np.ndarray, classes: int) -> np.ndarray:
    if classes != 2:
        return np.full(len(counts), np.nan)
    return _divided(2 * (counts @ (true * given)), counts @ (true + given))


def _matthews(counts: np.ndarray, true: np.ndarray, given: np.ndarray, classes: int) -> np.ndarray:
    """Of several classes as scikit-learn defines it (Gorodkin 2004), 0 for predictions that are all the same."""
    rows = counts.sum(axis=1).astype(np.float64)
    by_label, by_prediction = (counts @ np.eye(classes)[which] for which in (true, given))
    shared = (counts @ (true == given)) * rows - (by_label * by_prediction).sum(axis=1)
    spread = [rows**2 - (side**2).sum(axis=1) for side in (by_label, by_prediction)]
    values = np.where(spread[1] == 0, 0.0, _divided(shared, np.sqrt(spread[0] * spread[1])))
    return np.where(spread[0] == 0, np.nan, values)


def _pearson(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[resamples], of values of each row [rows] or of each row in each resample [resamples, rows]."""
    rows = weights.sum(axis=1, keepdims=True)
    away = [side - (weights * side).sum(axis=1, keepdims=True) / rows for side in (first, second)]
    squares = [(weights * side**2).sum(axis=1) for side in away]
    varies = [_varies(weights, side) for side in (first, second)]
    together = (weights * away[0] * away[1]).sum(axis=1)
    return np.where(varies[0] & varies[1], _divided(together, np.sqrt(squares[0] * squares[1])), np.nan)


def _varies(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Whether the values drawn are more than one; rounding hides that in their variance."""
    drawn = weights > 0
    return np.where(drawn, values, -np.inf).max(axis=1) > np.where(drawn, values, np.inf).min(axis=1)


def _spearman(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return _pearson(weights, _ranks(weights, first), _ranks(weights, second))


def _ranks(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Each row's rank among the rows drawn [resamples, rows]; ties share their mean rank."""
    found, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(found)))
    tied = np.add.reduceat(weights[:, order], starts, axis=1)
    return (np.cumsum(tied, axis=1) - (tied - 1) / 2)[:, place]


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below != 0)


_OF_COUNTS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews": _matthews,
}
_OF_WEIGHTS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "pearson": _pearson,
    "spearman": _spearman,
}

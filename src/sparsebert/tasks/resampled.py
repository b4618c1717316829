"""Metrics on many resamples of the same rows at once: what they are by definition, in sums over the rows drawn.

A function here takes outputs and labels as a metric does, and numbers of the rows drawn, [some resamples, rows] at a
time; it gives [resamples], nan where the metric has no value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

Drawn = Iterable[np.ndarray]
Resampled = Callable[[np.ndarray, np.ndarray, Drawn], np.ndarray]


def accuracy(logits: np.ndarray, labels: np.ndarray, drawn: Drawn) -> np.ndarray:
    """Of classes."""
    return _of_counts(_accuracy, logits, labels, drawn)


def f1(logits: np.ndarray, labels: np.ndarray, drawn: Drawn) -> np.ndarray:
    """Of class 1 of two."""
    return _of_counts(_f1, logits, labels, drawn)


def matthews(logits: np.ndarray, labels: np.ndarray, drawn: Drawn) -> np.ndarray:
    """Of classes."""
    return _of_counts(_matthews, logits, labels, drawn)


def pearson(outputs: np.ndarray, labels: np.ndarray, drawn: Drawn) -> np.ndarray:
    """Of one output."""
    return _of_weights(_pearson, outputs, labels, drawn)


def spearman(outputs: np.ndarray, labels: np.ndarray, drawn: Drawn) -> np.ndarray:
    """Of one output."""
    return _of_weights(_spearman, outputs, labels, drawn)


def _of_counts(form: Callable[..., np.ndarray], logits: np.ndarray, labels: np.ndarray, drawn: Drawn) -> np.ndarray:
    """`form` of how often each pair of label and prediction is drawn."""
    cells, code = np.unique(_codes(logits, labels), return_inverse=True)
    classes = logits.shape[-1]
    true, given = cells // classes, cells % classes
    counts = np.concatenate([_counts(code[rows], len(cells)) for rows in drawn])
    return form(counts, true, given, classes)


def _of_weights(form: Callable[..., np.ndarray], outputs: np.ndarray, labels: np.ndarray, drawn: Drawn) -> np.ndarray:
    """`form` of how often each row is drawn."""
    sides = outputs.reshape(-1).astype(np.float64), labels.astype(np.float64)
    return np.concatenate([form(weights(rows), *sides) for rows in drawn])


def _codes(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return labels.astype(np.int64) * logits.shape[-1] + logits.argmax(axis=-1)


def _counts(values: np.ndarray, kinds: int) -> np.ndarray:
    """How often each of `kinds` numbers is in each row of `values`: [rows, kinds]."""
    places = values + kinds * np.arange(len(values))[:, None]
    return np.bincount(places.reshape(-1), minlength=kinds * len(values)).reshape(len(values), kinds)


def weights(drawn: np.ndarray) -> np.ndarray:
    """How often each row is drawn [resamples, rows], of numbers of rows of the same shape."""
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

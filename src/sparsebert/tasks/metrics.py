"""Metrics as GLUE defines them, by scikit-learn and scipy. An undefined value is absent, never invented."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef

from sparsebert.errors import UserError, unknown


class UndefinedMetricError(ValueError):
    """The metric has no value on these rows; the message says why."""


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of rows whose largest logit is at the label, 0-1. `predictions` [rows, classes]."""
    return float(np.mean(predictions.argmax(axis=-1) == labels))


def f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """F1 of class 1 of two, 0-1. Undefined if no row is, or is predicted to be, of class 1."""
    classes = predictions.argmax(axis=-1)
    if predictions.shape[-1] != 2:
        raise UndefinedMetricError(f"F1 is defined for 2 classes, not {predictions.shape[-1]}")
    if not classes.any() and not labels.any():
        raise UndefinedMetricError("no row is, or is predicted to be, of class 1")
    return float(f1_score(labels, classes))


def matthews(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Matthews correlation of classes, -1 to 1; 0 by scikit-learn's definition if all predictions are the same.

    Undefined if all labels are the same.
    """
    if np.ptp(labels) == 0:
        raise UndefinedMetricError("all labels are the same")
    return float(matthews_corrcoef(labels, predictions.argmax(axis=-1)))


def pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Linear correlation, -1 to 1. `predictions` [rows]. Undefined if either side is constant."""
    return _correlation(stats.pearsonr, predictions, labels)


def spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Rank correlation, ties sharing their mean rank, -1 to 1. Undefined if either side is constant."""
    return _correlation(stats.spearmanr, predictions, labels)


Metric = Callable[[np.ndarray, np.ndarray], float]
METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}
REGRESSION = frozenset({"pearson", "spearman"})


def score(metrics: Sequence[str], logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The metrics that have a value on these rows; see `score_with_reasons`."""
    return score_with_reasons(metrics, logits, labels)[0]


def score_with_reasons(
    metrics: Sequence[str], logits: np.ndarray, labels: np.ndarray
) -> tuple[dict[str, float], dict[str, str]]:
    """Values by metric name, and for each metric without a value the reason.

    `logits` [rows, classes], or [rows] or [rows, 1] for correlations; `labels` [rows]. Raises UserError for an unknown
    metric, no rows, shapes that do not fit, or outputs that are not finite.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    _check(metrics, logits, labels)
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for name in metrics:
        predictions = logits.reshape(-1) if name in REGRESSION else logits
        try:
            values[name] = METRICS[name](predictions, labels)
        except UndefinedMetricError as error:
            reasons[name] = str(error)
    return values, reasons


def constant_scores(metrics: Sequence[str], usual: int | None, labels: np.ndarray, classes: int) -> dict[str, float]:
    """What always giving the class `usual` scores, by metric name; a metric without a value there is left out.

    A correlation has none with a constant (`usual` = None: the mean), and stands for no relation at 0.
    """
    if usual is None:
        return {name: 0.0 for name in metrics if name in REGRESSION}
    return score(metrics, np.tile(np.eye(classes)[usual], (len(labels), 1)), labels)


def _check(metrics: Sequence[str], logits: np.ndarray, labels: np.ndarray) -> None:
    for name in metrics:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
        outputs = int(np.prod(logits.shape[1:]))
        fits = outputs == 1 if name in REGRESSION else logits.ndim == 2 and outputs > 1
        if labels.ndim != 1 or logits.shape[:1] != labels.shape or not fits:
            raise UserError(f"The outputs do not fit metric '{name}'", got=f"{logits.shape} for {labels.shape} labels")
    if len(labels) == 0:
        raise UserError("There are no rows to score")
    if not np.isfinite(logits).all():
        raise UserError("The model's outputs are not finite, so they have no score")


def _correlation(function: Callable[..., tuple[float, float]], predictions: np.ndarray, labels: np.ndarray) -> float:
    if len(labels) < 2:
        raise UndefinedMetricError("a correlation needs two rows")
    # Single precision would lose digits in the sums.
    sides = (predictions.astype(np.float64), labels.astype(np.float64))
    for side, name in zip(sides, ("predictions", "labels"), strict=True):
        if np.ptp(side) == 0:
            raise UndefinedMetricError(f"all {name} are the same")
    return float(function(*sides)[0])

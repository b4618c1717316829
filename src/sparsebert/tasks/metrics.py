"""Metrics as GLUE defines them, by scikit-learn and scipy. An undefined value is absent, never invented."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.tasks import resampled
from sparsebert.tasks.metric import Metric, UndefinedMetricError


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
    """Linear correlation, -1 to 1. `predictions` [rows] or [rows, 1]. Undefined if either side is constant."""
    return _correlation(stats.pearsonr, predictions, labels)


def spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Rank correlation, ties sharing their mean rank, -1 to 1. Undefined if either side is constant."""
    return _correlation(stats.spearmanr, predictions, labels)


def _of_classes(outputs: tuple[int, ...], labels: tuple[int, ...]) -> bool:
    return len(outputs) == 2 and outputs[1] > 1 and labels == outputs[:1]


def _of_numbers(outputs: tuple[int, ...], labels: tuple[int, ...]) -> bool:
    return int(np.prod(outputs[1:])) == 1 and labels == outputs[:1]


ACCURACY = Metric(accuracy, resampled.accuracy, _of_classes)
F1 = Metric(f1, resampled.f1, _of_classes)
MATTHEWS = Metric(matthews, resampled.matthews, _of_classes)
# A correlation has none with a constant, which has no relation to anything.
PEARSON = Metric(pearson, resampled.pearson, _of_numbers, of_constant=0.0)
SPEARMAN = Metric(spearman, resampled.spearman, _of_numbers, of_constant=0.0)


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
    known: dict[str, Metric] = {name: registry.get("metric", name) for name in metrics}
    _check(known, logits, labels)
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for name, metric in known.items():
        try:
            values[name] = metric.value(logits, labels)
        except UndefinedMetricError as error:
            reasons[name] = str(error)
    return values, reasons


def constant_scores(metrics: Sequence[str], outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """What a model that always gives the same scores, by metric name; a metric without a value is left out.

    `outputs` are those of every row (see ConstantAnswer.everywhere).
    """
    fixed: dict[str, float | None] = {name: registry.get("metric", name).of_constant for name in metrics}
    values = score([name for name in metrics if fixed[name] is None], outputs, labels)
    return values | {name: value for name, value in fixed.items() if value is not None}


def _check(metrics: Mapping[str, Metric], logits: np.ndarray, labels: np.ndarray) -> None:
    for name, metric in metrics.items():
        if not metric.fits(logits.shape, labels.shape):
            raise UserError(f"The outputs do not fit metric '{name}'", got=f"{logits.shape} for {labels.shape} labels")
    if len(labels) == 0:
        raise UserError("There are no rows to score")
    if not np.isfinite(logits).all():
        raise UserError("The model's outputs are not finite, so they have no score")


def _correlation(function: Callable[..., tuple[float, float]], predictions: np.ndarray, labels: np.ndarray) -> float:
    if len(labels) < 2:
        raise UndefinedMetricError("a correlation needs two rows")
    # Single precision would lose digits in the sums.
    sides = (predictions.reshape(-1).astype(np.float64), labels.astype(np.float64))
    for side, name in zip(sides, ("predictions", "labels"), strict=True):
        if np.ptp(side) == 0:
            raise UndefinedMetricError(f"all {name} are the same")
    return float(function(*sides)[0])

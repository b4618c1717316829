"""How the weights of each matrix are distributed, and how far from a normal distribution that is.

Gordon et al. 2020, arXiv:2002.08307, table 3 gives mean and standard deviation, and calls the weights normal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparsebert.reports.charts import StudyChart, written
from sparsebert.reports.study import StudyColumn, StudyResult, StudyRow
from sparsebert.studies.study import CheckpointStudy
from sparsebert.studies.weights import EncoderWeights, MatrixName, layer_panel

if TYPE_CHECKING:
    from sparsebert.studies.checkpoints import AskedCheckpoints

QUESTION = "How are the weights of each matrix distributed?"
DEFINITION = (
    "Of the weights of a matrix that are not exactly zero: mean, standard deviation, skewness, kurtosis (0 for a "
    "normal distribution), and D, the distance of Kolmogorov and Smirnov to the normal distribution with this mean and "
    "deviation: the largest difference between the part of the weights below a value and the part that a normal "
    "distribution has there. D says how large the difference is, however many weights there are; a p-value does not: "
    "of 1,000,000 weights any D above 0.09% is significant at 5% (Lilliefors 1967), however harmless. Below: part of "
    "all weights of a smaller magnitude, zeros among them."
)
THRESHOLDS = (0.001, 0.01, 0.1)
_MOST_PANELS = 6


@dataclass(frozen=True)
class Distribution:
    """Of `count` weights: the part that is zero, of the others the moments and D (None where all are the same).

    `below`: by threshold, the part of all weights of a smaller magnitude.
    """

    count: int
    zeros: float
    mean: float | None
    sd: float | None
    skewness: float | None
    kurtosis: float | None
    distance: float | None
    below: tuple[float, ...]


def distribution(values: np.ndarray, thresholds: Sequence[float] = THRESHOLDS) -> Distribution:
    """Of one matrix with at least one weight."""
    flat = values.ravel().astype(np.float64)
    below = tuple(float(np.mean(np.abs(flat) < one)) for one in thresholds)
    kept = flat[flat != 0]
    zeros = 1 - len(kept) / len(flat)
    if not len(kept):
        return Distribution(len(flat), zeros, None, None, None, None, None, below)
    mean, sd = float(kept.mean()), float(kept.std())
    # A spread of nothing but rounding has no form.
    if sd <= 1e-12 * abs(mean):
        return Distribution(len(flat), zeros, mean, sd, None, None, None, below)
    scaled = (kept - mean) / sd
    skewness, kurtosis = float(np.mean(scaled**3)), float(np.mean(scaled**4) - 3)
    return Distribution(len(flat), zeros, mean, sd, skewness, kurtosis, _distance(scaled), below)


def _distance(scaled: np.ndarray) -> float:
    """D of Kolmogorov and Smirnov to the standard normal distribution."""
    from scipy.special import ndtr

    expected, count = ndtr(np.sort(scaled)), len(scaled)
    above = np.arange(1, count + 1) / count - expected
    return float(max(above.max(), (1 / count - above).max()))


def weight_distribution(
    weights: Sequence[EncoderWeights],
    more: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> StudyResult:
    """Matrix by matrix; `more` holds further matrices of each checkpoint by name, such as the embeddings."""
    found = {
        one.name: {name: distribution(values, thresholds) for name, values in one.matrices.items() if values.size}
        for one in weights
    }
    other = {
        name: {label: distribution(values, thresholds) for label, values in matrices.items() if values.size}
        for name, matrices in (more or {}).items()
    }
    rows = [
        StudyRow(name, _row(label, one))
        for name, parts in found.items()
        for label, one in [*((place.label, one) for place, one in parts.items()), *other.get(name, {}).items()]
    ]
    return StudyResult(
        "weight-distribution",
        QUESTION,
        _sentence(found),
        DEFINITION,
        tuple(found),
        _columns(thresholds),
        tuple(rows),
        _chart(found),
        notes=() if len(found) <= _MOST_PANELS else (f"The figure shows {_MOST_PANELS} of {len(found)} checkpoints.",),
    )


def _columns(thresholds: Sequence[float]) -> tuple[StudyColumn, ...]:
    return (
        StudyColumn("matrix", "Matrix"),
        StudyColumn("weights", "Weights", form="count"),
        StudyColumn("zeros", "Zeros", form="percent"),
        StudyColumn("mean", "Mean"),
        StudyColumn("sd", "SD"),
        StudyColumn("skewness", "Skewness"),
        StudyColumn("kurtosis", "Kurtosis"),
        StudyColumn("distance", "D", "to normal", "percent"),
        *(StudyColumn(f"below_{one:g}", "Below", f"{one:g}", "percent") for one in thresholds),
    )


def _row(label: str, one: Distribution) -> tuple[str | float | int | None, ...]:
    moments = (one.mean, one.sd, one.skewness, one.kurtosis, one.distance)
    return (label, one.count, one.zeros, *moments, *one.below)


def _chart(found: Mapping[str, Mapping[MatrixName, Distribution]]) -> StudyChart:
    known = [one.distance for parts in found.values() for one in parts.values() if one.distance is not None]
    return StudyChart(
        tuple(
            layer_panel(
                f"D to a normal distribution, {name}",
                {place: one.distance for place, one in parts.items()},
                "percent",
                low=0.0,
                high=max(known, default=1.0),
            )
            for name, parts in list(found.items())[:_MOST_PANELS]
        )
    )


def _sentence(found: Mapping[str, Mapping[MatrixName, Distribution]]) -> str:
    """Of the first checkpoint whose encoder has weights."""
    for name, parts in found.items():
        known = {place.label: one.distance for place, one in parts.items() if one.distance is not None}
        if known:
            near, far = min(known, key=lambda one: known[one]), max(known, key=lambda one: known[one])
            middle = float(np.median(list(known.values())))
            return (
                f"The matrices of {name} are {written(middle, 'percent')} from a normal distribution in the median, "
                f"{written(known[near], 'percent')} in {near} and {written(known[far], 'percent')} in {far}."
            )
    return "No matrix has weights that differ, so there is no distribution."


def _ask(asked: AskedCheckpoints) -> StudyResult:
    weights, more = [], {}
    for one, others in asked.all_matrices():
        weights.append(one)
        more[one.name] = others
    return weight_distribution(weights, more, asked.options.threshold or THRESHOLDS)


WEIGHT_DISTRIBUTION = CheckpointStudy(
    "mean, spread and form of each matrix's weights, and how far from normal they are", _ask, takes=("threshold",)
)

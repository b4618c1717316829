"""What a metric is, apart from the libraries that compute some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sparsebert.tasks.resampled import Resampled


class UndefinedMetricError(ValueError):
    """The metric has no value on these rows; the message says why."""


@dataclass(frozen=True)
class Metric:
    """A metric: the more, the better.

    `value` takes outputs [rows, outputs] and labels, [rows] or [rows, labels], and raises UndefinedMetricError where
    there is none. `resampled` gives it for many resamples at once, as in tasks/resampled.py. `fits` says whether
    outputs and labels of these shapes are of this metric. `of_constant` is what an answer that is always the same
    stands for where it has no value itself; None = it has one.
    """

    value: Callable[[np.ndarray, np.ndarray], float]
    resampled: Resampled
    fits: Callable[[tuple[int, ...], tuple[int, ...]], bool]
    of_constant: float | None = None

"""What a model scores before and after a change, and the interval of the difference: a bootstrap paired by text."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from sparsebert.errors import UserError
from sparsebert.tasks.bootstrap import Interval, difference_interval, interval, resampled_ratios, resampled_scores
from sparsebert.tasks.embeddings import cosines
from sparsebert.tasks.kind import TaskKind
from sparsebert.tasks.metrics import score_with_reasons

AGREEMENT, LIKENESS, ORDER = "agreement", "cosine", "rank correlation"
"""What is measured without labels: of what a model decides, of its vectors, and of the numbers that it gives."""


@dataclass(frozen=True)
class Estimate:
    """A value, and the ends of its 95 % interval, none where the rows do not tell it."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, value: float, ends: Interval | None) -> Estimate:
        """With both ends or none."""
        return cls(value, *(ends or (None, None)))


@dataclass(frozen=True)
class Effect:
    """The same `metric` before and after, the change, and of how many texts."""

    metric: str
    before: Estimate
    after: Estimate
    change: Estimate
    texts: int

    def told(self) -> dict[str, Any]:
        """As the page shows it."""
        return asdict(self)


def scored_effect(metric: str, before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> Effect:
    """Of outputs and labels as the metric takes them [rows, ...]. Raises UserError where it has no value on them."""
    values, draws = [], []
    for outputs in (before, after):
        found, reasons = score_with_reasons([metric], outputs, labels)
        if metric not in found:
            raise UserError(f"There is no {metric} of these texts: {reasons[metric]}", fix="give other texts")
        values.append(found[metric])
        draws.append(resampled_scores(metric, outputs, labels))
    apart = difference_interval(draws[1], draws[0])
    one, other = (Estimate.of(value, interval(own)) for value, own in zip(values, draws, strict=True))
    return Effect(metric, one, other, Estimate.of(values[1] - values[0], apart), len(labels))


def agreement_effect(before: np.ndarray, after: np.ndarray, kind: TaskKind) -> Effect:
    """How much of what a model says it says again, which before the change is all of it.

    Outputs are as metrics take them, of words [texts, words, tags]. Of decisions it is the part that is the same, of
    vectors their mean cosine, of numbers the correlation of their ranks. Raises UserError where that has no value.
    """
    if kind.head != "embeddings" and not kind.has_thresholds and not kind.exclusive:
        return replace(scored_effect("spearman", before, after, before.reshape(len(before))), metric=ORDER)
    sums = _again(before, after, kind)
    if not sums[:, 1].any():
        raise UserError("No text has a word that the model reads")
    value, same = float(sums[:, 0].sum() / sums[:, 1].sum()), bool(np.allclose(sums[:, 0], sums[:, 1], atol=1e-9))
    ends = None if same else interval(resampled_ratios(sums))
    change = (0.0, 0.0) if same else ends and (ends[0] - 1, ends[1] - 1)
    name = LIKENESS if kind.head == "embeddings" else AGREEMENT
    return Effect(name, Estimate(1.0), Estimate.of(value, ends), Estimate.of(value - 1, change), len(sums))


def _again(before: np.ndarray, after: np.ndarray, kind: TaskKind) -> np.ndarray:
    """For each text what is said again, and what was said: its words where each has a label, else one [texts, 2]."""
    if kind.head == "embeddings":
        return np.stack([cosines(after, before), np.ones(len(after))], axis=1)
    if kind.has_thresholds:
        alike = ((before > 0) == (after > 0)).all(axis=-1)
    else:
        alike = before.argmax(axis=-1) == after.argmax(axis=-1)
    if not kind.by_word:
        return np.stack([alike, np.ones(len(alike))], axis=1)
    read = before.any(axis=-1)
    return np.stack([(alike & read).sum(axis=1), read.sum(axis=1)], axis=1).astype(np.float64)

"""From which probability on a label is given: a threshold for each, chosen on rows that were not trained on.

The threshold where the F1 of a label is highest on some rows (SCut: Yang 2001, "A study on thresholding strategies for
text categorization") overfits where few of them have the label (Fan & Lin 2007, "A study on threshold selection for
multi-label classification"), and gives a label that a model cannot tell to every text (Lipton et al. 2014,
arXiv:1402.1892, section 4), which costs micro-F1. So thresholds are moved one label after the other to where the sum of
micro- and macro-F1 is highest (Lin & Lin 2023, doi:10.1145/3583780.3614996), from the one that suits all labels best.
Of each the mean over resamples of the rows is taken, which is then drawn towards the one for all labels: the fewer rows
have the label, the closer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsebert.errors import UserError

FEWEST = 10
"""Labels of all rows together, below which nothing is chosen; of one label those that weigh as much as all others."""
RESAMPLES, ROUNDS = 20, 2
LEAST, MOST = 0.001, 0.999
_DIGITS = 4


@dataclass(frozen=True)
class _Falling:
    """The rows of one label in the order of their outputs, which fall [rows], and whether each has the label."""

    order: np.ndarray
    outputs: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, outputs: np.ndarray, labels: np.ndarray) -> _Falling:
        order = np.argsort(-outputs, kind="stable")
        return cls(order, outputs[order], labels[order])

    def cuts(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of every place to cut a resample, from above all rows to below: threshold, rows given, and rightly given.

        `counts` is how often each row comes. A threshold lies half-way between two outputs, or one half outside.
        """
        times = counts[self.order]
        drawn = times > 0
        outputs, times, labels = self.outputs[drawn], times[drawn], self.labels[drawn]
        sides = np.concatenate([[outputs[0] + 1], outputs, [outputs[-1] - 1]])
        # Equal outputs cannot be told apart.
        possible = sides[:-1] > sides[1:]
        given = np.concatenate([[0], np.cumsum(times)])[possible]
        right = np.concatenate([[0], np.cumsum(times * labels)])[possible]
        return ((sides[:-1] + sides[1:]) / 2)[possible], given, right


def choose_thresholds(outputs: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    """Probabilities, one a label, for logits and 0/1 labels [rows, labels]; none where the rows have too few labels."""
    outputs, positives = outputs.astype(np.float64), labels.sum(axis=0)
    if positives.sum() < FEWEST:
        return ()
    drawn = np.random.default_rng(0).multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=RESAMPLES)
    drawn = drawn[(drawn @ labels).any(axis=1)]
    if not len(drawn):
        return ()
    shared = _for_all(outputs, labels, drawn)
    sides = [_Falling.of(*one) for one in zip(outputs.T, labels.T, strict=True)]
    own = np.array([_for_each(sides, counts, counts @ labels, shared) for counts in drawn])
    known = ~np.isnan(own)
    mean = np.where(known, own, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    logits = np.where(known.any(axis=0), (positives * mean + FEWEST * shared) / (positives + FEWEST), shared)
    chances = np.clip(1 / (1 + np.exp(-logits)), LEAST, MOST)
    return tuple(round(float(chance), _DIGITS) for chance in chances)


def _for_all(outputs: np.ndarray, labels: np.ndarray, drawn: Iterable[np.ndarray]) -> float:
    """The logit from which on giving any label has the highest micro-F1, a mean over resamples."""
    side, found = _Falling.of(outputs.ravel(), labels.ravel()), []
    for counts in drawn:
        limits, given, right = side.cuts(np.repeat(counts, labels.shape[1]))
        found.append(limits[np.argmax(right / (given + right[-1]))])
    return float(np.mean(found))


def _for_each(sides: list[_Falling], counts: np.ndarray, positives: np.ndarray, start: float) -> np.ndarray:
    """The logits [labels] on one resample, all of which are `start` at first; nan for labels that no row has."""
    cuts = [side.cuts(counts) for side in sides]
    # The last cut that is not below the start.
    places = [int(np.searchsorted(-limits, -start, side="right")) - 1 for limits, _, _ in cuts]
    places = [max(place, 0) for place in places]
    given = np.array([cut[1][place] for cut, place in zip(cuts, places, strict=True)])
    right = np.array([cut[2][place] for cut, place in zip(cuts, places, strict=True)])
    found, told = np.full(len(sides), np.nan), np.flatnonzero(positives)
    for label in [*told] * ROUNDS:
        limits, own_given, own_right = cuts[label]
        others = right.sum() - right[label], given.sum() - given[label] + positives.sum()
        micro = 2 * (others[0] + own_right) / (others[1] + own_given)
        macro = 2 * own_right / (own_given + positives[label]) / len(told)
        best = int(np.argmax(micro + macro))
        found[label], given[label], right[label] = limits[best], own_given[best], own_right[best]
    return found


def checked_thresholds(values: Any, count: int, where: str) -> tuple[float, ...]:
    """Thresholds as a file holds them, one for each of `count` labels. Raises UserError for anything else."""
    numbers = isinstance(values, list | tuple) and all(
        isinstance(one, float | int) and not isinstance(one, bool) and 0 < one < 1 for one in values
    )
    if not numbers or len(values) != count:
        got = f"{len(values)} of them" if numbers else str(values)[:60]
        raise UserError(
            f"The thresholds in {where} are damaged",
            got=got,
            allowed=f"{count} numbers above 0 and below 1, one a label",
            fix="take the key out: then a label is given from a probability of one half on",
        )
    return tuple(float(one) for one in values)

"""From which probability on a label is given: a threshold for each, chosen on rows that were not trained on.

A threshold where the F1 of a label is highest on some rows (SCut: Yang 2001, "A study on thresholding strategies for
text categorization") overfits where few of them have the label (Fan & Lin 2007, "A study on threshold selection for
multi-label classification"; Lipton et al. 2014, arXiv:1402.1892, section 5), and costs micro-F1 for macro-F1. So each
is the mean over resamples of the rows, which smooths the curve that is climbed, as Lin & Lin 2023
(doi:10.1145/3583780.3614996) smooth it, and is then drawn towards the one threshold that is best for all labels
together by micro-F1: the fewer rows have the label, the closer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from sparsebert.errors import UserError

HALF = 0.5
FEWEST = 20
"""Labels of all rows together, below which nothing is chosen; of one label those that weigh as much as all others."""
RESAMPLES = 50
LEAST, MOST = 0.001, 0.999
_DIGITS = 4


def choose_thresholds(outputs: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    """Probabilities, one a label, for logits and 0/1 labels [rows, labels]; none where the rows have too few labels."""
    positives = labels.sum(axis=0)
    if positives.sum() < FEWEST:
        return ()
    generator = np.random.default_rng(0)
    drawn = generator.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=RESAMPLES)
    shared = _mean_best(outputs.ravel(), labels.ravel(), (np.repeat(one, labels.shape[1]) for one in drawn))
    assert shared is not None, "some rows have labels"
    own = [_mean_best(outputs[:, place], labels[:, place], drawn) for place in range(labels.shape[1])]
    pairs = zip(own, positives, strict=True)
    logits = [shared if one is None else (count * one + FEWEST * shared) / (count + FEWEST) for one, count in pairs]
    chances = np.clip(1 / (1 + np.exp(-np.array(logits))), LEAST, MOST)
    return tuple(round(float(chance), _DIGITS) for chance in chances)


def _mean_best(outputs: np.ndarray, labels: np.ndarray, drawn: Iterable[np.ndarray]) -> float | None:
    """The mean over resamples, which are how often each row comes, of the logit with the highest F1.

    None where no row has a label.
    """
    order = np.argsort(-outputs, kind="stable")
    outputs, labels = outputs[order], labels[order]
    found = [_best(outputs, labels, counts[order]) for counts in drawn if (counts[order] * labels).any()]
    return float(np.mean(found)) if found else None


def _best(outputs: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> float:
    """Half-way between the two outputs, which fall, that the highest F1 lies between; below the last by one half."""
    here = counts > 0
    outputs, labels, counts = outputs[here], labels[here], counts[here]
    right, given = np.cumsum(counts * labels), np.cumsum(counts)
    scores = 2 * right / (given + right[-1])
    # Equal outputs cannot be told apart.
    last = np.append(outputs[:-1] > outputs[1:], True)
    place = int(np.argmax(np.where(last, scores, -1.0)))
    below = outputs[place + 1] if place + 1 < len(outputs) else outputs[place] - 1
    return float(outputs[place] + below) / 2


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

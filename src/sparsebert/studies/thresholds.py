"""How many optimiser steps models need to reach a score: the fastest trial of each search.

"Sparsity Without Sacrifice" (B. Cohen 2021), figure 2.
"""

from __future__ import annotations

from collections.abc import Sequence

from sparsebert.records import Evaluation
from sparsebert.reports.search_tables import ThresholdRow
from sparsebert.reports.searched import Searched

# Of the best score that all searches have reached, so that every one has an answer.
PARTS = (0.9, 0.95, 0.99)


def steps_to(evaluations: Sequence[Evaluation], metric: str, threshold: float) -> int | None:
    """The first step whose evaluation scores at least `threshold`; none where no one does."""
    reached = (one.step for one in evaluations if one.scores.get(metric, float("-inf")) >= threshold)
    return min(reached, default=None)


def threshold_rows(found: Sequence[Searched], thresholds: Sequence[float] = ()) -> list[ThresholdRow]:
    """A row a threshold and search: the fewest steps of any trial, and how many of those that looked got there.

    `thresholds` as the metric is defined (accuracy 0-1); none = 90, 95 and 99 % of the best score that all searches
    have reached. Empty where no trial was scored while it trained.
    """
    metric = found[0].aim.name
    wanted = list(thresholds) or _common(found, metric)
    return [_row(one, metric, threshold) for threshold in wanted for one in found]


def _common(found: Sequence[Searched], metric: str) -> list[float]:
    best = [
        max((e.scores[metric] for run in one.runs for e in run.evaluations if metric in e.scores), default=None)
        for one in found
    ]
    known = [score for score in best if score is not None]
    return [part * min(known) for part in PARTS] if known and min(known) > 0 else []


def _row(one: Searched, metric: str, threshold: float) -> ThresholdRow:
    watched = [run for run in one.runs if any(metric in evaluation.scores for evaluation in run.evaluations)]
    steps = [(steps, run) for run in watched if (steps := steps_to(run.evaluations, metric, threshold)) is not None]
    fewest = min(steps, key=lambda pair: pair[0], default=None)
    return ThresholdRow(
        threshold=threshold,
        label=one.label,
        steps=None if fewest is None else fewest[0],
        run=None if fewest is None else fewest[1].name,
        reached=len(steps),
        watched=len(watched),
    )

"""Candidates: for one group, what is left and what it costs in error, at each number of units kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sparsebert.pruning.statistics import CalibrationStatistics

STEPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.42, 0.35, 0.3, 0.25, 0.2, 0.16, 0.13, 0.1, 0.08, 0.06, 0.04, 0.02, 0.0)
MULTIPLE = 8


@dataclass(frozen=True)
class Candidate:
    """Keep these units [count] with these output columns [d, count * width], and add `bias_shift` [d] to the bias.

    `error` estimates the squared change of a logit (see CalibrationStatistics.fisher).
    """

    units: torch.Tensor
    weight: torch.Tensor
    bias_shift: torch.Tensor
    error: float


def levels(units: int, width: int) -> list[int]:
    """Numbers of units worth looking at, most first: every one for heads, a falling grid of round ones for neurons."""
    if width > 1 or units <= 2 * MULTIPLE:
        return list(range(units, -1, -1))
    grid = {units} | {round(step * units / MULTIPLE) * MULTIPLE for step in STEPS[1:]}
    return sorted((count for count in grid if count <= units), reverse=True)


def candidate(statistics: CalibrationStatistics, units: torch.Tensor, weight: torch.Tensor) -> Candidate:
    """The Candidate of keeping `units` with output columns `weight`; the bias takes up the mean of what is lost.

    error = tr(D S D^T F) with D the full weight change, S the (centred) second moment, F the Fisher matrix.
    """
    change = statistics.weight.clone()
    change[:, statistics.columns(units)] -= weight
    shift = change @ statistics.mean if statistics.centred else torch.zeros(len(change), dtype=change.dtype)
    error = torch.sum((change @ statistics.hessian) * (statistics.fisher @ change))
    return Candidate(units, weight.float(), shift.float(), max(float(error), 0.0))


def candidates_by_score(
    statistics: CalibrationStatistics, scores: torch.Tensor, counts: Sequence[int]
) -> list[Candidate]:
    """Candidates that keep the highest scores [units], weights as they are and nothing moved into the bias."""
    order = torch.argsort(scores, descending=True, stable=True)
    return [_plain_candidate(statistics, order[:count].sort().values) for count in counts]


def _plain_candidate(statistics: CalibrationStatistics, units: torch.Tensor) -> Candidate:
    weight = statistics.weight[:, statistics.columns(units)]
    change = statistics.weight.clone()
    change[:, statistics.columns(units)] = 0
    error = torch.sum((change @ statistics.second) * (statistics.fisher @ change))
    return Candidate(units, weight.float(), torch.zeros(len(weight)), max(float(error), 0.0))

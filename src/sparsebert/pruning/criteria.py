"""Criteria: which units to keep. A higher score means keep; every score is a pure function of CalibrationStatistics."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from sparsebert.errors import UserError
from sparsebert.pruning.candidates import Candidate, candidates_by_score
from sparsebert.pruning.obs import obs_candidates
from sparsebert.pruning.statistics import CalibrationStatistics

CHUNKS = 16


class UnitCriterion(Protocol):
    """How to thin a group: one Candidate for each of `counts`, numbers of units to keep, most first.

    One that `wants_loss` may call `statistics.loss_rise`, and its shapes are searched by the training loss instead of
    the divergence from the dense model.
    """

    @property
    def wants_loss(self) -> bool:
        """Whether it goes by the training loss."""
        ...

    def candidates(self, statistics: CalibrationStatistics, counts: Sequence[int]) -> list[Candidate]:
        """The Candidate at each count."""
        ...


@dataclass(frozen=True)
class Scored:
    """A criterion that ranks the units once and leaves the rest of the weights alone."""

    score: Callable[[CalibrationStatistics], torch.Tensor]
    wants_loss: bool = False

    def candidates(self, statistics: CalibrationStatistics, counts: Sequence[int]) -> list[Candidate]:
        """Keep the highest scores at every count."""
        return candidates_by_score(statistics, self.score(statistics), counts)


@dataclass(frozen=True)
class OptimalBrainSurgeon:
    """Remove the unit whose loss is least once all others make up for it; see pruning/obs.py."""

    wants_loss: bool = False

    def candidates(self, statistics: CalibrationStatistics, counts: Sequence[int]) -> list[Candidate]:
        """Follow one path of removals and note the weights at every count."""
        return obs_candidates(statistics, counts)


def magnitude_score(statistics: CalibrationStatistics) -> torch.Tensor:
    """Geometric mean of the norms of a unit's input and output weights [units]."""
    out = statistics.weight.reshape(len(statistics.weight), statistics.units, -1).square().sum(dim=(0, 2)).sqrt()
    return (statistics.input_norm * out).sqrt()


def random_score(statistics: CalibrationStatistics) -> torch.Tensor:
    """Uniform noise, decided by the seed and the group's name alone [units]."""
    seed = zlib.crc32(f"{statistics.seed}:{statistics.name}".encode())
    return torch.rand(statistics.units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient_score(statistics: CalibrationStatistics) -> torch.Tensor:
    """|activation x gradient| of the loss, a head's or neuron's mean over examples [units].

    Michel et al. 2019, arXiv:1905.10650, eq. 2 (heads); Molchanov et al. 2017, arXiv:1611.06440, eq. 9 (neurons).
    """
    return statistics.taylor


def activation_score(statistics: CalibrationStatistics) -> torch.Tensor:
    """Mean |activation| times the norm of the weights that read it, summed over a unit's columns [units].

    The structured form of Wanda's |w| * ||x|| (Sun et al. 2023, arXiv:2306.11695, eq. 1).
    """
    return (statistics.activation * statistics.weight.norm(dim=0)).view(statistics.units, -1).sum(dim=1)


def loss_increase_score(statistics: CalibrationStatistics) -> torch.Tensor:
    """Rise of the training loss when a unit is removed [units].

    Wide groups are measured in at most 16 chunks of units with neighbouring activation scores; a chunk's rise is
    shared by its units in proportion to those scores.
    """
    if statistics.loss_rise is None:
        raise UserError("The criterion 'loss_increase' needs the training loss", fix="pass loss_rise in the statistics")
    hint = activation_score(statistics)
    scores = torch.zeros(statistics.units, dtype=torch.float64)
    for chunk in torch.argsort(hint, stable=True).tensor_split(min(CHUNKS, statistics.units)):
        rise = statistics.loss_rise(chunk.tolist())
        share = hint[chunk] / hint[chunk].mean().clamp_min(1e-12)
        scores[chunk] = rise * share if len(chunk) > 1 else rise
    return scores


obs = OptimalBrainSurgeon()
magnitude = Scored(magnitude_score)
random = Scored(random_score)
gradient = Scored(gradient_score)
activation = Scored(activation_score)
loss_increase = Scored(loss_increase_score, wants_loss=True)

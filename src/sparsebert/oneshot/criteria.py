"""Criteria: which units to keep. A higher score means keep; every score is a pure function of Evidence."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from sparsebert.errors import UserError
from sparsebert.oneshot.evidence import Evidence
from sparsebert.oneshot.hessian import obs_options
from sparsebert.oneshot.options import Option, options_by_score

CHUNKS = 16


class Criterion(Protocol):
    """How to thin a group: one Option for each of `counts`, numbers of units to keep, most first."""

    def options(self, evidence: Evidence, counts: Sequence[int]) -> list[Option]:
        """The Option at each count."""
        ...


@dataclass(frozen=True)
class Scored:
    """A criterion that ranks the units once and leaves the rest of the weights alone."""

    score: Callable[[Evidence], torch.Tensor]

    def options(self, evidence: Evidence, counts: Sequence[int]) -> list[Option]:
        """Keep the highest scores at every count."""
        return options_by_score(evidence, self.score(evidence), counts)


@dataclass(frozen=True)
class OptimalBrainSurgeon:
    """Remove the unit whose loss is least once all others make up for it; see oneshot.hessian."""

    def options(self, evidence: Evidence, counts: Sequence[int]) -> list[Option]:
        """Follow one path of removals and note the weights at every count."""
        return obs_options(evidence, counts)


def magnitude_score(evidence: Evidence) -> torch.Tensor:
    """Geometric mean of the norms of a unit's input and output weights [units]."""
    out = evidence.weight.reshape(len(evidence.weight), evidence.units, -1).square().sum(dim=(0, 2)).sqrt()
    return (evidence.input_norm * out).sqrt()


def random_score(evidence: Evidence) -> torch.Tensor:
    """Uniform noise, decided by the seed and the group's name alone [units]."""
    seed = zlib.crc32(f"{evidence.seed}:{evidence.name}".encode())
    return torch.rand(evidence.units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient_score(evidence: Evidence) -> torch.Tensor:
    """|activation x gradient| of the loss, a head's or neuron's mean over examples [units].

    Michel et al. 2019, arXiv:1905.10650, eq. 2 (heads); Molchanov et al. 2017, arXiv:1611.06440, eq. 9 (neurons).
    """
    return evidence.taylor


def activation_score(evidence: Evidence) -> torch.Tensor:
    """Mean |activation| times the norm of the weights that read it, summed over a unit's columns [units].

    The structured form of Wanda's |w| * ||x|| (Sun et al. 2023, arXiv:2306.11695, eq. 1).
    """
    return (evidence.activation * evidence.weight.norm(dim=0)).view(evidence.units, -1).sum(dim=1)


def loss_increase_score(evidence: Evidence) -> torch.Tensor:
    """Rise of the training loss when a unit is removed [units].

    Wide groups are measured in at most 16 chunks of units with neighbouring activation scores; a chunk's rise is
    shared by its units in proportion to those scores.
    """
    if evidence.loss_rise is None:
        raise UserError("The criterion 'loss_increase' needs the training loss", fix="pass loss_rise in the evidence")
    hint = activation_score(evidence)
    scores = torch.zeros(evidence.units, dtype=torch.float64)
    for chunk in torch.argsort(hint, stable=True).tensor_split(min(CHUNKS, evidence.units)):
        rise = evidence.loss_rise(chunk.tolist())
        share = hint[chunk] / hint[chunk].mean().clamp_min(1e-12)
        scores[chunk] = rise * share if len(chunk) > 1 else rise
    return scores


obs = OptimalBrainSurgeon()
magnitude = Scored(magnitude_score)
random = Scored(random_score)
gradient = Scored(gradient_score)
activation = Scored(activation_score)
loss_increase = Scored(loss_increase_score)

"""Optimal-brain-surgeon removal of whole units with closed-form updates of the rest."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparsebert.errors import UserError
from sparsebert.pruning.candidates import Candidate, candidate
from sparsebert.pruning.statistics import CalibrationStatistics

DAMPING = 1e-4
MORE = 10
BATCH_FRACTION = 32
# Updates also run over columns that are gone until these are cut out. Cutting copies all matrices, which only pays
# once a fifth of them is gone.
COMPACT_BELOW = 0.8


def obs_candidates(statistics: CalibrationStatistics, counts: Sequence[int]) -> list[Candidate]:
    """One greedy path from all units to none; the Candidate at each of `counts` (falling) along it.

    Removing unit S with columns s costs  tr(F W_s [H^-1_ss]^-1 W_s^T)  and changes the other columns by
    -W_s [H^-1_ss]^-1 H^-1_s:  (Frantar & Alistarh 2022, arXiv:2208.11580, eq. 3, in the structured form of ZipLM,
    Kurtic et al. 2023, arXiv:2302.04089, eq. 2-3; weighted here by the Fisher matrix of the outputs, which leaves
    the update as it is and makes errors of different blocks comparable). Units of width 1 go in small batches, a
    32nd of what is left at a time, the joint update being exact for the batch.
    """
    path = _Path(statistics)
    found = []
    for count in counts:
        while (left := len(path.alive)) > count:
            batch = max(1, left // BATCH_FRACTION) if statistics.width == 1 else 1
            path.remove(min(batch, left - count))
        found.append(candidate(statistics, path.alive, path.weight))
    return found


class _Path:
    """Weights [d, n], Fisher-weighted weights and inverse Hessian [n, n]; removed units stay until `_compact`."""

    def __init__(self, statistics: CalibrationStatistics) -> None:
        self._inverse = damped_inverse(statistics)
        self._width = statistics.width
        self._weight = statistics.weight.clone()
        # With F = R^T R, the cost tr(F E E^T) of a change E is |R E|^2, a plain sum of squares. R W takes the same
        # updates as W, since F multiplies from the left.
        self._weighted = _root(statistics.fisher) @ self._weight
        self._units = torch.arange(statistics.units)
        self._alive = torch.ones(statistics.units, dtype=torch.bool)

    @property
    def alive(self) -> torch.Tensor:
        """Numbers of the units that are left, rising."""
        return self._units[self._alive]

    @property
    def weight(self) -> torch.Tensor:
        """Their columns [d, alive * width]."""
        return self._weight[:, self._alive.repeat_interleave(self._width)]

    def remove(self, count: int) -> None:
        """Remove the `count` cheapest units together and update the others."""
        worst = torch.argsort(self._scores(), stable=True)[:count]
        gone = (worst[:, None] * self._width + torch.arange(self._width)).flatten()
        rows = self._inverse[gone]
        solved = torch.linalg.solve(rows[:, gone], rows)
        # Elimination of these rows and columns from H^-1 leaves the inverse of H without them (Frantar & Alistarh 2022,
        # lemma 1), so H is inverted once for the whole path.
        for matrix in (self._weight, self._weighted, self._inverse):
            matrix.addmm_(matrix[:, gone], solved, alpha=-1)
        self._alive[worst] = False
        if self._alive.sum() < COMPACT_BELOW * len(self._alive):
            self._compact()

    def _scores(self) -> torch.Tensor:
        """Error of removing each unit now, infinite for those that are gone [units]."""
        units, width = len(self._units), self._width
        if width == 1:
            scores = self._weighted.square().sum(dim=0) / self._inverse.diagonal()
        else:
            blocks = self._inverse.view(units, width, units, width).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
            # Elimination has left zeros where units are gone, and those cannot be solved with.
            blocks = torch.where(self._alive[:, None, None], blocks, torch.eye(width, dtype=blocks.dtype))
            columns = self._weighted.view(-1, units, width).permute(1, 2, 0)
            scores = torch.sum(columns * torch.linalg.solve(blocks, columns), dim=(1, 2))
        return torch.where(self._alive, scores, torch.inf)

    def _compact(self) -> None:
        columns = self._alive.repeat_interleave(self._width)
        self._inverse = self._inverse[columns][:, columns].contiguous()
        self._weight = self._weight[:, columns].contiguous()
        self._weighted = self._weighted[:, columns].contiguous()
        self._units = self._units[self._alive]
        self._alive = torch.ones(len(self._units), dtype=torch.bool)


def damped_inverse(statistics: CalibrationStatistics) -> torch.Tensor:
    """The inverse of `damped_hessian`. Raises UserError as that does."""
    return torch.cholesky_inverse(torch.linalg.cholesky(damped_hessian(statistics)))


def damped_hessian(statistics: CalibrationStatistics) -> torch.Tensor:
    """The Hessian with more on its diagonal, as little as makes it positive definite.

    Examples that are few or alike leave directions that no input takes, where sums in single precision give anything
    about zero. That error is a share of the inputs' own second moment: so much damping is always enough. Raises
    UserError for moments that are not finite.
    """
    if not all(bool(torch.isfinite(moments).all()) for moments in (statistics.hessian, statistics.fisher)):
        raise UserError(
            f"The inputs or gradients of {statistics.name} are too large to be squared and summed",
            fix="look for bad rows in the data, or train the model again",
        )
    spread = statistics.hessian.diagonal().mean()
    most = statistics.second.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
    damping = (DAMPING * spread).clamp_min(torch.finfo(torch.float32).eps * most)
    while True:
        hessian = statistics.hessian.clone()
        hessian.diagonal().add_(damping)
        if not torch.linalg.cholesky_ex(hessian).info:
            return hessian
        damping = damping * MORE


def _root(fisher: torch.Tensor) -> torch.Tensor:
    # Not Cholesky: with fewer gradients than outputs F is singular, and rounding may make an eigenvalue negative.
    values, vectors = torch.linalg.eigh(fisher)
    return values.clamp_min(0).sqrt()[:, None] * vectors.T

"""Budgets: how a target is shared among sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sparsebert.errors import UserError
from sparsebert.sparse.sites import Site


@dataclass(frozen=True)
class Uniform:
    """Every site gives up the same fraction of its units (Gordon et al. 2020: "matrix-local")."""

    def keep(self, sites: Sequence[Site], scores: Sequence[torch.Tensor], sparsity: float) -> list[torch.Tensor]:
        """The units to keep, by site."""
        return [site.choose(score, sparsity) for site, score in zip(sites, scores, strict=True)]


@dataclass(frozen=True)
class Erk:
    """Density in proportion to (rows + columns) / (rows * columns), so that small matrices stay denser.

    The Erdős–Rényi scheme of Mocanu et al. 2018 as in RigL (Evci et al. 2020, arXiv:1911.11134, section 3); sites that
    would be denser than dense stay dense, and the rest share what is left.
    """

    def keep(self, sites: Sequence[Site], scores: Sequence[torch.Tensor], sparsity: float) -> list[torch.Tensor]:
        """The units to keep, by site."""
        shares = erk_sparsities(sites, sparsity)
        return [site.choose(score, share) for site, score, share in zip(sites, scores, shares, strict=True)]


@dataclass(frozen=True)
class Global:
    """One threshold for all sites, on the score per weight: the cheapest weights go, wherever they are."""

    def keep(self, sites: Sequence[Site], scores: Sequence[torch.Tensor], sparsity: float) -> list[torch.Tensor]:
        """The units to keep, by site. Raises UserError for n:m patterns, which every group of weights must meet."""
        for site in sites:
            if site.pattern is not None:
                raise UserError("An n:m pattern cannot share a global budget", got=site.name, fix="set budget: uniform")
        sizes = [site.weights // site.units for site in sites]
        per_weight = torch.cat([score / size for score, size in zip(scores, sizes, strict=True)])
        if len(set(sizes)) == 1:
            chosen = keep_highest(per_weight, sparsity)
        else:
            weights = torch.cat([torch.full_like(score, size) for score, size in zip(scores, sizes, strict=True)])
            order = torch.argsort(per_weight, stable=True)
            gone = weights[order].double().cumsum(0) <= sparsity * float(weights.double().sum()) + 0.5
            chosen = torch.ones(len(per_weight), dtype=torch.bool, device=per_weight.device)
            chosen[order[gone]] = False
        return list(chosen.split([site.units for site in sites]))


def keep_highest(scores: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Keep the highest scores [units]; round(sparsity * units) go, of equal scores those that come first."""
    return ~lowest(scores, round(sparsity * len(scores)))


def lowest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """True at the `count` lowest scores [units], of equal ones at those that come first."""
    if count == 0:
        return torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    # Selection, not sorting: the difference is most of the cost of a change of masks.
    threshold = torch.kthvalue(scores, count).values
    found = scores < threshold
    missing = count - int(found.sum())
    found[torch.nonzero(scores == threshold).flatten()[:missing]] = True
    return found


def erk_sparsities(sites: Sequence[Site], sparsity: float) -> list[float]:
    """The sparsity of each site; together they meet `sparsity` over all weights."""
    raw = [(rows + columns) / (rows * columns) for rows, columns in (site.shape for site in sites)]
    dense: set[int] = set()
    while True:
        free = [index for index in range(len(sites)) if index not in dense]
        wanted = (1 - sparsity) * sum(site.weights for site in sites) - sum(sites[index].weights for index in dense)
        scale = wanted / sum(raw[index] * sites[index].weights for index in free) if free else 0.0
        over = {index for index in free if scale * raw[index] > 1}
        if not over:
            return [0.0 if index in dense else 1 - scale * raw[index] for index in range(len(sites))]
        dense |= over

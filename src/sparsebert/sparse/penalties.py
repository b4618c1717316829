"""Penalties: what joins the loss so that weights, units or gates fade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch

from sparsebert.sparse.sites import Site
from sparsebert.sparse.views import check_rate

TINY = 1e-12
Weight = float | Mapping[str, Any]


@dataclass(frozen=True)
class PenaltyView:
    """What a penalty may look at.

    weights: the parameters behind all gates, by name. open: keep probabilities by site [units], None without a gate.
    sparsity: the schedule's value now. multipliers: those of a lagrangian [2]. scores: those that a gate learns, by
    site [units].
    """

    sites: Sequence[Site]
    weights: Mapping[str, torch.Tensor]
    open: Sequence[torch.Tensor] | None
    sparsity: float
    multipliers: torch.Tensor | None
    scores: Sequence[torch.Tensor] = ()


class Penalty(Protocol):
    """A term of the loss."""

    @property
    def weight(self) -> Weight:
        """What it is multiplied with: a number, or a schedule over the training."""
        ...

    @property
    def needs_gate(self) -> bool:
        """True = it is of what only a gate has."""
        ...

    @property
    def needs_scores(self) -> bool:
        """True = it is of the scores of a gate that learns them."""
        ...

    @property
    def multipliers(self) -> int:
        """How many multipliers it learns."""
        ...

    @property
    def learning_rate(self) -> float | None:
        """Of the multipliers; None if there are none."""
        ...

    def value(self, at: PenaltyView) -> torch.Tensor:
        """The term before its weight, a scalar."""
        ...


@dataclass(frozen=True)
class L1:
    """weight * sum |w| over the matrices of the rule. `weight`: a number, or a schedule over the training.

    `of`: `scores` are those of a gate that learns, in the place of weights (EarlyBERT, Chen et al. 2021,
    arXiv:2101.00063, section 3, of coefficients of heads and neurons).
    """

    weight: Weight = 1e-5
    of: Literal["weights", "scores"] = "weights"
    multipliers: int = field(default=0, init=False)
    learning_rate: float | None = field(default=None, init=False)

    def value(self, at: PenaltyView) -> torch.Tensor:
        """The term before its weight, a scalar."""
        weights = [at.weights[name] for site in at.sites for name in site.scored]
        return torch.stack([one.abs().sum() for one in (at.scores if self.needs_scores else weights)]).sum()

    @property
    def needs_gate(self) -> bool:
        """Where it is of scores."""
        return self.needs_scores

    @property
    def needs_scores(self) -> bool:
        """Where it is said to be."""
        return self.of == "scores"


@dataclass(frozen=True)
class GroupLasso:
    """weight * sum over units of sqrt(size) * ||w of the unit||_2 (Yuan & Lin 2006, eq. 2.1).

    For heads and neurons; `weight`: a number, or a schedule over the training.
    """

    weight: Weight = 1e-5
    needs_gate: bool = field(default=False, init=False)
    needs_scores: bool = field(default=False, init=False)
    multipliers: int = field(default=0, init=False)
    learning_rate: float | None = field(default=None, init=False)

    def value(self, at: PenaltyView) -> torch.Tensor:
        """The term before its weight, a scalar."""
        terms = []
        for site in at.sites:
            squares = site.pool({name: at.weights[name].square() for name in site.scored})
            # Of a unit that is zero the root has no gradient; the clamp gives it zero.
            terms.append((site.weights / site.units) ** 0.5 * squares.clamp_min(TINY).sqrt().sum())
        return torch.stack(terms).sum()


@dataclass(frozen=True)
class L0:
    """weight * the fraction of weights that is expected to stay (Louizos et al. 2018, arXiv:1712.01312, eq. 12).

    With a `soft_movement` gate that of Sanh et al. 2020, arXiv:2005.07683, section 4. `weight`: a number or a schedule.
    """

    weight: Weight = 1.0
    needs_gate: bool = field(default=True, init=False)
    needs_scores: bool = field(default=False, init=False)
    multipliers: int = field(default=0, init=False)
    learning_rate: float | None = field(default=None, init=False)

    def value(self, at: PenaltyView) -> torch.Tensor:
        """The term before its weight, a scalar."""
        return _density(at)


@dataclass(frozen=True)
class Lagrangian:
    """a * (s - t) + b * (s - t)^2, of the expected sparsity s and the scheduled one t; a and b are learned by ascent.

    Wang et al. 2020, arXiv:1910.04732, eq. 5, as used by CoFi, arXiv:2204.00408, eq. 4. `lr` is the multipliers'. What
    a gate feels of the penalty is a multiplier over the number of gates: where these are millions of single weights,
    multipliers must reach hundreds (as the weight does in arXiv:2005.07683), so `lr` must be near 1.
    """

    lr: float = 1e-2
    weight: Weight = field(default=1.0, init=False)
    needs_gate: bool = field(default=True, init=False)
    needs_scores: bool = field(default=False, init=False)
    multipliers: int = field(default=2, init=False)

    def __post_init__(self) -> None:
        check_rate(self.lr)

    @property
    def learning_rate(self) -> float | None:
        """Of the multipliers."""
        return self.lr

    def value(self, at: PenaltyView) -> torch.Tensor:
        """The term before its weight, a scalar."""
        assert at.multipliers is not None
        off = 1 - _density(at) - at.sparsity
        # The value of the multipliers with their gradient reversed: what descends for the rest ascends for them.
        ascending = 2 * at.multipliers.detach() - at.multipliers
        return ascending[0] * off + ascending[1] * off.square()


def _density(at: PenaltyView) -> torch.Tensor:
    assert at.open is not None
    kept = [one.sum() * (site.weights / site.units) for site, one in zip(at.sites, at.open, strict=True)]
    return torch.stack(kept).sum() / sum(site.weights for site in at.sites)

"""Updates: how masks change. Pure functions of a Moment; an update's own memory is in `moment.state`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch

from sparsebert.errors import UserError
from sparsebert.recipe.schema import Component
from sparsebert.sparse.budgets import lowest
from sparsebert.sparse.schedules import Times, moment, schedule_of
from sparsebert.sparse.sites import Site
from sparsebert.sparse.views import State

Keeps = list[torch.Tensor]
SLACK = 1e-6


class Budget(Protocol):
    """How a target is shared; see sparse.budgets."""

    def keep(self, sites: Sequence[Site], scores: Sequence[torch.Tensor], sparsity: float) -> Keeps:
        """The units to keep, by site."""
        ...


@dataclass(frozen=True)
class Moment:
    """A step at which masks may change.

    sparsity: the schedule's value now. keeps: units kept so far, by site [units] bool. score(role): unit scores by
    site. state: what the update remembers, saved with the run; change it in place. start, stop: first and last moment.
    """

    step: int
    sparsity: float
    sites: tuple[Site, ...]
    keeps: Keeps
    budget: Budget
    score: Callable[[str], list[torch.Tensor]]
    state: State
    times: Times
    start: int
    stop: int
    final: float


class Update(Protocol):
    """How masks change.

    `holds`: what is masked stays zero. `rewinds`: weights go back to a snapshot. `keeps_patterns`: n:m is met.
    `replaces_step`: masks change instead of the weights.
    """

    @property
    def holds(self) -> bool:
        """False = masks are applied once and not again."""
        ...

    @property
    def rewinds(self) -> bool:
        """True = after a change all weights that stay are those of step `snapshot_step`."""
        ...

    @property
    def keeps_patterns(self) -> bool:
        """True = what it keeps is what a budget chose, so that n:m patterns are met."""
        ...

    @property
    def replaces_step(self) -> bool:
        """True = where masks change, the optimiser takes no step, on any weight of the model."""
        ...

    def roles(self, criterion: Component) -> Mapping[str, Component]:
        """The criteria it needs by role, given the rule's own."""
        ...

    def snapshot_step(self, times: Times) -> int:
        """The step whose weights are kept for rewinding."""
        ...

    def masks(self, at: Moment) -> Keeps:
        """The units to keep from now on."""
        ...


@dataclass(frozen=True)
class Prune:
    """Remove the lowest scores, as many as the schedule asks for; what is gone stays gone."""

    holds: bool = field(default=True, init=False)
    rewinds: bool = field(default=False, init=False)
    keeps_patterns: bool = field(default=True, init=False)
    replaces_step: bool = field(default=False, init=False)

    def roles(self, criterion: Component) -> Mapping[str, Component]:
        """The rule's criterion."""
        return {"drop": criterion}

    def snapshot_step(self, times: Times) -> int:
        """None is needed."""
        return -1

    def masks(self, at: Moment) -> Keeps:
        """Raises UserError for a target under the current sparsity."""
        return _prune(at, at.sparsity)


@dataclass(frozen=True)
class Delete:
    """Set the lowest scores to zero, once, and let them learn again.

    As many as the target says, whatever the way there. Information deletion: Gordon et al. 2020, arXiv:2002.08307,
    section 3.3.
    """

    holds: bool = field(default=False, init=False)
    rewinds: bool = field(default=False, init=False)
    keeps_patterns: bool = field(default=True, init=False)
    replaces_step: bool = field(default=False, init=False)

    def roles(self, criterion: Component) -> Mapping[str, Component]:
        """The rule's criterion."""
        return {"drop": criterion}

    def snapshot_step(self, times: Times) -> int:
        """None is needed."""
        return -1

    def masks(self, at: Moment) -> Keeps:
        """Once, at the first moment that asks for anything; afterwards nothing is removed."""
        if "done" in at.state or at.sparsity <= 0:
            return [torch.ones_like(keep) for keep in at.keeps]
        at.state["done"] = torch.ones(1)
        return _prune(at, at.final)


@dataclass(frozen=True)
class Rewind:
    """Iterative magnitude pruning: at each moment prune, and put the rest back to its values at step `to`.

    Frankle & Carbin 2019, arXiv:1803.03635, with late rewinding, Frankle et al. 2020, arXiv:1912.05671. All weights of
    the model go back, those outside the scope too; the optimiser's state is dropped, and so is the gradient at hand,
    which was of other weights. Steps count on, and the learning rate goes on along its schedule: for one that starts
    anew with each round, give each round a phase that `resets`.
    """

    to: Mapping[str, Any] = field(default_factory=lambda: {"steps": 0})
    holds: bool = field(default=True, init=False)
    rewinds: bool = field(default=True, init=False)
    keeps_patterns: bool = field(default=True, init=False)
    replaces_step: bool = field(default=False, init=False)

    def roles(self, criterion: Component) -> Mapping[str, Component]:
        """The rule's criterion."""
        return {"drop": criterion}

    def snapshot_step(self, times: Times) -> int:
        """The step `to`."""
        return moment(self.to, times)

    def masks(self, at: Moment) -> Keeps:
        """Raises UserError for a change of masks before the snapshot, and for a target under the current sparsity."""
        if at.step < self.snapshot_step(at.times):
            raise UserError(
                "Weights cannot go back to a step that has not come yet",
                got=f"masks change at step {at.step}, rewinding to {self.snapshot_step(at.times)}",
                fix="set the rule's start after `to`",
            )
        return _prune(at, at.sparsity)


@dataclass(frozen=True)
class Swap:
    """At each moment drop the lowest and grow the best of what is not kept, so that the number stays.

    Where the schedule asks for more zeros than before, units are pruned first; with a constant one that is at the first
    moment alone, and on the way to a target this is gradual pruning with regrowth (Liu et al. 2021, arXiv:2106.10404).
    RigL grows by gradient (Evci et al. 2020, arXiv:1911.11134, section 3), SET at random (Mocanu et al. 2018,
    arXiv:1707.04780), and with `fraction` 0 a static mask is left. `fraction` of the kept units is swapped, a number or
    a schedule over the training (`start` and `stop` as in rules). What was just dropped may grow again. `init`: the
    first mask keeps units at `random`, as in RigL, or the best by the rule's `criterion`. Grown weights start at zero.
    A step that changes masks does so instead of moving weights (Evci et al. 2020, Algorithm 1): the gradient at hand is
    of other weights.
    """

    grow: Mapping[str, Any] | str = "gradient"
    # As in RigL's experiments: 0.3, falling as a cosine, until three quarters of the training.
    fraction: Mapping[str, Any] | float = field(
        default_factory=lambda: {"kind": "cosine", "initial": 0.3, "final": 0.0, "stop": {"percent": 75}}
    )
    init: Literal["criterion", "random"] = "criterion"
    holds: bool = field(default=True, init=False)
    rewinds: bool = field(default=False, init=False)
    keeps_patterns: bool = field(default=False, init=False)
    replaces_step: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.fraction, Mapping) and not 0 <= self.fraction <= 1:
            raise ValueError(f"the fraction must lie between 0 and 1, got {self.fraction:g}")

    def roles(self, criterion: Component) -> Mapping[str, Component]:
        """The rule's criterion to drop by, and `grow`; noise where the first mask is random."""
        roles = {"drop": criterion, "grow": Component.model_validate(self.grow)}
        return roles | ({"init": Component(kind="random")} if self.init == "random" else {})

    def snapshot_step(self, times: Times) -> int:
        """None is needed."""
        return -1

    def masks(self, at: Moment) -> Keeps:
        """The first mask when one is asked for, swaps afterwards. Raises UserError as Prune does."""
        share = schedule_of(self.fraction, at.times)(at.step)
        asked, keeps = float(at.state.get("asked", torch.zeros(1))), at.keeps
        if at.sparsity > asked:
            keeps = _prune(at, at.sparsity, "init" if asked == 0 and self.init == "random" else "drop")
            # Rounded to single precision it could lie under a constant schedule, and every moment would prune again.
            at.state["asked"] = torch.tensor([at.sparsity], dtype=torch.float64)
        if asked == 0 or at.step >= at.times.total - 1:
            # What grows in the last step, in which no weight then moves, or after it would stay zero.
            return keeps
        parts = zip(keeps, at.score("drop"), at.score("grow"), strict=True)
        return [swapped(keep, drop, grow, share) for keep, drop, grow in parts]


@dataclass(frozen=True)
class EarlyBird:
    """Adopt the mask at the target once it has stopped changing, then keep it.

    You et al. 2020, arXiv:1909.11957, section 3; EarlyBERT, arXiv:2101.00063. At each moment the mask that the target
    would give is compared with those of the last `window` moments; it is adopted when the largest distance (fraction
    of units that differ) is below `threshold`, at the last moment in any case.
    """

    threshold: float = 0.1
    window: int = 5
    holds: bool = field(default=True, init=False)
    rewinds: bool = field(default=False, init=False)
    keeps_patterns: bool = field(default=True, init=False)
    replaces_step: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1 or self.window < 1:
            raise ValueError("the threshold must lie in (0, 1] and the window be at least 1")

    def roles(self, criterion: Component) -> Mapping[str, Component]:
        """The rule's criterion."""
        return {"drop": criterion}

    def snapshot_step(self, times: Times) -> int:
        """None is needed."""
        return -1

    def masks(self, at: Moment) -> Keeps:
        """The masks as they are until the ticket is drawn, then that one for good. Raises UserError as Prune does."""
        if "drawn" in at.state:
            return at.keeps
        wanted = _prune(at, at.final)
        now, past = torch.cat(wanted), at.state.get("past")
        far = 1.0 if past is None else float((past != now).float().mean(dim=1).max())
        full = past is not None and len(past) >= self.window
        if (full and far < self.threshold) or at.step >= at.stop:
            at.state["drawn"] = torch.tensor([float(at.step)])
            return wanted
        at.state["past"] = now[None] if past is None else torch.cat([past, now[None]])[-self.window :]
        return at.keeps


def swapped(keep: torch.Tensor, drop: torch.Tensor, grow: torch.Tensor, fraction: float) -> torch.Tensor:
    """Of the kept units [units] drop round(fraction * kept) with the lowest `drop`, then grow as many by `grow`."""
    count = round(fraction * int(keep.sum()))
    if count == 0:
        return keep.clone()
    kept = keep.clone()
    kept[keep] = ~lowest(drop[keep], count)
    free = ~kept
    kept[free] = lowest(-grow[free], count)
    return kept


def refuse_return(sites: Sequence[Site], keeps: Sequence[torch.Tensor], sparsity: float) -> None:
    """Raise UserError for a target under the current sparsity, which only units that return could meet."""
    total = sum(site.weights for site in sites)
    removed = sum(site.weights * float((~keep).sum()) / site.units for site, keep in zip(sites, keeps, strict=True))
    largest = max(site.weights / site.units for site in sites)
    # Budgets round to whole units, so that each site may have up to one more removed than was asked.
    if removed > sparsity * total + largest * len(sites) + SLACK:
        raise UserError(
            "The target is under the current sparsity",
            got=f"{sparsity:.3g}",
            allowed=f"at least {removed / total:.3g}",
            fix="raise the rule's sparsity, and its initial",
        )


def _prune(at: Moment, sparsity: float, role: str = "drop") -> Keeps:
    refuse_return(at.sites, at.keeps, sparsity)
    scores = [torch.where(keep, score, -torch.inf) for keep, score in zip(at.keeps, at.score(role), strict=True)]
    found = at.budget.keep(at.sites, scores, sparsity)
    # Where less is asked of a site than is gone already, a budget opens units again, whatever their score.
    return [new & old for new, old in zip(found, at.keeps, strict=True)]

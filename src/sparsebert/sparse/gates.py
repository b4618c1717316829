"""Gates: masks that are learned or can come back. What is drawn once a step, and what weights are multiplied with."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from sparsebert.sparse.sites import Site
from sparsebert.sparse.updates import Budget
from sparsebert.sparse.views import check_rate

# The logit of 0.9: nearly all gates are open at first, so that training starts from the model as it was.
CONVINCED = 2.197
# The factor in CoFi's code, with which the sigmoid comes close to the mean of the noisy gate.
NEAR_MEAN = 0.8
# Keeps uniform noise away from 0 and 1, where its logit is infinite.
EPSILON = 1e-6


@dataclass(frozen=True)
class Draw:
    """What decides the masks of one optimiser step, equal on all processes.

    scores: by site [units]; for gates that learn nothing the pooled |w|.
    """

    sites: Sequence[Site]
    scores: Sequence[torch.Tensor]
    budget: Budget
    sparsity: float
    seed: int
    step: int


class Gate(Protocol):
    """How scores become what weights are multiplied with. All values are by unit of one site [units]."""

    @property
    def learned(self) -> bool:
        """True = the scores are parameters; False = they follow from the weights."""
        ...

    @property
    def scheduled(self) -> bool:
        """True = drawn at the moments of the rule's schedule; False = at every step."""
        ...

    @property
    def noisy(self) -> bool:
        """True = what is drawn is noise; False = what is drawn is the mask itself, 0 or 1."""
        ...

    @property
    def start(self) -> float:
        """The scores' first value."""
        ...

    @property
    def learning_rate(self) -> float | None:
        """Of the scores; None if nothing is learned."""
        ...

    def draw(self, at: Draw) -> list[torch.Tensor]:
        """What stays the same for a whole step, by site."""
        ...

    def training(self, scores: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """The multiplier in passes that record gradients, differentiable by the scores."""
        ...

    def settled(self, scores: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """The multiplier in evaluation and in the finished model."""
        ...

    def open(self, scores: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """The probability that a unit is kept, differentiable by the scores."""
        ...


@dataclass(frozen=True)
class Movement:
    """The top-k of learned scores, with the gradient passed straight through.

    Sanh et al. 2020, arXiv:2005.07683, eq. 2-5: a score falls while its weight moves towards zero. A weight that is
    masked keeps its value, and returns when its score is among the highest again.
    """

    lr: float = 1e-2
    learned: bool = field(default=True, init=False)
    scheduled: bool = field(default=True, init=False)
    noisy: bool = field(default=False, init=False)
    start: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        check_rate(self.lr)

    @property
    def learning_rate(self) -> float | None:
        """Of the scores."""
        return self.lr

    def draw(self, at: Draw) -> list[torch.Tensor]:
        """The highest scores, as the rule's budget shares the sparsity."""
        return _best(at)

    def training(self, scores: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """0 or 1."""
        return _straight(drawn, scores)

    def settled(self, scores: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """0 or 1."""
        return drawn

    def open(self, scores: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """0 or 1."""
        return _straight(drawn, scores)


@dataclass(frozen=True)
class SoftMovement:
    """Kept while sigmoid(score) > threshold (Sanh et al. 2020, arXiv:2005.07683, section 4); wants an l0 penalty.

    `open` has the value of the mask and the gradient of sigmoid(score), so that an l0 penalty is the paper's and a
    lagrangian leads the true sparsity to its target.
    """

    lr: float = 1e-2
    threshold: float = 0.1
    learned: bool = field(default=True, init=False)
    scheduled: bool = field(default=False, init=False)
    noisy: bool = field(default=False, init=False)
    start: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        check_rate(self.lr)
        if not 0 < self.threshold < 0.5:
            raise ValueError(f"the threshold must lie between 0 and 0.5, where scores start, got {self.threshold:g}")

    @property
    def learning_rate(self) -> float | None:
        """Of the scores."""
        return self.lr

    def draw(self, at: Draw) -> list[torch.Tensor]:
        """What lies above the threshold."""
        above = math.log(self.threshold / (1 - self.threshold))
        return [(scores > above).float() for scores in at.scores]

    def training(self, scores: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """0 or 1."""
        return _straight(drawn, scores)

    def settled(self, scores: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """0 or 1."""
        return drawn

    def open(self, scores: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """0 or 1, with the gradient of the sigmoid."""
        return _straight(drawn, torch.sigmoid(scores))


@dataclass(frozen=True)
class HardConcrete:
    """Noisy gates between 0 and 1 that are exactly 0 or 1 with a probability that can be learned.

    Louizos et al. 2018, arXiv:1712.01312, eq. 10-12. Scores are log alpha; they start where sigmoid is 0.9. One draw
    serves all micro-batches of a step. In evaluation, as in CoFi (arXiv:2204.00408, its code), as many units of a site
    are closed as are expected to be, those with the lowest scores, and the others have a value near their mean.
    """

    lr: float = 1e-2
    temperature: float = 2 / 3
    low: float = -0.1
    high: float = 1.1
    learned: bool = field(default=True, init=False)
    scheduled: bool = field(default=False, init=False)
    noisy: bool = field(default=True, init=False)
    start: float = field(default=CONVINCED, init=False)

    def __post_init__(self) -> None:
        check_rate(self.lr)
        if self.temperature <= 0 or self.low >= 0 or self.high <= 1:
            raise ValueError("it must be that temperature > 0, low < 0 and high > 1")

    @property
    def learning_rate(self) -> float | None:
        """Of the scores."""
        return self.lr

    def draw(self, at: Draw) -> list[torch.Tensor]:
        """Log u - log(1 - u) of uniform u, which seed, site and step decide."""
        return [_logistic_noise(f"{at.seed}:{site.name}:{at.step}", site.units) for site in at.sites]

    def training(self, scores: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """Eq. 10-11, in [0, 1]."""
        concrete = torch.sigmoid((drawn + scores) / self.temperature)
        return (concrete * (self.high - self.low) + self.low).clamp(0, 1)

    def settled(self, scores: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """sigmoid(0.8 score / temperature), and exactly 0 for as many units as are expected to be closed."""
        values = torch.sigmoid(NEAR_MEAN * scores / self.temperature)
        # In double precision: over thousands of units a sum in single precision may round to another number.
        closed = round(float((1 - self.open(scores, drawn)).double().sum()))
        return values.index_fill(0, torch.argsort(scores, stable=True)[:closed], 0.0)

    def open(self, scores: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """Eq. 12."""
        return torch.sigmoid(scores - self.temperature * math.log(-self.low / self.high))


@dataclass(frozen=True)
class Coefficient:
    """A learned factor a unit; those of the largest size stay, as many as the rule asks for.

    EarlyBERT, Chen et al. 2021, arXiv:2101.00063, section 3.2 (after network slimming, Liu et al. 2017,
    arXiv:1708.06519): factors start at 1, and a penalty `{kind: l1, of: scores}` draws them apart. At the end they are
    folded into the weights that stay, unless the next phase `resets`.
    """

    lr: float = 1e-2
    learned: bool = field(default=True, init=False)
    scheduled: bool = field(default=True, init=False)
    noisy: bool = field(default=False, init=False)
    start: float = field(default=1.0, init=False)

    def __post_init__(self) -> None:
        check_rate(self.lr)

    @property
    def learning_rate(self) -> float | None:
        """Of the factors."""
        return self.lr

    def draw(self, at: Draw) -> list[torch.Tensor]:
        """The largest in size, as the rule's budget shares the sparsity."""
        # What earlier masks removed comes as -inf, and must not become the largest.
        sizes = [torch.where(torch.isinf(scores), scores, scores.abs()) for scores in at.scores]
        return _best(replace(at, scores=sizes))

    def training(self, scores: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """The factor, or 0."""
        return scores * drawn

    def settled(self, scores: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """The factor, or 0."""
        return scores * drawn

    def open(self, scores: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """0 or 1, without a gradient."""
        return drawn


@dataclass(frozen=True)
class SoftMask:
    """The smallest |w| are masked, yet keep their values, keep learning, and can come back.

    "Dynamic masking and reactivation" (Bhavsar & Pangare, SparseBERT, section III.D). A masked weight has
    the gradient that it would have if it were open.
    """

    learned: bool = field(default=False, init=False)
    scheduled: bool = field(default=True, init=False)
    noisy: bool = field(default=False, init=False)
    start: float = field(default=0.0, init=False)
    learning_rate: float | None = field(default=None, init=False)

    def draw(self, at: Draw) -> list[torch.Tensor]:
        """The largest weights, as the rule's budget shares the sparsity."""
        return _best(at)

    def training(self, scores: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """0 or 1."""
        return drawn

    def settled(self, scores: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """0 or 1."""
        return drawn

    def open(self, scores: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """0 or 1, without a gradient."""
        return drawn


def _best(at: Draw) -> list[torch.Tensor]:
    return [keep.float() for keep in at.budget.keep(at.sites, at.scores, at.sparsity)]


def _straight(values: torch.Tensor, gradient_of: torch.Tensor) -> torch.Tensor:
    """`values` exactly, with the gradient of something else."""
    # A step function of scores has no gradient of its own almost everywhere; this is the straight-through estimator
    # (Bengio et al. 2013, arXiv:1308.3432). The difference is exactly 0, so that masks stay exactly 0 or 1.
    return values + (gradient_of - gradient_of.detach())


def _logistic_noise(key: str, units: int) -> torch.Tensor:
    # A generator of its own, on the CPU: the global one depends on what else was drawn, and other devices have other
    # sequences. The checksum, since Python salts `hash` of a string in every process.
    uniform = torch.rand(units, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
    return torch.logit(uniform, eps=EPSILON)

"""What one trained network loses as parts of it are removed without retraining, and how its weights are spread."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field, model_validator

from sparsebert.recipe.schema import FolderName
from sparsebert.records.measured import Count, Part, Score, Sparsity, Timing


class LayerRank(Part):
    """A layer of the network, and what it was ranked by: the lower, the earlier it goes."""

    layer: int = Field(ge=0)
    value: float = Field(
        description="rise of the mean loss when it is skipped, or the mean |w| of its linear weights; where layers are "
        "ranked anew after each removal, the rise on top of those that were gone before"
    )


class PrunePoint(Part):
    """The network with so much removed, and nothing trained after it."""

    asked: float | None = Field(default=None, ge=0, lt=1, description="part of the weights in scope, of single weights")
    skipped_layers: tuple[int, ...] = Field(default=(), description="of the network, in the order of removal")
    folder: FolderName | None = Field(default=None, description="beside the record, where its network was kept")
    sparsity: Sparsity = Field(description="against the network as it was given, whose own zeros count")
    bytes_on_disk: Count = Field(description="as it would be saved, packed where that is smaller")
    losses: dict[str, float] = Field(description="the task's mean loss by split")
    scores: tuple[Score, ...] = Field(description="on the train rows and on every validation split")
    timings: tuple[Timing, ...] = Field(default=(), description="speedups are over the whole network, in paired rounds")

    @property
    def removed(self) -> float:
        """What was asked for: a part of the weights, or a number of layers."""
        return len(self.skipped_layers) if self.asked is None else self.asked

    def score(self, metric: str, split: str) -> Score | None:
        """None where it has no value."""
        return next((one for one in self.scores if (one.metric, one.split) == (metric, split)), None)


class PruneCurve(Part):
    """One way to remove: the points from the whole network on, each without all that the one before is without."""

    method: Literal["unstructured", "layers"]
    criterion: Literal["l1", "loss"]
    greedy: bool = False
    ranking: tuple[LayerRank, ...] = Field(default=(), description="of layers, the first to go first")
    points: tuple[PrunePoint, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _successive(self) -> PruneCurve:
        removed = [point.removed for point in self.points]
        if removed[0] != 0 or any(after <= before for before, after in pairwise(removed)):
            raise ValueError("the points of a curve begin with the whole network, and remove more and more")
        return self

    @property
    def name(self) -> str:
        """Method and criterion."""
        return f"{self.method}-{self.criterion}"


class WeightHistogram(Part):
    """How many weights of one kind of matrix, over all layers, lie in each of equal bins around zero.

    `below` and `above` lie outside them; exact zeros are counted in `zeros` and in no bin.
    """

    kind: str
    reach: float = Field(gt=0, description="the bins go from minus to plus this")
    counts: tuple[int, ...] = Field(min_length=2)
    below: int
    above: int
    zeros: int

    @model_validator(mode="after")
    def _even(self) -> WeightHistogram:
        if len(self.counts) % 2:
            raise ValueError("the bins of a histogram lie evenly on both sides of zero")
        return self

    @property
    def sizes(self) -> tuple[int, ...]:
        """Counts by |w|, in half as many bins, from zero to `reach`."""
        half = len(self.counts) // 2
        return tuple(low + high for low, high in zip(self.counts[:half][::-1], self.counts[half:], strict=True))


class PruneStudy(Part):
    """The curves of one network, and its weights before anything was removed."""

    within: float = Field(description="points (0-100) below the whole network that count as no drop")
    loss_examples: Count = Field(description="train rows on which the loss was measured that weights are ranked by")
    curves: tuple[PruneCurve, ...] = Field(min_length=1)
    weights: tuple[WeightHistogram, ...] = ()

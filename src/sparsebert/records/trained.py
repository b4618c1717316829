"""What training did: steps, losses, sparsities on the way, and how trees fit."""

from __future__ import annotations

from pydantic import Field

from sparsebert.records.measured import Part


class Evaluation(Part):
    """What a model scored while its training went on."""

    step: int
    split: str
    scores: dict[str, float] = Field(description="by metric; one without a value is absent")
    loss: float | None = None


class TrainingRun(Part):
    """What one call of the trainer did."""

    steps: int
    epochs: float
    examples: int
    seconds: float
    final_loss: float | None = Field(default=None, description="mean over the last full interval between checkpoints")
    dtype: str
    processes: int = Field(default=1, description="that trained together, each on its share of every batch")
    tokens: int | None = Field(default=None, description="seen in training on text, over all starts")
    tokens_per_second: float | None = Field(default=None, description="of the last start, evaluations included")
    utilisation: float | None = Field(
        default=None,
        description="of the same time: the model's floating-point operations over what square products reach here, 0-1",
    )
    teacher: bool
    evaluations: tuple[Evaluation, ...] = ()
    best_step: int | None = Field(default=None, description="of the evaluation whose model was kept; none = the last")
    left_dense: tuple[str, ...] = Field(default=(), description="matrices that no rule and no earlier mask covers")
    energy_kwh: float | None = Field(default=None, description="of all starts of the training, see sparsebert.energy")
    energy_source: str | None = Field(default=None, description="the counters that it is the sum of")
    energy_missing: str | None = Field(default=None, description="why there is no number; none in older records")


class SparsityAt(Part):
    """What the log of a sparse training said at a step: the fraction pruned of all that rules cover."""

    step: int = Field(description="of its phase")
    loss: float
    phase: str | None = None
    sparsity: float | None = None
    more: dict[str, float] = Field(default={}, description="what single rules say, for example reactivated units")


class TreeFit(Part):
    """How one layer's fast feedforward layer does; lists are by level of its trees, means over the trees.

    error: after block-wise distillation, squared error on held-out tokens over the variance of the block's output (1 =
    no better than the mean). The rest is of the finished model on the same tokens (see fast_feedforward/routing.py).
    """

    layer: int
    name: str
    error: float
    dead: float = Field(description="fraction of nodes that no token visits")
    dead_subtrees: tuple[float, ...] = Field(
        default=(),
        description="subtrees of a tree that no token enters, by the level of their root, none inside another",
    )
    entropy: tuple[float, ...] = Field(min_length=1, description="of the visits, over that of an even spread")
    agreement: tuple[float, ...] = Field(default=(), description="part of neighbouring tokens at the same node")
    chance: tuple[float, ...] = Field(default=(), description="the same for tokens that are not neighbours")

"""The parts of a recipe: frozen plain values, strict about unknown keys."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Plain(BaseModel):
    """Base of every recipe part: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Columns(Plain):
    """Where text and label sit in the user's own file."""

    text: tuple[str, ...] = ()
    label: str = "label"
    kind: Literal["classification", "regression"] = "classification"


class Training(Plain):
    """One call of the trainer. `max_steps` wins over `epochs` when it is positive, as in transformers."""

    epochs: float = Field(default=2.0, gt=0)
    max_steps: int = Field(default=-1, ge=-1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=5e-5, gt=0)
    warmup: float = Field(default=0.06, ge=0, lt=1, description="fraction of the steps")
    weight_decay: float = Field(default=0.01, ge=0)
    lr_schedule: Literal["linear", "cosine", "constant_with_warmup", "one_cycle"] = Field(
        default="linear", description="after warm-up; one_cycle is Smith & Topin 2018, arXiv:1708.07120"
    )
    save_steps: int = Field(default=200, ge=1, description="optimiser steps between checkpoints")
    freeze_embeddings: bool = Field(default=False, description="leave token and position embeddings as they are")
    dropout: bool = Field(
        default=True, description="false = no dropout while training, as suits learning from a teacher"
    )


class Recovery(Training):
    """Training of a cut model, from its teacher: a higher rate, and no dropout, as the teacher is the regulariser."""

    learning_rate: float = Field(default=1e-4, gt=0)
    dropout: bool = False


class Distill(Plain):
    """Weights of the terms of the loss; the teacher is the dense fine-tuned model.

    loss = labels * task loss + logits * T^2 * KL(teacher || student) + hidden * normalised squared error of the
    outputs of the layers + attention * squared error of the attention maps (Hinton et al. 2015, arXiv:1503.02531, and
    TinyBERT, arXiv:1909.10351, eq. 7-8).
    """

    labels: float = Field(default=0.2, ge=0)
    logits: float = Field(default=0.8, ge=0)
    hidden: float = Field(default=1.0, ge=0)
    attention: float = Field(default=0.0, ge=0, description="of `train` only: the student must have all its heads")
    match: Literal["kept", "nearest"] = Field(
        default="kept",
        description="each layer learns from the one it was, or each of the teacher's teaches the nearest (CoFi, eq. 6)",
    )
    temperature: float = Field(default=2.0, gt=0)


class Measure(Plain):
    """The setting that a speed or latency target is about."""

    batch: int = Field(default=1, ge=1)
    length: int | None = Field(
        default=None, ge=1, description="tokens; none = the median length of the validation split"
    )
    rounds: int = Field(default=15, ge=3, description="interleaved rounds, after warm-up")
    also: tuple[tuple[int, int | None], ...] = Field(
        default=(), description="further (batch, length) settings to report"
    )
    threads: int | None = Field(default=None, ge=1, description="none = what torch would use")
    timed: bool = Field(default=True, description="false = no timings of the finished models, as in long sweeps")


class Trees(Plain):
    """Fast feedforward layers in place of feedforward blocks, first taught block by block, then trained together.

    `soft`, `hardening` and `balance` are of the teaching (see Routing); later training takes hard ways only.
    """

    trees: int = Field(default=1, ge=1)
    depth: int | None = Field(
        default=None, ge=0, le=20, description="none = the shallowest tree(s) with at least the block's neurons"
    )
    layers: tuple[int, ...] | None = Field(default=None, description="from 0; none = all")
    activation: Literal["gelu", "relu"] = "gelu"
    examples: int = Field(default=1024, ge=8, description="of the train split, whose tokens are taught on")
    steps: int = Field(default=2000, ge=1, description="of the teaching, a layer")
    tokens: int = Field(default=512, ge=1, description="a step")
    learning_rate: float = Field(default=2e-3, gt=0, description="of the teaching")
    soft: bool = False
    hardening: float = Field(default=0.0, ge=0)
    balance: float = Field(default=0.0, ge=0)
    controls: bool = Field(
        default=True, description="also models without these blocks, and with as many dense neurons as a token uses"
    )


class Search(Plain):
    """How much the search may look at: calibration examples (of the train split) and candidate shapes."""

    examples: int = Field(default=1024, ge=8)
    score_examples: int = Field(default=256, ge=8, description="of those, the ones that candidates are scored on")
    candidates: int = Field(default=100, ge=0)
    drop_layers: bool = True


class Target(Plain):
    """One member of the family: a speedup, a whole-model latency, a part of the bytes, or a sparsity."""

    kind: Literal["speedup", "latency_ms", "size", "sparsity"]
    value: float

    @model_validator(mode="after")
    def _in_range(self) -> Target:
        ranges = {"speedup": (1, 1000), "latency_ms": (0, 1e6), "size": (0, 1), "sparsity": (0, 1)}
        low, high = ranges[self.kind]
        if not low < self.value < high:
            raise ValueError(f"target {self.kind} must lie between {low} and {high}, got {self.value:g}")
        return self

    @property
    def label(self) -> str:
        """Short name, also the member's folder."""
        suffix = {"speedup": "x", "latency_ms": "ms", "size": "-size", "sparsity": "-sparsity"}[self.kind]
        return f"{self.value:g}{suffix}"


class When(Plain):
    """A moment or a period of training, in exactly one unit; turned into optimiser steps once, when training starts."""

    steps: int | None = Field(default=None, ge=0)
    epochs: float | None = Field(default=None, ge=0)
    percent: float | None = Field(default=None, ge=0, le=100, description="of all steps of the phase")

    @model_validator(mode="after")
    def _one_unit(self) -> When:
        if sum(value is not None for value in (self.steps, self.epochs, self.percent)) != 1:
            raise ValueError("give exactly one of steps, epochs and percent")
        return self

    def in_steps(self, total: int, per_epoch: float) -> int:
        """The moment in optimiser steps, of `total` in the phase and `per_epoch` in an epoch."""
        if self.steps is not None:
            return self.steps
        if self.epochs is not None:
            return round(self.epochs * per_epoch)
        assert self.percent is not None
        return round(self.percent * total / 100)


class Component(BaseModel):
    """A registered component and its options: `{kind: block, rows: 4, cols: 4}`, or only its name where it has none.

    The options are the keyword arguments of what the registry holds under that name; `registry.make` checks them.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: str

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.__pydantic_extra__ or {})


class Rule(Plain):
    """What is made sparse, how, and when: one row of a phase's sparsity.

    Masks change every `every`, from `start` to `stop`, on the way from `initial` to `sparsity`. A gate, where there
    is one, takes the place of criterion and update: its masks are learned.
    """

    scope: tuple[str, ...] = Field(
        default=("attention", "ffn"), min_length=1, description="attention, ffn, embeddings, all, or name patterns"
    )
    structure: Component = Component(kind="element")
    criterion: Component = Component(kind="magnitude")
    budget: Component = Component(kind="uniform")
    schedule: Component = Component(kind="cubic")
    update: Component = Component(kind="prune")
    gate: Component | None = None
    penalty: Component | None = None
    sparsity: float | None = Field(default=None, ge=0, lt=1, description="none = the recipe's")
    initial: float = Field(default=0.0, ge=0, lt=1)
    start: When = When(percent=0)
    stop: When = When(percent=70)
    every: When = When(percent=2)

    def components(self) -> list[tuple[str, Component]]:
        """The registered parts with their kinds."""
        found = [(name, getattr(self, name)) for name in ("structure", "criterion", "budget", "schedule", "update")]
        return found + [(name, part) for name in ("gate", "penalty") if (part := getattr(self, name)) is not None]


class Phase(Plain):
    """One stretch of training. Masks of earlier phases stay; a rule that covers a tensor takes its mask over.

    `teacher`: `dense` is the recipe's model fine-tuned without rules, anything else a folder or hub name of a
    fine-tuned model; none = labels only. `resets` puts the weights back to what the first phase started from, under
    the masks found (a lottery ticket, arXiv:1803.03635).
    """

    name: str = "sparse"
    training: Training = Training()
    teacher: str | None = None
    resets: bool = False
    distill: Distill = Distill()
    rules: tuple[Rule, ...] = ()

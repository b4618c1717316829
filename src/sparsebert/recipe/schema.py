"""The parts of a recipe: frozen plain values, strict about unknown keys."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.recipe.plain_yaml import check_plain, check_text

if TYPE_CHECKING:
    from sparsebert.pruning.target_kinds import TargetKind

# More than any machine gains from; far more end the process, as each is a thread of the system.
MOST_THREADS = 1024
# File systems take 255 bytes; what a run puts in front of a name and behind it has the rest.
LONGEST_NAME = 150
MARKS = " -_.,+=:()"
# Of anything that is counted: more than any run has, and far from where integers of 64 bits end.
MOST = 10**12


def folder_name(value: str) -> str:
    """The value, if it may be the name of a folder. Raises ValueError if it could lead elsewhere or cannot be one."""
    sound = value and value == value.strip() and not value.startswith(".") and len(value.encode()) <= LONGEST_NAME
    if not sound or not all(letter.isalnum() or letter in MARKS for letter in value):
        raise ValueError(
            f"it names a folder, so it takes letters, digits, spaces and {MARKS.strip()}, at most {LONGEST_NAME} "
            f"bytes, and no dot in front; got {value!r}"
        )
    return value


def _one_line(value: str) -> str:
    check_text(value)
    if len(value) > LONGEST_NAME or not value.isprintable():
        raise ValueError(f"it must be one line of at most {LONGEST_NAME} letters")
    return value


def registered(kind: str, name: str) -> str:
    """The name of a component of this kind, the user's own included. Raises ValueError for one that is not found."""
    try:
        registry.check(kind, name)
    except UserError as error:
        raise ValueError(str(error)) from None
    return name


UnitCriterionName = Annotated[str, AfterValidator(partial(registered, "unit_criterion"))]
# Every text of a recipe or a record that becomes a part of a path, or is shown as a title, is one of these.
FolderName = Annotated[str, AfterValidator(folder_name)]
Title = Annotated[str, AfterValidator(_one_line)]


class Plain(BaseModel, frozen=True):
    """Base of every recipe part: frozen; an unknown key is an error, and so is a number no run can have."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _within_reason(cls, value: Any) -> Any:
        if isinstance(value, int | float) and abs(value) > MOST:
            raise ValueError(f"a number must lie within {MOST:.0e}, got {value:g}")
        if isinstance(value, str):
            check_text(value)
        return value


class Columns(Plain, frozen=True):
    """Where text and label sit in the user's own file."""

    text: tuple[str, ...] = Field(
        default=(), description="one text column, or two for pairs; none given = the column `text`"
    )
    label: str | tuple[str, ...] = Field(
        default="label", description="the label column; for multilabel also a list of columns of 0 and 1, one a label"
    )
    kind: Annotated[str, AfterValidator(partial(registered, "task_kind"))] = Field(
        default="classification",
        description="what labels are, such as one class a text (classification) or a number (regression); one of your "
        "own as package.module:name",
    )
    delimiter: str | None = Field(
        default=None,
        description="of CSV: one character, \\t for a tab; null = comma, semicolon, tab or bar, as is found",
    )
    encoding: str | None = Field(
        default=None, description="of CSV and JSONL, such as cp1252; null = by the byte order mark, else UTF-8"
    )

    @field_validator("text", mode="before")
    @classmethod
    def _one_text(cls, value: Any) -> Any:
        """A single column needs no list."""
        return (value,) if isinstance(value, str) else value


class When(Plain, frozen=True):
    """A moment or a period of training, in exactly one unit; turned into optimiser steps once, when training starts."""

    steps: int | None = Field(default=None, ge=0, description="optimiser steps")
    epochs: float | None = Field(default=None, ge=0, description="passes over the training examples")
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


class Evaluate(Plain, frozen=True):
    """Scores while training goes on, by which it may end early, and the best checkpoint may be kept.

    What is chosen on `validation` is scored on the rows that it was chosen on: such a score is the best of several.
    """

    every: When = Field(default=When(epochs=1.0), description="a period of training")
    split: Literal["held_out", "validation"] = Field(
        default="held_out",
        description="held_out: train rows that are not trained on; validation: the split that decides",
    )
    hold_out: float = Field(default=0.1, gt=0, lt=0.9, description="part of the train rows, where they are held out")
    patience: int | None = Field(
        default=None,
        ge=1,
        description="end after so many evaluations without a better main metric, or an equal one with a smaller loss; "
        "null = no early end",
    )
    keep: Literal["best", "last"] = Field(default="best", description="which checkpoint the model is in the end")


class Training(Plain, frozen=True):
    """One call of the trainer. `max_steps` wins over `epochs` when it is positive, as in transformers."""

    epochs: float = Field(default=2.0, gt=0, description="passes over the training examples")
    max_steps: int = Field(default=-1, ge=-1, description="optimiser steps; -1 = as many as `epochs` says")
    batch_size: int = Field(default=32, ge=1, description="examples a step")
    learning_rate: float = Field(default=5e-5, gt=0, description="highest rate of AdamW, after warm-up")
    warmup: float = Field(default=0.06, ge=0, lt=1, description="fraction of the steps")
    weight_decay: float = Field(default=0.01, ge=0, description="of AdamW")
    lr_schedule: Literal["linear", "cosine", "constant_with_warmup", "one_cycle", "triangular"] = Field(
        default="linear",
        description="after warm-up; one_cycle is Smith & Topin 2018, arXiv:1708.07120; triangular that of crammed "
        "BERT, arXiv:2212.14034, straight up from a quarter of the rate and straight down, with warmup 0.75",
    )
    save_steps: int = Field(default=200, ge=1, description="optimiser steps between checkpoints")
    freeze_embeddings: bool = Field(default=False, description="leave token and position embeddings as they are")
    dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="rate of every dropout of the model while training; 0 = none, as suits learning from a teacher; "
        "null = the model's own rates",
    )
    evaluate: Evaluate | None = Field(default=None, description="scores while training; null = only in the end")


def check_held_out(*trainings: tuple[str, Training | None]) -> None:
    """Raises ValueError where a training is to be scored on held-out rows that an earlier one of its run trains on."""
    shares = {name: _held_out(training) for name, training in trainings if training is not None}
    for (before, first), (after, second) in pairwise(shares.items()):
        if second and first != second:
            raise ValueError(
                f"{after} is scored on train rows that {before} is trained on; give both the same evaluate.hold_out"
            )


def _held_out(training: Training) -> float:
    evaluate = training.evaluate
    return evaluate.hold_out if evaluate is not None and evaluate.split == "held_out" else 0.0


class Recovery(Training, frozen=True):
    """Training of a cut model, from its teacher: a higher rate, and no dropout, as the teacher is the regulariser."""

    learning_rate: float = Field(default=1e-4, gt=0, description="highest rate of AdamW, after warm-up")
    dropout: float | None = Field(
        default=0.0, ge=0, lt=1, description="rate of every dropout while training; null = the model's own rates"
    )


class Distill(Plain, frozen=True):
    """Weights of the terms of the loss; the teacher is the dense fine-tuned model.

    loss = labels * task loss + logits * T^2 * KL(teacher || student) + hidden * normalised squared error of the
    outputs of the layers + attention * squared error of the attention maps (Hinton et al. 2015, arXiv:1503.02531, and
    TinyBERT, arXiv:1909.10351, eq. 7-8).
    """

    labels: float = Field(default=0.2, ge=0, description="weight of the task's own loss")
    logits: float = Field(default=0.8, ge=0, description="weight of the teacher's logits")
    hidden: float = Field(default=1.0, ge=0, description="weight of the outputs of the teacher's layers")
    attention: float = Field(
        default=0.0,
        ge=0,
        description="weight of the teacher's attention maps; of `train` only: the student must have all its heads",
    )
    match: Literal["kept", "nearest"] = Field(
        default="kept",
        description="each layer learns from the one it was, or each of the teacher's teaches the nearest (CoFi, eq. 6)",
    )
    temperature: float = Field(default=2.0, gt=0, description="T, by which logits are divided")


class Measure(Plain, frozen=True):
    """The setting that a speed or latency target is about."""

    batch: int = Field(default=1, ge=1, description="texts a forward pass")
    length: int | None = Field(
        default=None, ge=1, description="tokens; null = the median length of the validation split"
    )
    rounds: int = Field(default=15, ge=3, description="interleaved rounds, after warm-up")
    also: tuple[tuple[int, int | None], ...] = Field(
        default=(), description="further (batch, length) settings to report"
    )
    threads: int | None = Field(default=None, ge=1, le=MOST_THREADS, description="null = what torch would use")
    timed: bool = Field(default=True, description="false = no timings of the finished models, as in long sweeps")
    energy: bool = Field(
        default=False,
        description="true = also the energy of 1,000 texts of every finished model, where the machine can tell it",
    )
    runtime: Annotated[str, AfterValidator(partial(registered, "runtime"))] = Field(
        default="eager",
        description="in which targets of speed and latency are measured; where it runs a model as one program "
        "(compile, onnx) a speedup is of the whole model, not of the encoder",
    )


class Trees(Plain, frozen=True):
    """Fast feedforward layers in place of feedforward blocks, first distilled block by block, then trained together.

    `soft`, `hardening` and `balance` are of both, and are saved with the model; a finished model takes hard paths only.
    """

    trees: int = Field(default=1, ge=1, description="trees side by side in a layer, whose outputs are summed")
    depth: int | None = Field(
        default=None, ge=0, le=20, description="null = the shallowest tree(s) with at least the block's neurons"
    )
    layers: tuple[int, ...] | None = Field(default=None, description="from 0; null = all")
    activation: Literal["gelu", "relu"] = Field(default="gelu", description="of the neurons")
    examples: int = Field(default=1024, ge=8, description="of the train split, whose tokens are distilled on")
    steps: int = Field(default=2000, ge=1, description="of the block-wise distillation, a layer")
    tokens: int = Field(default=512, ge=1, description="a step")
    learning_rate: float = Field(default=2e-3, gt=0, description="of the block-wise distillation")
    soft: bool = Field(default=False, description="true = a token takes both children of a node, each with a share")
    hardening: float = Field(default=0.0, ge=0, description="weight of a term that makes shares 0 or 1")
    balance: float = Field(default=0.0, ge=0, description="weight of a term that spreads tokens over the nodes")
    controls: bool = Field(
        default=True, description="also models without these blocks, and with as many dense neurons as a token uses"
    )


class Search(Plain, frozen=True):
    """How much the search may look at: calibration examples (of the train split) and candidate shapes."""

    examples: int = Field(default=1024, ge=8, description="calibration examples")
    score_examples: int = Field(default=256, ge=8, description="of those, the ones that candidates are scored on")
    candidates: int = Field(default=100, ge=0, description="shapes tried in the local search; 0 = none")
    drop_layers: bool = Field(default=True, description="whether whole layers may go")


class Target(Plain, frozen=True):
    """One member of the family: a speedup, a whole-model latency, a part of the bytes, or a sparsity."""

    kind: str = Field(
        description="speedup: times faster encoder; latency_ms: milliseconds a forward pass; size: part of the bytes "
        "on disk; sparsity: part of the encoder's weights to remove; or your own, as package.module:NAME"
    )
    value: float = Field(description="speedup above 1, latency above 0, size and sparsity between 0 and 1")

    @model_validator(mode="after")
    def _in_range(self) -> Target:
        try:
            low, high = self.rules.low, self.rules.high
        except UserError as error:
            raise ValueError(str(error)) from None
        if not low < self.value < high:
            raise ValueError(f"target {self.kind} must lie between {low} and {high}, got {self.value:g}")
        folder_name(self.label)
        return self

    @property
    def rules(self) -> TargetKind:
        """What its kind says about ranges, budgets and what was achieved."""
        return registry.get("target", self.kind)

    @property
    def label(self) -> str:
        """Short name, also the member's folder."""
        return f"{self.value:g}{self.rules.suffix}"


class RecordedTarget(BaseModel):
    """A target as a record tells it: one of a kind of somebody's own is not checked, as a reader need not have it."""

    kind: str
    value: float

    @model_validator(mode="after")
    def _in_range(self) -> RecordedTarget:
        if self.kind in registry.names("target"):
            Target(kind=self.kind, value=self.value)
        return self


class Component(BaseModel):
    """A registered component and its options: `{kind: block, rows: 4, cols: 4}`, or only its name where it has none.

    The options are the keyword arguments of what the registry holds under that name; `registry.make` checks them.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: str

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        if isinstance(value, dict):
            check_plain(value)
        return {"kind": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.__pydantic_extra__ or {})


class Rule(Plain, frozen=True):
    """What is made sparse, how, and when: one row of a phase's sparsity.

    Masks change every `every`, from `start` to `stop`, on the way from `initial` to `sparsity`. A gate, where there
    is one, takes the place of criterion and update: its masks are learned, and go on changing after `stop`, at the
    target. One that closes gates by their values (hard_concrete, soft_movement) reads neither `every` nor the budget.
    """

    scope: tuple[str, ...] = Field(
        default=("attention", "ffn"),
        min_length=1,
        description="attention, ffn, embeddings, word_embeddings, all, or name patterns",
    )
    structure: Component = Field(default=Component(kind="element"), description="what goes as one")
    criterion: Component = Field(default=Component(kind="magnitude"), description="which units go first")
    budget: Component = Field(default=Component(kind="uniform"), description="how the target is shared among matrices")
    schedule: Component = Field(default=Component(kind="cubic"), description="the way from `initial` to `sparsity`")
    update: Component = Field(default=Component(kind="prune"), description="how masks change")
    gate: Component | None = Field(default=None, description="masks that are learned, or whose weights go on learning")
    penalty: Component | None = Field(default=None, description="a term of the loss that drives weights or gates down")
    sparsity: float | None = Field(
        default=None, ge=0, lt=1, description="target, the fraction removed; null = the recipe's"
    )
    initial: float = Field(default=0.0, ge=0, lt=1, description="sparsity at `start`")
    start: When = Field(default=When(percent=0), description="when masks first change")
    stop: When = Field(default=When(percent=70), description="when they last change, at the target")
    every: When = Field(default=When(percent=2), description="the time between two changes")

    def components(self) -> list[tuple[str, Component]]:
        """The registered parts with their kinds."""
        found = [(name, getattr(self, name)) for name in ("structure", "criterion", "budget", "schedule", "update")]
        return found + [(name, part) for name in ("gate", "penalty") if (part := getattr(self, name)) is not None]


class Phase(Plain, frozen=True):
    """One stretch of training.

    Masks of earlier phases stay: a rule that prunes single weights takes them over; gates, units and deletion work on
    what they leave.

    `teacher`: `dense` is the recipe's model fine-tuned without rules, anything else a folder or hub name of a
    fine-tuned model; null = labels only. `resets` puts the weights back to what the first phase started from, under
    the masks found (a lottery ticket, arXiv:1803.03635).
    """

    name: FolderName = Field(default="sparse", description="of its own in the recipe; also a folder's name")
    training: Training = Field(default=Training(), description="how long, and at which rate")
    teacher: str | None = Field(default=None, description="`dense`, or a folder or hub name; null = labels only")
    cuts: bool = Field(
        default=False,
        description="true = heads and neurons that earlier phases pruned are cut away first, so that this training is "
        "cheaper; sparsities of its rules are then of what is left",
    )
    resets: bool = Field(default=False, description="true = start again from the first phase's weights, masks kept")
    distill: Distill = Field(default=Distill(), description="what is learned from the teacher, where there is one")
    rules: tuple[Rule, ...] = Field(default=(), description="what becomes sparse; null = earlier masks are held")

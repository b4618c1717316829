"""Record: what one run measured, on what, and how. One JSON a run; reports read only this.

A value that could not be computed is absent. Units are in the names; times are medians with quartiles.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.files import write_text_atomically
from sparsebert.recipe.schema import FolderName, RecordedTarget

SCHEMA = 1
# Fields of models that nothing ever filled.
RETIRED = ("notes", "peak_memory_mb")
FILE_NAME = "record.json"
PREDICTIONS = "predictions.safetensors"
VISITS = "visits.safetensors"


Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]


class Part(BaseModel):
    """Base of every part of a record: frozen and strict; a number that is none could not be read back."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Environment(Part):
    """Where a run took place."""

    python: str
    packages: dict[str, str]
    commit: str | None = None
    dirty: bool | None = None
    machine: str
    cpu: str
    cpu_flags: tuple[str, ...] = Field(default=(), description="the instruction sets that matter for speed")
    cores: int
    threads: int
    memory_gb: float
    gpu: str | None = None


class Score(Part):
    """One metric on one split; `value` as the metric is defined (accuracy 0-1, correlations -1-1)."""

    metric: str
    value: float
    split: str
    examples: Count
    low: float | None = Field(default=None, description="of the 95 % interval by bootstrap over the examples")
    high: float | None = Field(default=None, description="of the same interval")
    baseline: float | None = Field(
        default=None,
        description="what always giving the majority class of the train labels would score; of correlations, which a "
        "constant has none of, 0",
    )
    change_low: float | None = Field(
        default=None, description="of the 95 % interval of the difference from the dense model, paired by example"
    )
    change_high: float | None = Field(default=None, description="of the same interval")

    @property
    def above_baseline(self) -> bool | None:
        """Whether its interval lies above the baseline; None where that is not known."""
        if self.baseline is None:
            return None
        if self.low is None:
            return None if self.value > self.baseline else False
        return self.low > self.baseline


class Sparsity(Part):
    """Fractions, 0-1, of the weights and bytes of the model that it came from: cut away or exactly zero."""

    encoder_linear: float
    whole_model: float
    bytes_on_disk: float


class Size(Part):
    """What a model holds."""

    parameters: Count
    encoder_linear_parameters: int
    embedding_parameters: int
    weight_bytes: int = Field(description="of the weights in memory")
    bytes_on_disk: int | None = Field(default=None, description="of the weight files, which may be packed")
    flops: int | None = Field(default=None, description="of one forward pass at flops_batch x flops_length")
    flops_batch: int | None = None
    flops_length: int | None = None

    @property
    def file_bytes(self) -> int:
        """Bytes of the weight files; a record without them is of plain files, which hold the weights as they are."""
        return self.weight_bytes if self.bytes_on_disk is None else self.bytes_on_disk


class Shape(Part):
    """Units kept in each layer of the original model; 0 heads or neurons = that block is gone."""

    heads: tuple[int, ...]
    neurons: tuple[int, ...]
    dropped_layers: tuple[int, ...] = ()
    full_heads: int = Field(gt=0, le=4096)
    full_neurons: Count
    kept_heads: tuple[tuple[int, ...], ...] = Field(
        default=(), description="which heads of each layer of the original model stayed, from 0"
    )
    head_importance: tuple[tuple[float, ...], ...] = Field(
        default=(),
        description="of every head of each layer of the original model: the error of its block once it goes too",
    )

    @model_validator(mode="after")
    def _of_one_model(self) -> Shape:
        layers, kept = len(self.heads), self.kept_heads
        lists = (self.neurons, *filter(None, (kept, self.head_importance)))
        if not layers or {*map(len, lists)} != {layers} or {*map(len, self.head_importance)} - {self.full_heads}:
            raise ValueError("a shape needs one entry a layer in each of its lists, and importances one a head")
        if not set(self.dropped_layers) <= set(range(layers)):
            raise ValueError("a dropped layer must be one of the layers")
        if not 0 <= min(self.heads) <= max(self.heads) <= self.full_heads or max(self.neurons) > self.full_neurons:
            raise ValueError("a layer has no more heads and neurons than the largest has")
        if kept and (tuple(map(len, kept)) != self.heads or not set(sum(kept, ())) <= set(range(self.full_heads))):
            raise ValueError("the heads kept must be heads of their layer, and as many as it has left")
        return self


class TimeSummary(Part):
    """What was measured of one variant in interleaved rounds; ratios are of paired rounds against the baseline."""

    rounds: Count
    median_ms: Positive
    q25_ms: Positive
    q75_ms: Positive
    speedup: Positive | None = None
    speedup_q25: Positive | None = None
    speedup_q75: Positive | None = None
    speedup_low: Positive | None = Field(default=None, description="of the 95 % interval of the median ratio")
    speedup_high: Positive | None = Field(default=None, description="of the same interval")


class Timing(TimeSummary):
    """The times of a forward pass, and what it was a pass of."""

    scope: Literal["encoder", "model"]
    backend: str
    dtype: str
    attention: str
    batch: Count
    length: Count
    threads: Count
    tokens_per_s: Positive


class TrainingRun(Part):
    """What one call of the trainer did."""

    steps: int
    epochs: float
    examples: int
    seconds: float
    final_loss: float | None = Field(default=None, description="mean over the last full interval between checkpoints")
    dtype: str
    teacher: bool
    left_dense: tuple[str, ...] = Field(default=(), description="matrices that no rule and no earlier mask covers")


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


class Flip(Part):
    """A validation example that a model decides otherwise than the dense model; classes by name."""

    text: str
    label: str
    dense: str
    own: str


class Decisions(Part):
    """What a classifier said on the validation split that decides; classes in the order of their numbers."""

    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...] = Field(description="examples by [true class][predicted class]")
    agreement: float | None = Field(
        default=None, description="fraction decided as by the dense model; none for that itself"
    )
    flips: tuple[Flip, ...] = Field(default=(), description="some of the examples decided otherwise")

    @model_validator(mode="after")
    def _square(self) -> Decisions:
        count = len(self.classes)
        if count == 0 or [len(row) for row in self.confusion] != [count] * count:
            raise ValueError("a confusion matrix needs a row and a column for each class")
        return self

    @property
    def only_class(self) -> str | None:
        """The one class that every example is given, if it is one."""
        given = [
            name for name, column in zip(self.classes, zip(*self.confusion, strict=True), strict=True) if any(column)
        ]
        return given[0] if len(given) == 1 else None


class ModelResult(Part):
    """One model of the family, the dense one first. Fields that are no more are passed over in older records."""

    name: FolderName
    folder: FolderName
    model_type: str | None = Field(
        default=None, description="of its configuration; own classes have `sparsebert-` in front"
    )
    target_kind: str | None = None
    target_value: float | None = None
    shape: Shape
    scores: tuple[Score, ...] = ()
    one_shot_scores: tuple[Score, ...] = ()
    decisions: Decisions | None = Field(default=None, description="of classifications only")
    sparsity: Sparsity
    size: Size
    files: dict[str, str] = Field(default={}, description="SHA-256 of each file of the model's folder, but its card")
    timings: tuple[Timing, ...] = ()
    output_difference: float | None = Field(
        default=None, description="largest |logit| difference over the largest |logit|, masked against shrunk"
    )
    training: TrainingRun | None = None
    phases: dict[str, TrainingRun] = Field(default={}, description="of a sparse training, by name")
    timeline: tuple[SparsityAt, ...] = ()
    trees: tuple[TreeFit, ...] = ()
    sparsity_by_tensor: dict[str, float] = Field(default={}, description="fraction of zeros of each encoder matrix")

    @model_validator(mode="before")
    @classmethod
    def _without_retired(cls, values: Any) -> Any:
        return {k: v for k, v in values.items() if k not in RETIRED} if isinstance(values, dict) else values


class _ToldPhase(BaseModel):
    name: str
    teacher: str | None = None


class _Told(BaseModel):
    """What is read of a recipe; the rest of it, which may be of an older version, is shown as it stands."""

    model: str | None = None
    name: str | None = None
    sparsity: float | None = None
    targets: tuple[RecordedTarget, ...] | None = None
    phases: tuple[_ToldPhase, ...] | None = None
    measure: dict[str, Any] | None = None


class SplitOf(Part):
    """The rows of one split, as a run reads them."""

    rows: int
    sha256: str


class Inputs(Part):
    """What a run was made from, besides its recipe: with another of these it would be another run.

    `model` and `teachers` hold SHA-256 by file name. `cpu` is for the reader: times and last bits depend on it.
    """

    model: dict[str, str]
    teachers: dict[str, dict[str, str]] = {}
    data: dict[str, SplitOf]
    labels: tuple[str, ...]
    packages: dict[str, str]
    threads: int
    cpu: str


class Record(Part):
    """One run."""

    schema_version: int = SCHEMA
    kind: Annotated[str, AfterValidator(partial(registry.spelled, "run_type"))] = Field(description="the type of run")
    status: Literal["finished", "failed"]
    message: str | None = None
    failed_step: int | None = None
    created: str
    seconds: float = Field(description="since the command was last started; what it found finished took none")
    seed: int
    command: str
    recipe_hash: str
    recipe: dict[str, Any]
    environment: Environment
    inputs: Inputs | None = Field(default=None, description="none in records of before they were kept")
    task: str
    main_metric: str | None = None
    models: tuple[ModelResult, ...] = ()
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _of_one_run(self) -> Record:
        names = [model.name for model in self.models]
        if len(set(names)) < len(names):
            raise ValueError("models need names of their own")
        try:
            told = _Told.model_validate(self.recipe)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"in the recipe, {_place(first['loc'])}: {first['msg']}") from None
        trained = {name for model in self.models for name in model.phases}
        if unknown := sorted(trained - {phase.name for phase in told.phases or ()}):
            raise ValueError(f"a training is of a phase that the recipe has not: {unknown[0]!r}")
        return self


class _Version(BaseModel):
    """What is read first: another schema may have other fields."""

    schema_version: int = SCHEMA


def write_record(record: Record, folder: Path) -> Path:
    """Write `record.json` into `folder` atomically; None values are left out. Returns the path."""
    path = folder / FILE_NAME
    write_text_atomically(path, record.model_dump_json(indent=1, exclude_none=True) + "\n")
    return path


def read_record(path: Path) -> Record:
    """Read a record from a run folder or a JSON file. Raises UserError if it is missing or not readable."""
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise UserError("No record found", got=path, fix="give a run's folder or its record.json")
    try:
        version = _Version.model_validate_json(file.read_bytes()).schema_version
        if version != SCHEMA:
            raise UserError("The record has another schema", got=version, allowed=SCHEMA)
        return Record.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = f" at {_place(first['loc'])}" if first["loc"] else ""
        raise UserError(
            f"The record is not readable: {first['msg'].removeprefix('Value error, ')}{where}", got=file
        ) from None


def _place(parts: tuple[int | str, ...]) -> str:
    return ".".join(map(str, parts))


def record_files(path: Path) -> list[Path]:
    """The records that a path stands for: a file itself, a run's folder its own, a sweep's folder those of its runs.

    Raises UserError where there is none.
    """
    if path.is_file():
        return [path]
    files = [path / FILE_NAME] if (path / FILE_NAME).is_file() else sorted(path.glob(f"*/{FILE_NAME}"))
    if not files:
        raise UserError("No record found", got=path, fix="give a run's folder, a sweep's, or a record.json")
    return files

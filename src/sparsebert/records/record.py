"""Record: what one run measured, on what, and how. One JSON a run; reports read only this."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.files import write_text_atomically
from sparsebert.recipe.schema import FolderName, RecordedTarget
from sparsebert.records.curve import PruneStudy
from sparsebert.records.measured import (
    Decisions,
    LabelThresholds,
    Part,
    Score,
    Shape,
    Size,
    Sparsity,
    Stored,
    Timing,
    VocabularyLeft,
)
from sparsebert.records.trained import SparsityAt, TrainingRun, TreeFit

SCHEMA = 1
# Fields of models that nothing ever filled.
RETIRED = ("notes", "peak_memory_mb")
FILE_NAME = "record.json"
# What a run folder has from its beginning on; the record comes at the end.
RECIPE_FILE = "recipe.json"
PREDICTIONS = "predictions.safetensors"
VISITS = "visits.safetensors"
MASK_FILM = "mask_film.safetensors"


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


class ModelResult(Part):
    """One model of the family, the dense one first. Fields that are no more are passed over in older records."""

    name: FolderName
    folder: FolderName
    model_type: str | None = Field(
        default=None, description="of its configuration; own classes have `sparsebert-` in front"
    )
    architecture: str | None = Field(default=None, description="the model's class; none in older records")
    target_kind: str | None = None
    target_value: float | None = None
    shape: Shape
    scores: tuple[Score, ...] = ()
    vocabulary: VocabularyLeft | None = Field(default=None, description="none = that of the model it was made from")
    one_shot_scores: tuple[Score, ...] = ()
    decisions: Decisions | None = Field(default=None, description="of classifications only")
    thresholds: LabelThresholds | None = Field(default=None, description="of multilabel models; none = one half")
    sparsity: Sparsity
    size: Size
    stored: Stored | None = Field(default=None, description="none in older records")
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
    prune_study: PruneStudy | None = Field(default=None, description="what removal without retraining takes of it")

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
    teachers: dict[str, dict[str, str]] = Field(default={})
    files: dict[str, str] = Field(default={}, description="SHA-256 of other files that the recipe names")
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
    content = file.read_bytes()
    try:
        version = _Version.model_validate_json(content).schema_version
        if version != SCHEMA:
            raise UserError("The record has another schema", got=version, allowed=SCHEMA)
        return Record.model_validate_json(content)
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

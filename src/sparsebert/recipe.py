"""Recipe: everything that decides a run, as frozen plain values; YAML on disk, hashable, strict about unknown keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sparsebert import registry
from sparsebert.errors import UserError, unknown

SCHEMA = 1


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
    outputs of the kept layers (Hinton et al. 2015, arXiv:1503.02531, and TinyBERT, arXiv:1909.10351, eq. 7-8).
    """

    labels: float = Field(default=0.2, ge=0)
    logits: float = Field(default=0.8, ge=0)
    hidden: float = Field(default=1.0, ge=0)
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


class Recipe(Plain):
    """One run of `compress`."""

    schema_version: int = Field(default=SCHEMA, alias="schema")
    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    task: str = "reviews"
    data: str | None = None
    columns: Columns = Columns()
    max_length: int = Field(default=128, ge=4)
    seed: int = Field(default=0, ge=0, lt=2**32)
    targets: tuple[Target, ...] = ()
    max_drop: float | None = Field(default=None, ge=0, description="points of the task's main metric, 0-100")
    criterion: str = "obs"
    shape: Literal["search", "layers"] = "search"
    even: bool = False
    train_examples: int | None = Field(
        default=None, ge=8, description="use only the first n rows, after a seeded shuffle"
    )
    dense: Training = Training()
    finetune: Recovery | None = Recovery()
    distill: Distill = Distill()
    measure: Measure = Measure()
    search: Search = Search()

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @field_validator("criterion")
    @classmethod
    def _known(cls, value: str) -> str:
        registry_names = registry.names("criterion")
        if value not in registry_names:
            raise ValueError(str(unknown("criterion", value, registry_names)))
        return value

    @field_validator("schema_version")
    @classmethod
    def _supported(cls, value: int) -> int:
        if value != SCHEMA:
            raise ValueError(f"recipe schema {value} is not readable by this version, which reads {SCHEMA}")
        return value

    @model_validator(mode="after")
    def _one_goal(self) -> Recipe:
        if self.targets and self.max_drop is not None:
            raise ValueError("give targets or max_drop, not both")
        labels = [t.label for t in self.targets]
        if len(set(labels)) != len(labels):
            raise ValueError(f"the same target is given twice: {', '.join(labels)}")
        return self

    def plain(self) -> dict[str, Any]:
        """The recipe as JSON-able values."""
        return self.model_dump(mode="json", by_alias=True)

    @property
    def hash(self) -> str:
        """Twelve hex digits that change when any value changes."""
        return hashlib.sha256(json.dumps(self.plain(), sort_keys=True).encode()).hexdigest()[:12]


def load_recipe(path: Path | None, settings: Sequence[str] = (), **overrides: Any) -> Recipe:
    """Read a YAML file (none = defaults), apply `dotted.key=value` settings, then keyword overrides that are not None.

    Raises UserError for a missing or unreadable file, an unknown key (with the nearest one), or a bad value.
    """
    values: dict[str, Any] = _read(path) if path else {}
    for setting in settings:
        key, found, text = setting.partition("=")
        if not found:
            raise UserError("A setting must look like key=value", got=setting, fix="for example --set seed=1")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError("The value of a setting is not YAML", got=setting, fix="put it in quotes") from None
        _assign(values, key.strip().split("."), value)
    values.update({key: value for key, value in overrides.items() if value is not None})
    return parse_recipe(values)


def parse_recipe(values: dict[str, Any]) -> Recipe:
    """Validate plain values. Raises UserError with one line a problem."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError("The recipe is not valid: " + " | ".join(_problems(error))) from None


def differing_keys(old: Recipe, new: Recipe) -> list[str]:
    """Dotted names of the values in which two recipes differ."""
    left, right = dict(_flat(old.plain())), dict(_flat(new.plain()))
    return sorted(key for key in left.keys() | right.keys() if left.get(key) != right.get(key))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError("The recipe file does not exist", got=path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"The recipe file is not YAML: {str(error).splitlines()[0]}", got=path) from None
    if not isinstance(values, dict):
        raise UserError("The recipe file must hold a mapping of keys to values", got=path)
    return values


def _assign(values: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise UserError(f"'{key}' is a single value, so it has no part to set", got=".".join(keys))
    values[keys[-1]] = value


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, values


def _problems(error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            owner = _owner(item["loc"][:-1])
            allowed = [field.alias or name for name, field in owner.model_fields.items()]
            yield str(unknown("recipe key", where, allowed))
        else:
            message = item["msg"].removeprefix("Value error, ")
            yield f"{where}: {message}" if where else message


def _owner(path: Sequence[int | str]) -> type[BaseModel]:
    parts: dict[str, type[BaseModel]] = {
        "columns": Columns,
        "dense": Training,
        "finetune": Recovery,
        "distill": Distill,
        "measure": Measure,
        "search": Search,
        "targets": Target,
    }
    return parts[str(path[0])] if path else Recipe

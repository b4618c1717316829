"""The command that makes a model which is not there yet, from what the runs at hand were made with."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from sparsebert.recipe.compress import CompressRecipe
from sparsebert.recipe.load import flat_values
from sparsebert.records import Record

# Keys of recipes and the options that are shorter than `--set`.
_OPTIONS = {
    "task": "--task",
    "data": "--data",
    "criterion": "--criterion",
    "shape": "--shape",
    "measure.batch": "--batch",
    "measure.length": "--length",
    "measure.runtime": "--runtime",
    "measure.threads": "--threads",
    "train_examples": "--train-examples",
    "max_length": "--max-length",
    "seed": "--seed",
}
_TARGETS = {"speedup": "--speedup", "latency_ms": "--latency", "size": "--size", "sparsity": "--sparsity"}
_SHARED = (
    "model",
    "task",
    "data",
    "columns",
    "max_length",
    "train_examples",
    "seed",
    "data_seed",
    "hold_out",
    "measure",
)
_DECIDED = ("kind", "schema", "name", "model", "targets", "max_drop")
# A run of another kind may have been told not to time its models, which a target of speed needs.
_OTHERS = "measure.timed"


@dataclass(frozen=True)
class Making:
    """A command of `compress`, to which `--speedup` and a number are to be added unless it is one of `asked`."""

    words: str
    asked: tuple[float, ...] = ()


def making(record: Record) -> Making:
    """What makes further models of what a record's were made of.

    A command that made the record is taken as it was typed, so that its folder gets a further target. Else it says what
    the recipe says: all that decides a run of `compress`, or of another kind what runs of all kinds have.
    """
    typed = _words(record.command)
    own = record.kind == "compress" and typed[:2] == ["sparsebert", "compress"]
    if not own or any(word.startswith("--max-drop") for word in typed):
        return Making(shlex.join(["sparsebert", "compress", *_of_recipe(record)]))
    targets = record.recipe.get("targets") or ()
    asked = tuple(float(target["value"]) for target in targets if target["kind"] == "speedup")
    return Making(shlex.join([*typed, *_targets(record, typed)]), asked)


def _targets(record: Record, typed: list[str]) -> list[str]:
    """Those of a recipe's file, which an option would take the place of: a folder's targets may only become more."""
    if any(word.partition("=")[0] in _TARGETS.values() for word in typed):
        return []
    known = [target for target in record.recipe.get("targets") or () if target["kind"] in _TARGETS]
    return [word for target in known for word in (_TARGETS[target["kind"]], f"{target['value']:g}")]


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return []


def _of_recipe(record: Record) -> list[str]:
    own = record.recipe if record.kind == "compress" else {key: record.recipe.get(key) for key in _SHARED}
    usual, left_out = dict(flat_values(CompressRecipe().plain())), {_OTHERS, *_misfits(own)}
    words = [str(own["model"])] if own.get("model") else []
    for key, value in flat_values(own):
        if key.split(".")[0] in _DECIDED or key in left_out or value is None or usual.get(key, value) == value:
            continue
        words += [_OPTIONS[key], str(value)] if key in _OPTIONS else ["--set", f"{key}={_text(value)}"]
    return words


def _misfits(values: Mapping[str, Any]) -> list[str]:
    """Keys with values of another version, which no command of this one takes."""
    try:
        CompressRecipe.model_validate({key: value for key, value in values.items() if key not in _DECIDED})
    except ValidationError as error:
        return [".".join(map(str, one["loc"])) for one in error.errors()]
    return []


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

"""What a run is made from besides its recipe: the content of data and models, package versions, threads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from datasets import Dataset

from sparsebert.data.hold_out import WHOLE
from sparsebert.data.load import Task
from sparsebert.environment import cpu_name, versions
from sparsebert.files import digest
from sparsebert.models.source import TOKENIZER_FILES, resolve, weight_files
from sparsebert.recipe.base import Recipe
from sparsebert.records import Inputs, SplitOf

MODEL_FILES = ("config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", "vocab.json")
CHUNK_ROWS = 1000
DECIDE_INPUTS = (
    *("model", "task", "data", "columns", "train_examples", "data_seed", "hold_out", "threshold_rows"),
    *(
        "text",
        "column",
        "config",
        "feedforward",
        "neurons",
        "vocabulary",
        "train_tokenizer",
        "validation",
        "max_length",
    ),
)
"""Keys of recipes, besides those of teachers, that decide what a run is made from; not every recipe has all."""


def inputs_of(recipe: Recipe, task: Task) -> Inputs:
    """Read all of it. Raises UserError for a model that is not there."""
    splits = {"train": task.train, task.validation_name: task.validation, **task.more_validation}
    if task.threshold_rows is not None:
        splits["threshold_rows"] = task.threshold_rows
    data = {name: rows_of(rows) for name, rows in splits.items()}
    return made_from(recipe, files_of(recipe.model), data, task.spec.labels)


def made_from(recipe: Recipe, model: dict[str, str], data: dict[str, SplitOf], labels: tuple[str, ...] = ()) -> Inputs:
    """With the digests of a model and of data, those of the recipe's teachers, and what is installed here."""
    return Inputs(
        model=model,
        teachers={name: files_of(name) for name in recipe.given_teachers},
        files={name: digest(Path(name)) for name in recipe.given_files},
        data=data,
        labels=labels,
        packages=versions(),
        threads=torch.get_num_threads(),
        cpu=cpu_name(),
    )


def differences(before: Inputs, now: Inputs) -> list[str]:
    """What of two runs' inputs is not the same, in words; threads and processor do not count."""
    return [
        *_of_files("the model", before.model, now.model),
        *(
            line
            for name in sorted(before.teachers.keys() | now.teachers.keys())
            for line in _of_files(f"the teacher {name}", before.teachers.get(name, {}), now.teachers.get(name, {}))
        ),
        *_of_files("files", before.files, now.files),
        *_of_data(before, now),
        *(
            f"{name} is {now.packages.get(name, 'gone')}, was {before.packages.get(name, 'not there')}"
            for name in sorted(before.packages.keys() | now.packages.keys())
            if before.packages.get(name) != now.packages.get(name)
        ),
    ]


def _of_files(whose: str, before: dict[str, str], now: dict[str, str]) -> list[str]:
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return [f"{whose} ({', '.join(changed)})"] if changed else []


def _of_data(before: Inputs, now: Inputs) -> Iterator[str]:
    for name in sorted(before.data.keys() | now.data.keys()):
        old, new = before.data.get(name), now.data.get(name)
        if old == new:
            continue
        if old is None or new is None:
            yield f"the split {name} is {'gone' if new is None else 'new'}"
        elif old.rows != new.rows:
            yield f"the {name} data have {new.rows} rows, had {old.rows}"
        else:
            yield f"the {name} data"
    if before.labels != now.labels:
        yield f"the labels are {', '.join(now.labels)}, were {', '.join(before.labels)}"


def files_of(model: str) -> dict[str, str]:
    """SHA-256 of a model's files by name. Raises UserError for one that is not there."""
    folder = resolve(model).path
    names = {*MODEL_FILES, *TOKENIZER_FILES, *weight_files(folder), *(file.name for file in folder.glob("*.model"))}
    return {name: digest(folder / name) for name in sorted(names) if (folder / name).is_file()}


def rows_of(rows: Dataset) -> SplitOf:
    """The digest of texts and labels in their order; how they were stored does not matter."""
    found = hashlib.sha256()
    for start in range(0, len(rows), CHUNK_ROWS):
        part = {name: values for name, values in rows[start : start + CHUNK_ROWS].items() if name != WHOLE}
        found.update(json.dumps(part, sort_keys=True).encode("utf-8", "surrogatepass"))
    return SplitOf(rows=len(rows), sha256=found.hexdigest())

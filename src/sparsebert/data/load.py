"""`load_task`: from the recipe's task, data and columns to checked train and validation rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset

from sparsebert.data.cs224n import course_splits
from sparsebert.data.files import own_data
from sparsebert.data.glue import RawSplit, folder_splits, hub_splits
from sparsebert.data.hold_out import HELD_OUT_SPLIT, hold_out
from sparsebert.data.read import read_file
from sparsebert.data.rows import standard_rows
from sparsebert.data.tagged import read_tagged
from sparsebert.errors import UserError, unknown
from sparsebert.files import home_of
from sparsebert.recipe.schema import Columns
from sparsebert.tasks.kind import task_kind
from sparsebert.tasks.table import TaskSpec, task_names, task_spec

PACKAGED = Path(__file__).parent


@dataclass(frozen=True)
class Task:
    """Data ready for a run: columns `text_a`, `text_b` for pairs, and `label` (class number, or float).

    `validation` decides; `more_validation` holds further splits by name (MNLI mismatched). `validation_name` says
    what the deciding rows are: an official split, `..._subset`, or `held_out`. `subset` is true if a split that is
    scored is a part of the official one, so that no score passes for an official number. `threshold_rows` are rows of
    the train split that no training sees, so that thresholds of labels can be chosen on them.
    """

    spec: TaskSpec
    train: Dataset
    validation: Dataset
    validation_name: str = "validation"
    more_validation: Mapping[str, Dataset] = field(default_factory=dict)
    subset: bool = False
    notes: tuple[str, ...] = ()
    threshold_rows: Dataset | None = None


def load_task(
    task: str,
    data: str | None,
    columns: Columns | None = None,
    seed: int = 0,
    train_examples: int | None = None,
    held_out: float | None = None,
) -> Task:
    """Load a task of the table (package, folder or hub), or the user's own file under any other name.

    With `train_examples` only the first n train rows after a seeded shuffle are used. With `held_out` this part of
    them (0-1) takes the place of all validation splits, which are then not looked at. Raises UserError for an unknown
    task, missing or unreadable data, a missing column, empty text, or a label that does not fit.
    """
    loaded = _first(_load(task, data, columns or Columns(), seed), seed, train_examples)
    return loaded if held_out is None else _chosen_on_train(loaded, seed, held_out)


def _chosen_on_train(loaded: Task, seed: int, share: float) -> Task:
    train, held = hold_out(loaded.train, seed, task_kind(loaded.spec.kind), share)
    note = f"scores are of {len(held)} train rows that were held out with seed {seed}, not of the validation split"
    notes = tuple(one for one in loaded.notes if not one.startswith(loaded.spec.validation_splits))
    return replace(
        loaded, train=train, validation=held, validation_name=HELD_OUT_SPLIT, more_validation={}, notes=(*notes, note)
    )


def _first(loaded: Task, seed: int, train_examples: int | None) -> Task:
    if train_examples is None or train_examples >= len(loaded.train):
        return loaded
    order = np.random.default_rng(seed).permutation(len(loaded.train))[:train_examples]
    note = f"train: {train_examples} of {len(loaded.train)} rows, after a shuffle with seed {seed}"
    train = Dataset.from_dict(loaded.train[order.tolist()])
    return replace(loaded, train=train, notes=(*loaded.notes, note))


def _load(task: str, data: str | None, columns: Columns, seed: int) -> Task:
    if task not in task_names():
        if data is None:
            raise unknown("task", task, task_names())
        return _own(task, data, columns, seed)
    spec = task_spec(task)
    # Texts of any kind do where there are no labels to be fixed.
    if data is not None and not task_kind(spec.kind).labelled:
        return _own(task, data, columns.model_copy(update={"kind": spec.kind}), seed)
    _check_use(spec, data, columns)
    if spec.packaged:
        splits = {name: _packaged(spec, name) for name in (spec.train_split, *spec.validation_splits)}
    elif spec.course:
        splits = course_splits(spec, home_of(data) if data else None)
    else:
        splits = folder_splits(spec, home_of(data)) if data else hub_splits(spec)
    return _assemble(spec, splits)


def _own(task: str, data: str, columns: Columns, seed: int) -> Task:
    own = own_data(task, home_of(data), columns, seed)
    return Task(own.spec, own.train, own.validation, own.validation_name, notes=own.notes)


def _packaged(spec: TaskSpec, split: str) -> RawSplit:
    kind = task_kind(spec.kind)
    if kind.by_word:
        return RawSplit(split, read_tagged(PACKAGED / spec.packaged / f"{split}.conll").table)
    label = (spec.label,) if kind.labelled else ()
    rows = read_file(PACKAGED / spec.packaged / f"{split}.csv", (*label, *spec.columns))
    return RawSplit(split, rows if spec.bundle == 1 else _bundled(rows, spec))


def _bundled(rows: pa.Table, spec: TaskSpec) -> pa.Table:
    """Each `spec.bundle` rows of one label as one, in the order of the file; no row is used twice.

    What is left over of a label is dropped: an example of fewer texts would be harder than the others.
    """
    waiting: dict[str, list[tuple[str, ...]]] = {}
    texts: dict[str, list[str]] = {name: [] for name in (spec.label, *spec.columns)}
    for label, *own in zip(*(rows.column(name).to_pylist() for name in texts), strict=True):
        held = waiting.setdefault(label, [])
        held.append(tuple(own))
        if len(held) == spec.bundle:
            texts[spec.label].append(label)
            for name, parts in zip(spec.columns, zip(*held, strict=True), strict=True):
                texts[name].append(" ".join(parts))
            held.clear()
    return pa.table(texts)


def _check_use(spec: TaskSpec, data: str | None, columns: Columns) -> None:
    """Refuse what would have no effect: a file or columns for a task whose data and columns are fixed."""
    own = "for your own data give the task another name, for example --task custom"
    if columns != Columns():
        raise UserError(f"The columns of task '{spec.name}' are fixed", got=columns, fix=own)
    if data is None:
        return
    if spec.packaged:
        raise UserError(f"Task '{spec.name}' ships in the package and takes no data", got=data, fix=own)
    if not home_of(data).exists():
        raise UserError("The data path does not exist", got=data)
    if not home_of(data).is_dir():
        raise UserError(f"Task '{spec.name}' takes a folder of tasks, not a file", got=data, fix=own)


def _assemble(spec: TaskSpec, splits: dict[str, RawSplit]) -> Task:
    # Every benchmark file is used as it is, also where a pair has one empty side.
    rows = {
        name: standard_rows(raw.rows, spec, f"{spec.name} {raw.name}", empty_text=not spec.packaged)
        for name, raw in splits.items()
    }
    first, *others = spec.validation_splits
    notes = [
        f"{name} is {raw.name}, not the official split: do not report its score as an official number"
        for name, raw in splits.items()
        if raw.is_subset
    ]
    notes += [note for raw in splits.values() for note in raw.notes]
    notes += [f"{name} is missing in the data folder, so it has no score" for name in others if name not in rows]
    return Task(
        spec=spec,
        train=rows[spec.train_split],
        validation=rows[first],
        validation_name=splits[first].name,
        more_validation={splits[name].name: rows[name] for name in others if name in rows},
        subset=any(raw.is_subset for raw in splits.values()),
        notes=tuple(notes),
    )

"""The user's own data: one file, or a folder with train.* and validation.* (or dev.*)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from datasets import Dataset

from sparsebert.data import squad
from sparsebert.data.conll import CONLL_SUFFIXES
from sparsebert.data.hold_out import HELD_OUT_SPLIT, hold_out, row_texts
from sparsebert.data.meant import MeantLabels, label_columns, label_name, one_column, sound_label, with_meant_labels
from sparsebert.data.read import DATA_SUFFIXES, column, has_columns, is_data, read_file
from sparsebert.data.rows import standard_rows
from sparsebert.data.tagged import LABEL, TEXT, is_tagged, read_tagged
from sparsebert.data.text import Written
from sparsebert.errors import UserError
from sparsebert.recipe.schema import Columns
from sparsebert.tasks.class_names import missing_words
from sparsebert.tasks.kind import TaskKind, task_kind
from sparsebert.tasks.table import TaskSpec

VALIDATION_STEMS = ("validation", "valid", "val", "dev")
# What the names of SQuAD's files end with.
_VERSION = re.compile(r"-v\d\.\d$")
_SUFFIXES = dict.fromkeys((*DATA_SUFFIXES, *squad.SUFFIXES, *CONLL_SUFFIXES))


@dataclass(frozen=True)
class OwnData:
    """Checked rows of the user's data, and what was decided on the way."""

    spec: TaskSpec
    train: Dataset
    validation: Dataset
    validation_name: str
    notes: tuple[str, ...]


def own_data(task: str, path: Path, columns: Columns, seed: int) -> OwnData:
    """Read a file, or a folder with `train.*` and maybe `validation.*`, `valid.*`, `val.*` or `dev.*`.

    Files are csv, jsonl, parquet, or txt with a text a line; of words with tags those of data/tagged.py. Names of
    classes that a parquet file declares stay in the order of their numbers. Without a validation file a seeded tenth of
    the rows is held out, the same share of each stratum of the task's kind, such as a class, and no text is in both
    parts; where a file has texts of the train file, a note says how many. The classes are those of the train file.
    Raises UserError for anything that cannot be read or does not fit.
    """
    columns = columns.model_copy(update={"label": sound_label(columns.label)})
    kind = task_kind(columns.kind)
    train_file, validation_file = _find(task, path, _readable(kind))
    if train_file.suffix.lower() in CONLL_SUFFIXES and not kind.by_word:
        raise _tagged(train_file)
    usual = (TEXT,) if kind.by_word else (squad.QUESTION, squad.CONTEXT) if kind.by_span else None
    texts = _text_columns(columns, kind) if usual is None else usual
    read = _read(train_file, texts, columns)
    spec = _spec(task, read, texts, columns, train_file.name)
    rows = standard_rows(read.table, spec, train_file.name)
    notes = (*read.notes, *_names_note(spec))
    if validation_file:
        more = _read(validation_file, texts, columns)
        validation = standard_rows(more.table, spec, validation_file.name)
        notes += (f"validation rows are those of {validation_file.name}", *more.notes)
        notes += _places_note(spec, read, more.table, validation_file.name)
        notes += _shared(rows, validation, train_file.name)
        return OwnData(spec, rows, validation, "validation", tuple(dict.fromkeys(notes)))
    train, validation = hold_out(rows, seed, task_kind(spec.kind))
    note = f"no validation file was given: {len(validation)} of {len(rows)} rows were held out with seed {seed}"
    return OwnData(spec, train, validation, HELD_OUT_SPLIT, (*notes, note))


def _readable(kind: TaskKind) -> Callable[[Path], bool]:
    """What files hold rows of a kind."""
    if kind.by_span:
        return squad.is_squad
    return is_tagged if kind.by_word else has_columns if kind.labelled else is_data


def _read(file: Path, texts: Sequence[str], columns: Columns) -> MeantLabels:
    kind, written = task_kind(columns.kind), Written(columns.delimiter, columns.encoding)
    if kind.by_word:
        found = read_tagged(file, *_named(columns), columns.encoding)
        return MeantLabels(found.table, found.declared, found.notes)
    if kind.by_span:
        label = one_column(columns.label)
        given = None if label == Columns().label else label
        answers = squad.read_squad(file, columns.text, given, columns.encoding)
        return MeantLabels(answers.table, notes=answers.notes)
    if not kind.labelled:
        if columns.label != Columns().label:
            raise UserError(
                f"Texts of kind {columns.kind} have no labels",
                got=label_name(columns.label),
                fix="leave the column out",
            )
        return MeantLabels(read_file(file, texts, written))
    raw = read_file(file, (*label_columns(columns.label), *texts), written)
    return with_meant_labels(raw, columns.label, kind, file.name)


def _named(columns: Columns) -> tuple[str | None, str | None]:
    """The columns of texts and of labels that the user names; none = to be found out."""
    if len(columns.text) > 1:
        raise UserError("Words with tags are of single texts", got=", ".join(columns.text), fix="name one text column")
    label = one_column(columns.label)
    return next(iter(columns.text), None), None if label == Columns().label else label


def _names_note(spec: TaskSpec) -> tuple[str, ...]:
    words = [f"'{name}'" for name in spec.labels if name in missing_words()]
    return (f"a label that reads as a missing value is a class of its own: {', '.join(words)}",) if words else ()


def _places_note(spec: TaskSpec, read: MeantLabels, other: pa.Table, where: str) -> tuple[str, ...]:
    """A note where numbers of another table stand for classes whose order nobody has declared."""
    places = {str(place): name for place, name in enumerate(spec.labels) if str(place) not in spec.labels}
    if read.declared or not spec.labels:
        return ()
    if not any(str(value).strip() in places for value in column(other, spec.label, where)):
        return ()
    taken = ", ".join(f"{place} is '{name}'" for place, name in places.items())
    return (f"numbers in {where} are taken to be places in the alphabet of the train file's classes: {taken}",)


def _shared(train: Dataset, validation: Dataset, train_name: str) -> tuple[str, ...]:
    """A note where validation rows have texts of train rows."""
    known = set(row_texts(train))
    count = sum(text in known for text in row_texts(validation))
    if count == 0:
        return ()
    return (f"{count} of {len(validation)} validation rows have texts that are also in {train_name}",)


def _find(task: str, path: Path, wanted: Callable[[Path], bool]) -> tuple[Path, Path | None]:
    """The train file and the validation file, if there is one, of wanted suffixes.

    `train.csv` given alone means its folder.
    """
    if path.is_file() and _VERSION.sub("", path.stem) != "train":
        return path, None
    if not path.exists():
        raise UserError("The data path does not exist", got=path)
    folder = path if path.is_dir() else path.parent
    train = path if path.is_file() else _one(folder, ("train",), wanted)
    if train is None and (tagged := _one(folder, ("train",), lambda file: file.suffix.lower() in CONLL_SUFFIXES)):
        raise _tagged(tagged)
    if train is None:
        names = " or ".join(f"train{suffix}" for suffix in _SUFFIXES if wanted(Path(f"train{suffix}")))
        raise UserError(
            f"Task '{task}' is not one of the table, and the data folder holds no {names}",
            got=folder,
            fix="`sparsebert tasks` lists the tasks that need no file of yours",
        )
    return train, _one(folder, VALIDATION_STEMS, wanted)


def _tagged(file: Path) -> UserError:
    return UserError("A file of words with tags is of another kind", got=file.name, fix="give --kind tokens")


def _one(folder: Path, stems: Sequence[str], wanted: Callable[[Path], bool]) -> Path | None:
    found = [
        file
        for file in sorted(folder.iterdir())
        if _VERSION.sub("", file.stem) in stems and wanted(file) and file.is_file()
    ]
    if len(found) > 1:
        raise UserError(f"More than one {stems[0]} file", got=", ".join(file.name for file in found), fix="keep one")
    return found[0] if found else None


def _text_columns(columns: Columns, kind: TaskKind) -> tuple[str, ...]:
    text = columns.text or kind.columns
    if len(text) > 2:
        raise UserError("A task has one or two text columns", got=", ".join(text))
    if len(set(text)) < len(text):
        raise UserError("The two text columns of a pair are the same", got=", ".join(text), fix="name each once")
    return text


def _spec(task: str, read: MeantLabels, texts: tuple[str, ...], columns: Columns, where: str) -> TaskSpec:
    kind = task_kind(columns.kind)
    label = LABEL if kind.by_word else squad.LABEL if kind.by_span else label_name(columns.label)
    names = _label_names(kind, read, label, where) if kind.labelled else ()
    return TaskSpec(
        name=task,
        columns=texts,
        labels=read.declared or names,
        metrics=kind.metrics,
        description=f"the user's own data, {where}",
        label=label,
        kind=columns.kind,
    )


def _label_names(kind: TaskKind, read: MeantLabels, name: str, where: str) -> tuple[str, ...]:
    # Also where names are declared: a column of one label is nothing to learn from.
    return kind.label_names(column(read.table, name, where), f"{where}, column '{name}'")

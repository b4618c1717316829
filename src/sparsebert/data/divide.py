"""Rows longer than a model reads: texts in parts, so that nothing is left out, and windows that hold answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from sparsebert.data.hold_out import WHOLE
from sparsebert.data.load import Task
from sparsebert.data.passages import Letters
from sparsebert.data.squad import LABEL_TYPE
from sparsebert.data.tokens import Reader
from sparsebert.data.windows import check_room, windows_of_pairs
from sparsebert.errors import UserError
from sparsebert.tasks.kind import task_kind

MANY = 10
"""Parts of a text on average, above which a note says how many."""
_AT_ONCE = 1000


def divided(task: Task, reader: Reader) -> Task:
    """The task with its long texts in parts (see `parts_of`), each with its own words; a note counts them.

    Where answers are parts of texts these come in windows (see data/windows.py), each with the answer if it holds it.
    Raises UserError where there is no room for a text beside its question.
    """
    splits = _splits(task)
    by_span = task_kind(task.spec.kind).by_span
    if by_span:
        check_room(reader, task.train["text_a"][:])
    make = in_windows if by_span else _divided
    found = _of_each(task, lambda rows: make(rows, reader))
    notes = tuple(
        f"{name}: {len(splits[name])} texts are read in {len(rows)} parts, some being longer than {reader.limit} tokens"
        + _many(len(rows) / len(splits[name]))
        for name, rows in _splits(found).items()
        if len(rows) > len(splits[name])
    )
    return replace(found, notes=(*task.notes, *notes))


def _many(each: float) -> str:
    """What there is to say where a text has more parts than is sensible."""
    return f": {each:.0f} parts a text on average, fewer with a larger max_length" if each > MANY else ""


def with_tokens(task: Task, reader: Reader, special: frozenset[int]) -> Task:
    """The task without texts of `special` tokens alone, of which nothing can be asked; a note counts them.

    Raises UserError where nothing is left of a split.
    """
    splits = _splits(task)
    found = _of_each(task, lambda rows: _with_tokens(rows, reader, special))
    notes = []
    for name, rows in _splits(found).items():
        if not len(rows):
            raise UserError(
                "The tokenizer knows none of the words of the texts, so there is nothing to predict",
                got=f"{len(splits[name])} texts of {name}",
                fix="give text of its language and script",
            )
        if less := len(splits[name]) - len(rows):
            notes.append(f"{name}: {less} texts of which the tokenizer knows no word are left out")
    return replace(found, notes=(*task.notes, *notes))


def _splits(task: Task) -> dict[str, Dataset]:
    return {"train": task.train, task.validation_name: task.validation, **task.more_validation}


def _of_each(task: Task, change: Callable[[Dataset], Dataset]) -> Task:
    """The task with every split changed."""
    more = {name: change(rows) for name, rows in task.more_validation.items()}
    return replace(task, train=change(task.train), validation=change(task.validation), more_validation=more)


def in_windows(rows: Dataset, reader: Reader) -> Dataset:
    """A row for each window of the second texts, whose label says whether and where the answer is in it.

    All windows of one text have its number, so that they are not held out apart.
    """
    found: dict[str, list[Any]] = {"text_a": [], "text_b": [], "label": [], WHOLE: []}
    numbers: dict[str, int] = {}
    for one, label in zip(
        windows_of_pairs(reader, rows["text_a"][:], rows["text_b"][:]), rows["label"][:], strict=True
    ):
        for window in one.places:
            found["text_a"].append(one.question)
            found["text_b"].append(label["text"][slice(*window)])
            found["label"].append(_label_within(label, window))
            found[WHOLE].append(numbers.setdefault(label["text"], len(numbers)))
    return Dataset(pa.table({**found, "label": pa.array(found["label"], LABEL_TYPE)}))


def _label_within(label: Mapping[str, Any], window: Letters) -> dict[str, Any]:
    start, end = window
    inside = start <= label["start"] and label["end"] <= end
    place = (label["start"] - start, label["end"] - start) if inside else (-1, -1)
    return {**label, "text": label["text"][start:end], "start": place[0], "end": place[1]}


def _divided(rows: Dataset, reader: Reader) -> Dataset:
    texts = list(rows["text_a"])
    parts = reader.parts(texts)
    if all(len(places) == 1 for places in parts):
        return rows
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    if "label" not in rows.column_names:
        found = [(text[start:end], text) for text, places in zip(texts, parts, strict=True) for start, end in places]
        return Dataset.from_dict({"text_a": [part for part, _ in found], WHOLE: [numbers[text] for _, text in found]})
    kept = [
        (text[start:end], own, numbers[text])
        for text, words, places in zip(texts, list(rows["label"]), parts, strict=True)
        for start, end in places
        if (own := [[one - start, other - start, tag] for one, other, tag in words if start <= one < end])
    ]
    names = ("text_a", "label", WHOLE)
    return Dataset.from_dict({name: [row[place] for row in kept] for place, name in enumerate(names)})


def _with_tokens(rows: Dataset, reader: Reader, special: frozenset[int]) -> Dataset:
    known = []
    for start in range(0, len(rows), _AT_ONCE):
        read, _ = reader.read(rows[start : start + _AT_ONCE]["text_a"], None, start)
        known += [not special.issuperset(ids) for ids in read["input_ids"]]
    return rows if all(known) else Dataset.from_dict(rows[np.flatnonzero(known).tolist()])

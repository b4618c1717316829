"""Rows that are longer than a model reads: words with tags in parts, texts that hold answers in windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
from datasets import Dataset

from sparsebert.data.load import Task
from sparsebert.data.passages import Letters
from sparsebert.data.squad import LABEL_TYPE
from sparsebert.data.tokens import Reader
from sparsebert.data.windows import windows_of_pairs
from sparsebert.tasks.kind import task_kind


def divided(task: Task, reader: Reader) -> Task:
    """The task with its long texts in parts (see `parts_of`), each with its own words; a note counts them.

    Where answers are parts of texts these come in windows (see data/windows.py), each with the answer if it holds it.
    """
    splits = {"train": task.train, task.validation_name: task.validation, **task.more_validation}
    make = in_windows if task_kind(task.spec.kind).by_span else _divided
    found = {name: make(rows, reader) for name, rows in splits.items()}
    notes = tuple(
        f"{name}: {len(splits[name])} texts are read in {len(rows)} parts, some being longer than {reader.limit} tokens"
        for name, rows in found.items()
        if len(rows) > len(splits[name])
    )
    return replace(
        task,
        train=found["train"],
        validation=found[task.validation_name],
        more_validation={name: found[name] for name in task.more_validation},
        threshold_rows=None if task.threshold_rows is None else make(task.threshold_rows, reader),
        notes=(*task.notes, *notes),
    )


def in_windows(rows: Dataset, reader: Reader) -> Dataset:
    """A row for each window of the second texts, whose label says whether and where the answer is in it."""
    found: dict[str, list[Any]] = {"text_a": [], "text_b": [], "label": []}
    for one, label in zip(
        windows_of_pairs(reader, rows["text_a"][:], rows["text_b"][:]), rows["label"][:], strict=True
    ):
        for window in one.places:
            found["text_a"].append(one.question)
            found["text_b"].append(label["text"][slice(*window)])
            found["label"].append(_label_within(label, window))
    return Dataset(pa.table({**found, "label": pa.array(found["label"], LABEL_TYPE)}))


def _label_within(label: Mapping[str, Any], window: Letters) -> dict[str, Any]:
    start, end = window
    inside = start <= label["start"] and label["end"] <= end
    place = (label["start"] - start, label["end"] - start) if inside else (-1, -1)
    return {**label, "text": label["text"][start:end], "start": place[0], "end": place[1]}


def _divided(rows: Dataset, reader: Reader) -> Dataset:
    texts, labels = list(rows["text_a"]), list(rows["label"])
    parts = reader.parts(texts)
    if all(len(places) == 1 for places in parts):
        return rows
    found = [
        (text[start:end], [[one - start, other - start, tag] for one, other, tag in words if start <= one < end])
        for text, words, places in zip(texts, labels, parts, strict=True)
        for start, end in places
    ]
    kept = [(text, words) for text, words in found if words]
    return Dataset.from_dict({"text_a": [text for text, _ in kept], "label": [words for _, words in kept]})

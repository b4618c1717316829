"""Rows of words with tags that are longer than a model reads, in parts, so that no word is left out."""

from __future__ import annotations

from dataclasses import replace

from datasets import Dataset

from sparsebert.data.load import Task
from sparsebert.data.tokens import Reader


def divided(task: Task, reader: Reader) -> Task:
    """The task with its long texts in parts (see `parts_of`), each with its own words; a note counts them."""
    splits = {"train": task.train, task.validation_name: task.validation, **task.more_validation}
    found = {name: _divided(rows, reader) for name, rows in splits.items()}
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
        notes=(*task.notes, *notes),
    )


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

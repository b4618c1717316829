"""Rows as every later step wants them: `text_a`, `text_b` for pairs, `label` where there are labels; all checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from datasets import Dataset

from sparsebert.data.read import column
from sparsebert.errors import UserError
from sparsebert.tasks.kind import task_kind
from sparsebert.tasks.table import TaskSpec


def standard_rows(raw: pa.Table, spec: TaskSpec, where: str, empty_text: bool = False) -> Dataset:
    """Rename and check columns. `where` names the data in errors; rows count from 1, a CSV header aside.

    Labels become what models of the task's kind train on. Benchmarks hold a few pairs with one side empty, so
    `empty_text` lets these pass. Raises UserError for a missing column, no rows, empty text, or a bad label.
    """
    if len(raw) == 0:
        raise UserError("The split has no rows", got=where)
    _check_sides(spec)
    texts = {}
    for new, old in zip(("text_a", "text_b"), spec.columns, strict=False):
        texts[new] = _texts(column(raw, old, where), f"{where}, column '{old}'", empty_text)
    kind = task_kind(spec.kind)
    if not kind.labelled:
        return Dataset.from_dict(texts)
    values = column(raw, spec.label, where)
    labels = kind.labels(values, spec.labels, f"{where}, column '{spec.label}'")
    return Dataset.from_dict({**texts, "label": labels})


def _check_sides(spec: TaskSpec) -> None:
    """Raise UserError for single texts where pairs are wanted, and the other way round."""
    kind, columns = task_kind(spec.kind), ", ".join(spec.columns)
    wanted = 2 if kind.apart else kind.texts
    if wanted is None or wanted == len(spec.columns):
        return
    if wanted == 2:
        fix = "name both with --text-column (columns.text in a recipe)"
        raise UserError(f"Texts of kind {spec.kind} are pairs", got=f"text column {columns}", fix=fix)
    raise UserError(f"Texts of kind {spec.kind} stand alone", got=f"text columns {columns}", fix="name one of them")


def _texts(values: Sequence[Any], where: str, empty_text: bool) -> list[str]:
    for row, value in enumerate(values, start=1):
        if not isinstance(value, str):
            got = "nothing" if value is None else type(value).__name__
            raise UserError(f"{where}, row {row}: the text must be a string", got=got)
        if not empty_text and not value.strip():
            raise UserError(f"{where}, row {row}: the text is empty", fix="fill it in or drop the row")
    return list(values)

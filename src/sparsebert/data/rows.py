"""Rows as every later step wants them: `text_a`, `text_b` for pairs, `label`; every row checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv
from datasets import Dataset

from sparsebert.data.read import column
from sparsebert.errors import UserError
from sparsebert.tasks.table import TaskSpec

MOST_LISTED = 20
UNLABELLED = -1
"""What GLUE's test splits hold instead of a label."""
MISSING = frozenset(pyarrow.csv.ConvertOptions().null_values) | {"None", "<NA>"} - {""}
"""Words that stand for a missing value: those of Arrow, and what Python and pandas print."""


def standard_rows(raw: pa.Table, spec: TaskSpec, where: str, empty_text: bool = False) -> Dataset:
    """Rename and check columns. `where` names the data in errors; rows count from 1, a CSV header aside.

    Labels become class numbers, or floats for regression. Benchmarks hold a few pairs with one side empty, so
    `empty_text` lets these pass. Raises UserError for a missing column, no rows, empty text, or a bad label.
    """
    if len(raw) == 0:
        raise UserError("The split has no rows", got=where)
    texts = {}
    for new, old in zip(("text_a", "text_b"), spec.columns, strict=False):
        texts[new] = _texts(column(raw, old, where), f"{where}, column '{old}'", empty_text)
    values = column(raw, spec.label, where)
    where = f"{where}, column '{spec.label}'"
    labels = _numbers(values, where) if spec.kind == "regression" else _class_ids(values, spec.labels, where)
    return Dataset.from_dict({**texts, "label": labels})


def class_names(values: Sequence[Any], where: str) -> tuple[str, ...]:
    """Distinct labels as text without spaces around them, in numeric order if all are whole numbers, else alphabetical.

    Where all are numbers, `1.0` is written `1` and is the same class. Raises UserError for a missing label, fractions
    (that is regression), or fewer than two classes.
    """
    names = {_class_name(value, f"{where}, row {row}") for row, value in enumerate(values, start=1)}
    numeric = all(math.isfinite(_number(name)) for name in names)
    if numeric and len(names) > 1:
        _refuse_fractions(names, where)
        names = {_plain(name) for name in names}
    if len(names) < 2:
        raise UserError(f"{where}: every row has the same label, so there is nothing to learn", got=f"'{names.pop()}'")
    # Alphabetical first: 1 and 01 are names of one number.
    return tuple(sorted(sorted(names), key=float) if numeric else sorted(names))


def refuse_missing_words(values: Sequence[str], where: str) -> None:
    """Raise UserError for a label that is a word for a missing value: a CSV file cannot say which of the two it means.

    JSONL and parquet have a value of their own for what is missing, so there such a word is a name.
    """
    for row, value in enumerate(values, start=1):
        if value.strip() in MISSING:
            raise UserError(
                f"{where}, row {row}: the label reads as a missing value",
                got=f"'{value}'",
                fix="drop the row, or if that is a class, give it another name, or write the data as JSONL or parquet",
            )


def _class_name(value: Any, where: str) -> str:
    if isinstance(value, str):
        value = value.strip()
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        raise UserError(f"{where}: the label is missing")
    if isinstance(value, float):
        _refuse_fractions([str(value)], where)
        value = int(value)
    if not isinstance(value, str | int):
        raise UserError(f"{where}: a class label must be a word or a whole number", got=type(value).__name__)
    return str(value)


def _refuse_fractions(names: Iterable[str], where: str) -> None:
    """Names that are all numbers, as a CSV file has them."""
    for name in sorted(names):
        if not float(name).is_integer():
            raise UserError(
                f"{where}: a class label must be a word or a whole number",
                got=name,
                fix="for numbers to predict give --regression, or columns.kind=regression in a recipe",
            )


def _plain(name: str) -> str:
    """A whole number that is written as a decimal as its digits alone, `1.0` as `1`; anything else as it is."""
    whole, point, rest = name.partition(".")
    return whole if point and _is_whole(whole) and not rest.strip("0") else name


def _is_whole(name: str) -> bool:
    digits = name.removeprefix("-")
    return digits.isascii() and digits.isdigit()


def _class_ids(values: Sequence[Any], names: tuple[str, ...], where: str) -> list[int]:
    """Class numbers of labels that are given by name, or by number where the names are not numbers themselves."""
    ids = {name: number for number, name in enumerate(names)}
    by_number = all(math.isnan(_number(name)) for name in names)
    numeric = all(_is_whole(name) for name in names)
    known = ids | ({str(number): number for number in range(len(names))} if by_number else {})
    found = []
    for row, value in enumerate(values, start=1):
        name = _class_name(value, f"{where}, row {row}")
        name = _plain(name) if numeric else name
        if name not in known:
            fix = "-1 marks a row without a label, as in GLUE's test splits" if name == str(UNLABELLED) else ""
            allowed = _listed(names) + (f" (0 to {len(names) - 1})" if by_number else "")
            raise UserError(f"{where}, row {row}: not in the label set", got=f"'{name}'", allowed=allowed, fix=fix)
        found.append(known[name])
    return found


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more


def _numbers(values: Sequence[Any], where: str) -> list[float]:
    found = []
    for row, value in enumerate(values, start=1):
        if value is None or value == "":
            raise UserError(f"{where}, row {row}: the label is missing")
        number = _number(value)
        if not math.isfinite(number):
            raise UserError(f"{where}, row {row}: the label of a regression must be a finite number", got=f"'{value}'")
        found.append(number)
    return found


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return math.nan
    if isinstance(value, str) and "_" in value:
        # Python reads 1_0 as 10; as a label it is a name.
        return math.nan
    try:
        return float(value)
    except ValueError:
        return math.nan


def _texts(values: Sequence[Any], where: str, empty_text: bool) -> list[str]:
    for row, value in enumerate(values, start=1):
        if not isinstance(value, str):
            got = "nothing" if value is None else type(value).__name__
            raise UserError(f"{where}, row {row}: the text must be a string", got=got)
        if not empty_text and not value.strip():
            raise UserError(f"{where}, row {row}: the text is empty", fix="fill it in or drop the row")
    return list(values)

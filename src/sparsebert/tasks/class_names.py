"""Names of labels: what a column calls them, and the number of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from sparsebert.errors import UserError
from sparsebert.tasks.numbers import number

MOST_LISTED = 20
UNLABELLED = -1
"""What GLUE's test splits hold instead of a label."""


@cache
def missing_words() -> frozenset[str]:
    """Words that stand for a missing value: those of Arrow, and what Python and pandas print."""
    # Here, so that answering needs no Arrow.
    import pyarrow.csv

    return frozenset(pyarrow.csv.ConvertOptions().null_values) | {"None", "<NA>"} - {""}


def class_names(values: Sequence[Any], where: str) -> tuple[str, ...]:
    """Distinct labels as text without spaces around them, in numeric order if all are whole numbers, else alphabetical.

    Where all are numbers, `1.0` is written `1` and is the same class. Raises UserError for a missing label, fractions
    (that is regression), or fewer than two classes.
    """
    names = {class_name(value, f"{where}, row {row}") for row, value in enumerate(values, start=1)}
    numeric = all(math.isfinite(number(name)) for name in names)
    if numeric and len(names) > 1:
        _refuse_fractions(names, where)
        names = {_plain(name) for name in names}
    if len(names) < 2:
        raise UserError(f"{where}: every row has the same label, so there is nothing to learn", got=f"'{names.pop()}'")
    return in_order(names)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """By number if all names are numbers, else alphabetical."""
    # Alphabetical first: 1 and 01 are names of one number.
    alphabetical = sorted(names)
    numeric = all(math.isfinite(number(name)) for name in alphabetical)
    return tuple(sorted(alphabetical, key=float) if numeric else alphabetical)


def refuse_missing_words(values: Sequence[str], where: str) -> None:
    """Raise UserError for a label that is a word for a missing value: a CSV file cannot say which of the two it means.

    JSONL and parquet have a value of their own for what is missing, so there such a word is a name.
    """
    for row, value in enumerate(values, start=1):
        refuse_missing_word(value, f"{where}, row {row}")


def refuse_missing_word(value: str, where: str) -> None:
    """The same for one label, of which an error says `where`."""
    if value.strip() in missing_words():
        raise UserError(
            f"{where}: the label reads as a missing value",
            got=f"'{value}'",
            fix="drop the row, or if that is a class, give it another name, or write the data as JSONL or parquet",
        )


def class_name(value: Any, where: str) -> str:
    """One label as text. Raises UserError, which says `where`, for one that is missing, and for what is no name."""
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
                fix="for numbers to predict give --kind regression, or columns.kind=regression in a recipe",
            )


def _plain(name: str) -> str:
    """A whole number that is written as a decimal as its digits alone, `1.0` as `1`; anything else as it is."""
    whole, point, rest = name.partition(".")
    return whole if point and _is_whole(whole) and not rest.strip("0") else name


def _is_whole(name: str) -> bool:
    digits = name.removeprefix("-")
    return digits.isascii() and digits.isdigit()


def class_ids(values: Sequence[Any], names: tuple[str, ...], where: str) -> list[int]:
    """Class numbers of labels that are given by name, or by number where the names are not numbers themselves."""
    ids = {name: place for place, name in enumerate(names)}
    by_number = all(math.isnan(number(name)) for name in names)
    numeric = all(_is_whole(name) for name in names)
    known = ids | ({str(place): place for place in range(len(names))} if by_number else {})
    found = []
    for row, value in enumerate(values, start=1):
        name = class_name(value, f"{where}, row {row}")
        name = _plain(name) if numeric else name
        if name not in known:
            fix = "-1 marks a row without a label, as in GLUE's test splits" if name == str(UNLABELLED) else ""
            allowed = listed(names) + (f" (0 to {len(names) - 1})" if by_number else "")
            raise UserError(f"{where}, row {row}: not in the label set", got=f"'{name}'", allowed=allowed, fix=fix)
        found.append(known[name])
    return found


def listed(names: Sequence[str]) -> str:
    """The first names of many, for an error."""
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more

"""Texts that a page sends: typed ones, and those of a file; checked, within limits, refused in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from sparsebert.data.csv_file import csv_rows
from sparsebert.errors import UserError
from sparsebert.tasks.kind import TextColumn

LETTERS = 20_000
"""Most characters of a text."""
FILE_LETTERS = 2 * 2**20
FILE_TEXTS = 5_000
COLUMNS = (".csv", ".tsv")
LABEL = "label"
"""What a column of labels is usually called."""
# What a column of texts is usually called.
_USUAL = ("text", "sentence", "text_a", "sentence1", "question", "premise")


@dataclass(frozen=True)
class TextQueue:
    """Texts, and their second sides if they are pairs; `numbers` are their places in the file, from 1."""

    first: Sequence[str]
    second: Sequence[str] | None
    numbers: Sequence[int]
    empty: int = 0
    """Lines or rows that were left out for holding nothing."""
    labels: TextColumn | None = None
    """What a file says of each of the texts, where it has such a column."""

    def part(self, start: int, end: int) -> tuple[Sequence[str], Sequence[str] | None]:
        """Both sides of some of them."""
        return self.first[start:end], None if self.second is None else self.second[start:end]


def typed(value: Any, what: str = "The text") -> str:
    """A text as somebody wrote it. Raises UserError for none, an empty one, and one that is too long."""
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{what} is empty", fix="type one, or pick an example")
    if len(value) > LETTERS:
        raise UserError(f"{what} is too long", got=f"{len(value):,} characters", allowed=f"{LETTERS:,}")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise UserError(f"{what} holds half of a letter of two parts", fix="type it again")
    return value


def of_file(name: str, content: Any, columns: Sequence[str], label: str = "") -> TextQueue:
    """The texts of a file: one a line, or of one or two columns of a .csv or .tsv; none named = a usual or only one.

    Of columns there are labels too: those of the column `label`, none named = the one that is called so, if there is.
    Raises UserError for what is empty or too large, and for what is not written as its name says.
    """
    if not isinstance(content, str) or not content.strip():
        raise UserError(f"{name} holds no text")
    if len(content) > FILE_LETTERS:
        raise UserError(f"{name} is too large", got=f"{len(content):,} characters", allowed=f"{FILE_LETTERS:,}")
    if Path(name).suffix.lower() in COLUMNS:
        queue = _of_columns(name, content, columns, label)
    elif columns or label:
        raise UserError(f"{name} has no columns", allowed=", ".join(COLUMNS), fix="leave the columns empty")
    else:
        lines = content.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
        queue = _filled(name, lines, None)
    if len(queue.first) > FILE_TEXTS:
        raise UserError(f"{name} holds too many texts", got=f"{len(queue.first):,}", allowed=f"{FILE_TEXTS:,}")
    return queue


def _of_columns(name: str, content: str, columns: Sequence[str], label: str) -> TextQueue:
    named, own = [*columns, *([label] if label else [])], "\t" if name.lower().endswith(".tsv") else None
    delimiter, header, rows = csv_rows(content, named, name, own)
    label = label or (LABEL if header.count(LABEL) == 1 and LABEL not in columns else "")
    wanted = list(columns) or [_usual(name, [one for one in header if one != label])]
    if len(wanted) > 2:
        raise UserError("A text has one column, a pair has two", got=", ".join(wanted))
    for one in [*wanted, *([label] if label else [])]:
        if header.count(one) != 1:
            found = "has no such column" if one not in header else "has that column more than once"
            raise UserError(f"{name} {found}", got=one, allowed=", ".join(header))
    sides = [[row[header.index(one)] for _, row in rows] for one in wanted]
    queue = _filled(name, sides[0], sides[1] if len(sides) > 1 else None)
    if not label:
        return queue
    values = [rows[number - 1][1][header.index(label)] for number in queue.numbers]
    return replace(queue, labels=TextColumn(values, name, label, delimiter))


def _usual(name: str, header: Sequence[str]) -> str:
    """The column of texts by its name, or the only one. Raises UserError where neither is clear."""
    found = [one for one in _USUAL if one in header] or (list(header) if len(header) == 1 else [])
    if not found:
        raise UserError(f"Which column of {name} holds the texts?", allowed=", ".join(header), fix="name it")
    return found[0]


def _filled(name: str, first: Sequence[str], second: Sequence[str] | None) -> TextQueue:
    """Those that hold something."""
    kept = [row for row, text in enumerate(first) if text.strip()]
    if not kept:
        raise UserError(f"{name} holds no text")
    for row in kept:
        for side in (first, *([] if second is None else [second])):
            if len(side[row]) > LETTERS:
                what = f"{name}, text {row + 1} is too long"
                raise UserError(what, got=f"{len(side[row]):,} characters", allowed=f"{LETTERS:,}")
    sides = [first[row] for row in kept], None if second is None else [second[row] for row in kept]
    return TextQueue(*sides, [row + 1 for row in kept], len(first) - len(kept))


def built_in() -> TextQueue:
    """The reviews that come with the package, for a race without a file."""
    file = files("sparsebert") / "data" / "reviews" / "validation.csv"
    return of_file("reviews.csv", file.read_text(encoding="utf-8"), ["text"])


def repeated(queue: TextQueue, count: int) -> TextQueue:
    """So many texts, from the beginning again where there are fewer."""
    places = [place % len(queue.first) for place in range(count)]
    second = None if queue.second is None else [queue.second[place] for place in places]
    return TextQueue([queue.first[place] for place in places], second, [queue.numbers[place] for place in places])


def as_pairs(queue: TextQueue) -> TextQueue:
    """Each text beside the one after it, for models that read nothing but pairs."""
    if queue.second is not None:
        return queue
    return TextQueue(queue.first, [*queue.first[1:], queue.first[0]], queue.numbers, queue.empty)

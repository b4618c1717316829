"""The texts that `predict` is given: as arguments, as lines, or as columns of a file."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsebert.data.read import SUFFIXES, column, has_columns, read_file
from sparsebert.data.text import Written, decoded
from sparsebert.errors import UserError

STDIN = "-"
LINES = ".txt"


@dataclass(frozen=True)
class Texts:
    """Texts, their second sides if they are pairs, and the names of their rows: the user's ids, or numbers from 1."""

    first: list[str]
    second: list[str] | None
    ids: Sequence[Any]

    @property
    def note(self) -> str:
        """One sentence about empty texts; nothing if there are none."""
        count = sum(not text.strip() for text in self.first)
        return f"{count} of {len(self.first)} texts are empty" if count else ""


def texts_of(
    given: Sequence[str], file: Path | None, columns: Sequence[str], id_column: str | None, written: Written
) -> Texts:
    """Read the texts: `given` ones, of which `-` stands for the lines of stdin, or those of a file.

    An empty line is an empty text, so that rows and lines stay side by side. Raises UserError without texts, for both
    kinds at once, for columns of what has none, and for what looks like a model or a file but stands for a text.
    """
    if file is not None and given:
        raise UserError("Give texts or --file, not both")
    for option, wanted in (("--text-column", columns), ("--id-column", id_column)):
        if wanted and (file is None or not has_columns(file)):
            raise UserError(f"{option} needs --file with columns", allowed=", ".join(SUFFIXES))
    if file is not None and has_columns(file):
        return _from_table(file, columns or ["text"], id_column, written)
    lines = _given(given, written) if file is None else _lines(file.read_bytes(), file.name, written)
    if not lines:
        raise UserError("There is no text", fix="give texts, --file FILE, or - to read lines from stdin")
    return Texts(lines, None, range(1, len(lines) + 1))


def _from_table(file: Path, columns: Sequence[str], id_column: str | None, written: Written) -> Texts:
    if len(columns) > 2:
        raise UserError("A task has one or two text columns", got=", ".join(columns))
    raw = read_file(file, [*columns, *([id_column] if id_column else [])], written)
    sides = [_strings(column(raw, name, file.name), f"{file.name}, column '{name}'") for name in columns]
    ids = column(raw, id_column, file.name) if id_column else range(1, len(raw) + 1)
    return Texts(sides[0], sides[1] if len(sides) > 1 else None, ids)


def _strings(values: Sequence[Any], where: str) -> list[str]:
    for row, value in enumerate(values, start=1):
        if not isinstance(value, str):
            raise UserError(f"{where}, row {row}: the text must be a string", got=value)
    return list(values)


def _given(texts: Sequence[str], written: Written) -> list[str]:
    for text in texts:
        _check_text(text)
    parts = (_lines(sys.stdin.buffer.read(), "stdin", written) if text == STDIN else [text] for text in texts)
    return [line for part in parts for line in part]


def _check_text(text: str) -> None:
    if os.path.isfile(os.path.join(text, "config.json")):
        raise UserError("predict takes one model; what follows it are texts, and this is a model's folder", got=text)
    if text.lower().endswith((*SUFFIXES, LINES)) and os.path.isfile(text):
        raise UserError("What follows the model are texts, and this is a file", got=text, fix="give it as --file")


def _lines(content: bytes, where: str, written: Written) -> list[str]:
    # Only a line break ends a line: `str.splitlines` splits at form feeds and U+2028 too.
    text = decoded(content, where, written.encoding)
    return [line.removesuffix("\n") for line in io.StringIO(text, newline=None)]

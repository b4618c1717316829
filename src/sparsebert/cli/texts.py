"""The texts that `predict` is given: as arguments, lines, columns of a file, or JSON lines that come by stdin."""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sparsebert.data.read import SUFFIXES, column, has_columns, read_file
from sparsebert.data.squad import CONTEXT, QUESTION, read_squad
from sparsebert.data.text import Written, decoded
from sparsebert.errors import UserError

STDIN = "-"
LINES = ".txt"
ARRIVING_BYTES = 1 << 20


@dataclass(frozen=True)
class Texts:
    """Texts, their second sides if they are pairs, and the names of their rows: the user's ids, or numbers from 1."""

    first: list[str]
    second: list[str] | None
    ids: Sequence[Any]

    @property
    def empty(self) -> int:
        """How many first sides hold no letter."""
        return sum(not text.strip() for text in self.first)


def texts_of(
    given: Sequence[str],
    file: Path | None,
    columns: Sequence[str],
    id_column: str | None,
    written: Written,
    option: str = "--file",
) -> Texts:
    """Read the texts: `given` ones, of which `-` stands for the lines of stdin, or those of a file.

    An empty line is an empty text, so that rows and lines stay side by side. Raises UserError without texts, for both
    kinds at once, for columns of what has none, and for what looks like a model or a file but stands for a text.
    """
    if file is not None and given:
        raise UserError("Give texts or --file, not both")
    for name, wanted in (("--text-column", columns), ("--id-column", id_column)):
        if wanted and (file is None or not has_columns(file)):
            raise UserError(f"{name} needs {option} with columns", allowed=", ".join(SUFFIXES))
    if file is not None and has_columns(file):
        return _from_table(file, columns or ["text"], id_column, written)
    lines = _given(given, written) if file is None else _lines(file.read_bytes(), file.name, written)
    if not lines:
        fix = "give texts, --file FILE, or - to read lines from stdin" if file is None else ""
        raise UserError("There is no text", got=file, fix=fix)
    return Texts(lines, None, range(1, len(lines) + 1))


def texts_of_squad(file: Path, written: Written) -> Texts:
    """The questions of a file in SQuAD's form, and their texts, numbered from 1; its answers are not looked at.

    Raises UserError for what cannot be read, and for a delimiter.
    """
    if written.delimiter is not None:
        raise UserError("JSON has no delimiter", got=written.delimiter, fix="leave out --delimiter")
    table = read_squad(file, encoding=written.encoding, labelled=False).table
    questions, texts = (column(table, name, file.name) for name in (QUESTION, CONTEXT))
    return Texts(questions, texts, range(1, len(table) + 1))


def texts_of_stdin(columns: Sequence[str], id_column: str | None) -> Iterator[Texts]:
    """Rows of JSON lines, as they come: those that have arrived are given together, and none waits for later ones.

    Rows without an id are numbered from 1, blank lines are passed over. Raises UserError for a line, named by its
    number, that is no JSON object or lacks a text.
    """
    names, rows = list(columns or ["text"]), 0
    _check_sides(names)
    for lines in _arrived(sys.stdin.buffer):
        found, fault = _rows(lines, names, id_column)
        if found:
            sides = [[row[name] for row in found] for name in names]
            ids = [row[id_column] for row in found] if id_column else range(rows + 1, rows + len(found) + 1)
            rows += len(found)
            yield Texts(sides[0], sides[1] if len(sides) > 1 else None, ids)
        if fault is not None:
            raise fault


def _arrived(stream: BinaryIO) -> Iterator[list[tuple[int, bytes]]]:
    """Whole lines with their numbers, as many as there are each time."""
    begun, number = bytearray(), 0
    while chunk := stream.read1(ARRIVING_BYTES):  # pyright: ignore[reportAttributeAccessIssue]
        head, line_break, rest = chunk.rpartition(b"\n")
        if not line_break:
            begun += rest
            continue
        lines = (bytes(begun) + head).split(b"\n")
        begun = bytearray(rest)
        yield [(place, line) for place, line in enumerate(lines, start=number + 1) if line.strip()]
        number += len(lines)
    if begun.strip():
        yield [(number + 1, bytes(begun))]


def _rows(
    lines: Sequence[tuple[int, bytes]], columns: Sequence[str], id_column: str | None
) -> tuple[list[dict[str, Any]], UserError | None]:
    """The rows before the first that does not do, and what is wrong with that one: those before it have answers."""
    found: list[dict[str, Any]] = []
    for number, line in lines:
        try:
            found.append(_row(line, f"stdin, line {number}", columns, id_column))
        except UserError as error:
            return found, error
    return found, None


def _row(line: bytes, where: str, columns: Sequence[str], id_column: str | None) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is no JSON ({str(error).splitlines()[0]})") from None
    if not isinstance(row, dict):
        raise UserError(f"{where} is no JSON object", got=row)
    options = dict.fromkeys(columns, "--text-column") | ({id_column: "--id-column"} if id_column else {})
    for name, option in options.items():
        if name not in row:
            raise UserError(f"{where} has no '{name}'", allowed=", ".join(row) or None, fix=f"name it with {option}")
    if id_column is not None:
        _check_id(row[id_column], where)
    return row | {name: _text(row[name], where) for name in columns}


def is_number(value: Any) -> bool:
    """Whether JSON has this number; an integer may be larger than any float."""
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def _check_id(value: Any, where: str) -> None:
    """Only what comes back as it came."""
    if not is_number(value) and value is not None and not isinstance(value, str):
        raise UserError(f"{where}: an id must be a string, a finite number or null", got=value)
    if isinstance(value, str):
        _check_letters(value, where, "id")


def _check_sides(columns: Sequence[str]) -> None:
    if len(columns) > 2:
        raise UserError("A task has one or two text columns", got=", ".join(columns))


def _from_table(file: Path, columns: Sequence[str], id_column: str | None, written: Written) -> Texts:
    _check_sides(columns)
    raw = read_file(file, [*columns, *([id_column] if id_column else [])], written)
    sides = [_strings(column(raw, name, file.name), f"{file.name}, column '{name}'") for name in columns]
    ids = column(raw, id_column, file.name) if id_column else range(1, len(raw) + 1)
    return Texts(sides[0], sides[1] if len(sides) > 1 else None, ids)


def _strings(values: Sequence[Any], where: str) -> list[str]:
    return [_text(value, f"{where}, row {row}") for row, value in enumerate(values, start=1)]


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: the text must be a string", got="null" if value is None else value)
    _check_letters(value, where, "text")
    return value


def _check_letters(value: str, where: str, what: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{where}: the {what} holds half of a letter of two parts", got=ascii(value)) from None


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

"""One CSV file in, its wanted columns out, as text. Commas, semicolons, tabs and bars are told apart."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from sparsebert.data.text import Written, decoded
from sparsebert.errors import UserError

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
SAMPLE_ROWS = 100
# Characters of one value: the most that Python's reader can be told on every system.
LONGEST_VALUE = 2**31 - 1
CsvRow = tuple[int, list[str]]


def read_csv(path: Path, wanted: Sequence[str], written: Written) -> tuple[str, list[str], list[CsvRow]]:
    """The `csv_rows` of a file. Raises UserError as they do, and for bytes that are not of the encoding."""
    return csv_rows(decoded(path.read_bytes(), path.name, written.encoding), wanted, path.name, written.delimiter)


def csv_rows(
    text: str, wanted: Sequence[str], where: str, delimiter: str | None = None
) -> tuple[str, list[str], list[CsvRow]]:
    """The delimiter, the names of the columns, and all rows that are not blank, each with the line it begins on.

    Where none is given, the delimiter is one that divides the header into all `wanted` columns; if several do, the one
    by which the rows after it have as many values. `where` names the file in errors. Raises UserError where none or
    several would do, for quotes that do not fit, and for rows of another width than the header.
    """
    with _long_values():
        delimiter = _given(delimiter) if delimiter else _found(text, wanted, where)
        (_, header), *rows = list(_rows(text, delimiter, where)) or [(1, [])]
    for line, row in rows:
        if len(row) != len(header):
            raise UserError(
                f"{where}, line {line}: {len(row)} values for {len(header)} columns",
                fix=f"put text that holds a {DELIMITERS.get(delimiter, 'delimiter')} or line breaks in double quotes",
            )
    return delimiter, [name.strip() for name in header], rows


@contextmanager
def _long_values() -> Iterator[None]:
    limit = csv.field_size_limit(LONGEST_VALUE)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _given(delimiter: str) -> str:
    one = "\t" if delimiter == "\\t" else delimiter
    if len(one) != 1 or one in '"\r\n\0':
        raise UserError(
            "A delimiter is one character", got=ascii(delimiter), allowed=", ; | or any other, \\t for a tab"
        )
    return one


def _found(text: str, wanted: Sequence[str], where: str) -> str:
    samples = {delimiter: _sample(text, delimiter) for delimiter in DELIMITERS}
    divided = {one: rows for one, rows in samples.items() if rows and len(rows[0]) > 1}
    fitting = {one: rows for one, rows in divided.items() if set(wanted) <= {name.strip() for name in rows[0]}}
    found = fitting or divided or {",": []}
    if len(found) > 1:
        found = {one: rows for one, rows in found.items() if len({len(row) for row in rows}) == 1} or found
    if len(found) > 1:
        raise UserError(
            f"{where} could be divided by {' or '.join(DELIMITERS[one] for one in found)}",
            fix="say which with --delimiter (columns.delimiter in a recipe)",
        )
    return next(iter(found))


def _sample(text: str, delimiter: str) -> list[list[str]]:
    """The header and rows after it, as far as they are CSV of this kind."""
    rows: list[list[str]] = []
    with suppress(csv.Error):
        for row in islice(_reader(text, delimiter), SAMPLE_ROWS):
            rows += [row] if row else []
    return rows


def _rows(text: str, delimiter: str, where: str) -> Iterator[CsvRow]:
    line, reader = 1, _reader(text, delimiter)
    try:
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        fix = "put text in double quotes, and write each one in it twice"
        raise UserError(f"{where}, the row that begins on line {line} is not CSV ({error})", fix=fix) from None


def _reader(text: str, delimiter: str) -> Any:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)

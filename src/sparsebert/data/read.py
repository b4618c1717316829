"""One data file in, its wanted columns out, in memory. Nothing is written beside the user's data."""

from __future__ import annotations

import difflib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sparsebert.data.csv_file import read_csv
from sparsebert.data.text import Written, decoded
from sparsebert.errors import UserError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
DATA_SUFFIXES = (*SUFFIXES, ".txt")
DELIMITER = b"sparsebert.delimiter"
"""Where the metadata of a table that was CSV hold its delimiter."""
LINES = "text"
"""What the one column of a file of lines is called."""
FOUND_OUT = Written()


def has_columns(path: Path) -> bool:
    """True if the suffix, in small letters or capitals, is that of a file of named columns."""
    return path.suffix.lower() in SUFFIXES


def is_data(path: Path) -> bool:
    """True if the suffix, in small letters or capitals, is one that `read_file` reads."""
    return path.suffix.lower() in DATA_SUFFIXES


def read_file(path: Path, wanted: Sequence[str], written: Written = FOUND_OUT) -> pa.Table:
    """Read the `wanted` columns of a CSV (all values stay text), JSONL or parquet file, or the lines of a .txt file.

    Other columns may hold anything. `written` says how text files are written, where that cannot be found out (see
    read_csv and decoded).

    Raises UserError for another suffix, a missing or damaged file, a malformed line (named), no rows, a wanted column
    that is missing or there twice, or one whose values differ in type (the line is named).
    """
    if not is_data(path):
        raise UserError("Cannot tell the format of the data file", got=path.name, allowed=", ".join(DATA_SUFFIXES))
    with _reading(path):
        return _READERS[path.suffix.lower()](path, list(dict.fromkeys(wanted)), written)


def column_names(path: Path, encoding: str | None = None) -> list[str]:
    """The columns of a JSONL or parquet file. Raises UserError as `read_file` does."""
    with _reading(path):
        if path.suffix.lower() == ".parquet":
            with pq.ParquetFile(path) as file:
                return list(file.schema_arrow.names)
        rows = _json_rows(path, encoding)
        if not rows:
            raise _no_rows(path)
        return _named_in(rows)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    if not path.is_file():
        raise UserError("The data file does not exist", got=path)
    try:
        yield
    except (OSError, OverflowError, RecursionError, ValueError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"The data file cannot be read as {path.suffix.lower()[1:]} ({reason})", got=path) from None


def column(raw: pa.Table, name: str, where: str) -> list[Any]:
    """All values of a column. Raises UserError if it is missing or holds what is no value, such as broken UTF-8."""
    if name not in raw.column_names:
        raise missing_column(name, raw.column_names, where)
    try:
        return raw.column(name).to_pylist()
    except ValueError as error:
        raise UserError(f"{where}, column '{name}' cannot be read ({error})") from None


def missing_column(name: str, names: Sequence[str], where: str) -> UserError:
    """Build the error for a column that is not among `names`, with the nearest name as a hint."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    fix = f"did you mean '{near[0]}'" if near else "name it with --text-column or --label-column"
    return UserError(f"{where} has no column '{name}'", allowed=", ".join(names), fix=fix)


def _check(path: Path, rows: int, names: Sequence[str], wanted: Sequence[str]) -> None:
    if rows == 0:
        raise _no_rows(path)
    for name in wanted:
        if name not in names:
            raise missing_column(name, names, path.name)
        if names.count(name) > 1:
            raise UserError(f"{path.name} has column '{name}' twice", got=", ".join(names))


def _no_rows(path: Path) -> UserError:
    return UserError("The data file has no rows", got=path)


def _read_csv(path: Path, wanted: list[str], written: Written) -> pa.Table:
    delimiter, header, rows = read_csv(path, wanted, written)
    _check(path, len(rows), header, wanted)
    places = {name: header.index(name) for name in wanted}
    table = pa.table({name: [row[place] for _, row in rows] for name, place in places.items()})
    return table.replace_schema_metadata({DELIMITER: delimiter})


def _read_jsonl(path: Path, wanted: list[str], written: Written) -> pa.Table:
    rows = _json_rows(path, written.encoding)
    _check(path, len(rows), _named_in(rows), wanted)
    columns = {name: {number: row.get(name) for number, row in rows.items()} for name in wanted}
    return pa.table({name: _one_type(cells, path, name) for name, cells in columns.items()})


def _json_rows(path: Path, encoding: str | None) -> dict[int, dict[str, Any]]:
    """The objects of a file by the number of their line."""
    text = decoded(path.read_bytes(), path.name, encoding)
    lines = enumerate(io.StringIO(text, newline=None), start=1)
    return {number: _json_object(line, f"{path.name}, line {number}") for number, line in lines if line.strip()}


def _named_in(rows: Mapping[int, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows.values() for name in row))


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg})", fix="write one JSON object a line") from None
    except (ValueError, RecursionError) as error:
        # A number of too many digits, or brackets in brackets without end.
        raise UserError(f"{where}: cannot be read ({error})") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: not a JSON object", got=type(value).__name__, fix="write one JSON object a line")
    return value


def _one_type(cells: Mapping[int, Any], path: Path, column: str) -> list[Any]:
    """The values, which are given by line number, if they are of one type; whole numbers go with fractions."""
    first = next((value for value in cells.values() if value is not None), None)
    for line, value in cells.items():
        if value is not None and _kind(value) is not _kind(first):
            raise UserError(
                f"{path.name}, line {line}, column '{column}': another type than in the lines before",
                got=type(value).__name__,
                allowed=type(first).__name__,
                fix="write all text, or all numbers without quotes",
            )
    return list(cells.values())


def _kind(value: Any) -> type:
    return float if type(value) is int else type(value)


def _read_parquet(path: Path, wanted: list[str], written: Written) -> pa.Table:
    with pq.ParquetFile(path) as file:
        _check(path, file.metadata.num_rows, file.schema_arrow.names, wanted)
        # A name with a dot also reads what is nested under it.
        return file.read(columns=wanted).select(wanted)


def _read_lines(path: Path, wanted: list[str], written: Written) -> pa.Table:
    """A text a line; lines without a letter are passed over."""
    text = decoded(path.read_bytes(), path.name, written.encoding)
    lines = [line.strip() for line in io.StringIO(text, newline=None) if line.strip()]
    _check(path, len(lines), [LINES], wanted)
    return pa.table({LINES: lines})


_READERS = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    ".txt": _read_lines,
}

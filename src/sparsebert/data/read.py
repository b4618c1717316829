"""One data file in, one in-memory `datasets.Dataset` out. Nothing is written beside the user's data."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from sparsebert.errors import UserError

SUFFIXES = (".csv", ".jsonl", ".parquet")


def read_file(path: Path) -> Dataset:
    """Read CSV (all values stay text), JSONL or parquet.

    Raises UserError for another suffix, a missing or damaged file, a malformed line (named), or no rows.
    """
    if path.suffix not in _READERS:
        raise UserError("Cannot tell the format of the data file", got=path.name, allowed=", ".join(SUFFIXES))
    if not path.is_file():
        raise UserError("The data file does not exist", got=path)
    try:
        dataset = _READERS[path.suffix](path)
    except (OSError, OverflowError, UnicodeError, csv.Error, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"The data file cannot be read as {path.suffix[1:]} ({reason})", got=path) from None
    if len(dataset) == 0:
        raise UserError("The data file has no rows", got=path)
    return dataset


def _read_csv(path: Path) -> Dataset:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise UserError("A column name occurs twice in the CSV header", got=", ".join(header))
        rows = []
        for row in reader:
            if row and len(row) != len(header):
                raise UserError(
                    f"{path.name}, line {reader.line_num}: {len(row)} values for {len(header)} columns",
                    fix="put text that holds commas or line breaks in double quotes",
                )
            if row:
                rows.append(row)
    return Dataset.from_dict({name: [row[i] for row in rows] for i, name in enumerate(header)})


def _read_jsonl(path: Path) -> Dataset:
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                rows.append(_json_object(line, f"{path.name}, line {number}"))
    names = dict.fromkeys(name for row in rows for name in row)
    return Dataset.from_dict({name: [row.get(name) for row in rows] for name in names})


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg})", fix="write one JSON object a line") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: not a JSON object", got=type(value).__name__, fix="write one JSON object a line")
    return value


def _read_parquet(path: Path) -> Dataset:
    return Dataset(pq.read_table(path))


_READERS = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}

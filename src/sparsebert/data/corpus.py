"""Texts for pretraining, document by document: from files of any size, and from the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import load_dataset
from datasets.exceptions import DatasetGenerationError

from sparsebert.data.archives import PACKED, unpacked
from sparsebert.errors import UserError
from sparsebert.files import home_of

T = TypeVar("T")
Placed = Iterator[tuple[str, int]]
"""Documents, each with the number of the file's bytes that were read for it and those before it."""
LONGEST_DOCUMENT = 1 << 20
"""Characters after which a document of a .txt file is given up to the last line end, and what follows as the next."""
_READ_BY_LINE = (".txt", ".jsonl")
_PARQUET = ".parquet"
KINDS = (*_READ_BY_LINE, *(line + packed for line in _READ_BY_LINE for packed in PACKED), _PARQUET)
_HALF = re.compile("[\ud800-\udfff]")
_ROWS_AT_ONCE = 256
_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


def text_files(paths: Sequence[str]) -> list[Path]:
    """The files that `paths` name, in that order, each once; for a folder all text files below it, sorted by path.

    What begins with a dot in a folder is left out. Raises UserError for a path that is not there, a folder without
    text files, and a file of an unknown kind; also where there is no path.
    """
    if not paths:
        raise UserError("There is no text", got="no paths", fix="name files or folders")
    found = [file for path in paths for file in _below(home_of(path))]
    once: dict[Path, Path] = {}
    for file in found:
        once.setdefault(file.resolve(), file)
    return list(once.values())


def _below(path: Path) -> list[Path]:
    if path.is_file():
        kind_of(path)
        return [path]
    if not path.is_dir():
        raise UserError("There is no such file or folder of text", got=path)
    inner = (file for file in path.rglob("*") if not any(p.startswith(".") for p in file.relative_to(path).parts))
    files = sorted(file for file in inner if file.name.endswith(KINDS) and file.is_file())
    if not files:
        raise UserError("The folder holds no text files", got=path, allowed=", ".join(KINDS))
    return files


def kind_of(file: Path) -> str:
    """Which of `KINDS` a file is by its name. Raises UserError for another."""
    found = [kind for kind in KINDS if file.name.endswith(kind)]
    if not found:
        raise UserError("Unknown kind of text file", got=file, allowed=", ".join(KINDS))
    return found[0]


def documents(file: Path, column: str = "text") -> Iterator[str]:
    """The documents of one file, one after the other; empty ones are left out.

    In .txt a blank line ends a document, and a line is a paragraph, joined to the next by a line feed; a document
    longer than `LONGEST_DOCUMENT` is given in pieces. In .jsonl and .parquet a row is a document, whose text `column`
    holds. Memory does not grow with the file, but holds the longest line of .jsonl. Raises UserError, when it comes to
    it, for what is not UTF-8, no JSON, without the column or without text in it, and for a damaged file.
    """
    return (text for text, _ in placed_documents(file, column))


def placed_documents(file: Path, column: str = "text") -> Placed:
    """As `documents`, with how many bytes of the file, as it lies there, were read so far."""
    kind = kind_of(file)
    if kind == _PARQUET:
        yield from _parquet(file, column)
        return
    with unpacked(file) as (content, raw):
        texts = _paragraphs(file, content) if kind.startswith(".txt") else _json_rows(file, content, column)
        yield from ((text, raw.tell()) for text in texts)


def _decoded_lines(file: Path, pieces: Iterator[tuple[int, bytes]]) -> Iterator[str]:
    """The pieces as text, without line ends and the byte order mark."""
    for start, piece in pieces:
        try:
            text = piece.decode("utf-8")
        except UnicodeDecodeError as error:
            said = f"{file} is not UTF-8 ({error.reason} at byte {start + error.start})"
            raise UserError(said, fix="write it as UTF-8, or leave it out") from None
        yield (text if start else text.removeprefix("\ufeff")).removesuffix("\n").removesuffix("\r")


def _lines(content: BinaryIO, longest: int = -1) -> Iterator[tuple[int, bytes]]:
    """Lines of bytes, each with its place; what is longer than `longest`, if that is not negative, in pieces."""
    start, rest = 0, b""
    while read := content.readline(longest):
        found = rest + read
        whole = read.endswith(b"\n") or len(read) != longest
        end = len(found) if whole else _end_of_piece(found)
        yield start, found[:end]
        start, rest = start + end, found[end:]
    if rest:
        yield start, rest


def _end_of_piece(found: bytes) -> int:
    """Where a long line is cut: behind its last space, or else before its last letter, so that no letter is cut."""
    space = found.rfind(b" ") + 1
    end = space or len(found) - 1
    # Bytes of UTF-8 that go on with a letter begin with the bits 10; a letter has four at most.
    while not space and end > len(found) - 4 and found[end] & 0xC0 == 0x80:
        end -= 1
    return end


def _paragraphs(file: Path, content: BinaryIO) -> Iterator[str]:
    lines: list[str] = []
    letters = 0
    for line in _decoded_lines(file, _lines(content, LONGEST_DOCUMENT)):
        blank = not line.strip()
        if lines and (blank or letters + len(line) > LONGEST_DOCUMENT):
            yield "\n".join(lines)
            lines, letters = [], 0
        if not blank:
            lines.append(line)
            letters += len(line) + 1
    if lines:
        yield "\n".join(lines)


def _json_rows(file: Path, content: BinaryIO, column: str) -> Iterator[str]:
    for number, line in enumerate(_decoded_lines(file, _lines(content)), start=1):
        if not line.strip():
            continue
        where = f"line {number} of {file}"
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"What is on {where} is no JSON", got=error) from None
        if not isinstance(row, dict):
            raise UserError(f"What is on {where} is no JSON object", got=line)
        if column not in row:
            raise _no_column(column, where, list(row))
        yield from _text_of(row[column], column, where)


def _parquet(file: Path, column: str) -> Placed:
    try:
        size = file.stat().st_size
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20) as table:
            schema, total = table.schema_arrow, table.metadata.num_rows
            if column not in schema.names:
                raise _no_column(column, str(file), schema.names)
            kind = schema.field(column).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not any(is_text(kind) for is_text in _TEXT):
                raise UserError(f"Column '{column}' of {file} is no text", got=kind)
            row = 0
            for batch in table.iter_batches(_ROWS_AT_ONCE, columns=[column]):
                for value in batch.column(0).to_pylist():
                    row += 1
                    yield from ((text, size * row // total) for text in _text_of(value, column, f"row {row} of {file}"))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} is no parquet file, or damaged", got=error) from None


def _text_of(value: object, column: str, where: str) -> Iterator[str]:
    if not isinstance(value, str):
        raise UserError(f"Column '{column}' holds no text in {where}", got=repr(value))
    # JSON can name halves of letters of UTF-16, which are no letters and have no UTF-8.
    if _HALF.search(value):
        raise UserError(f"Column '{column}' holds half a letter in {where}", got=ascii(_HALF.findall(value)[0]))
    if value.strip():
        yield value


def _no_column(column: str, where: str, there: Sequence[str]) -> UserError:
    return UserError(f"There is no column '{column}' in {where}", allowed=", ".join(there) or "none")


def hub_documents(name: str, column: str) -> Iterator[str]:
    """The documents of a set of the Hugging Face hub (or of a folder that `datasets` reads), fetched as they are read.

    `name` is SET, SET:CONFIG or SET:CONFIG:SPLIT, for example "wikimedia/wikipedia:20231101.en"; without a split it is
    "train", and an empty config is the set's own. Raises UserError for another form, a set that cannot be read, and a
    column that is missing or no text.
    """
    path, config, split = hub_parts(name)
    rows = _of_hub(lambda: load_dataset(path, config, split=split, streaming=True), name)
    source = iter(rows)
    number = 0
    while (row := _of_hub(lambda: next(source, None), name)) is not None:
        number += 1
        if column not in row:
            raise _no_column(column, f"row {number} of {name}", list(row))
        yield from _text_of(row[column], column, f"row {number} of {name}")


def hub_parts(name: str) -> tuple[str, str | None, str]:
    """Set, config and split that a name such as "SET:CONFIG:SPLIT" means. Raises UserError for another form."""
    path, config, split, *more = (*name.split(":"), "", "")[: max(3, name.count(":") + 1)]
    if more or not path:
        raise UserError("A set of the hub is named in another way", got=name, allowed="SET, SET:CONFIG:SPLIT")
    return path, config or None, split or "train"


def _of_hub(ask: Callable[[], T], name: str) -> T:
    try:
        return ask()
    except (OSError, ValueError, DatasetGenerationError) as error:
        raise UserError(f"The set {name} cannot be read", got=f"{type(error).__name__}: {error}") from None

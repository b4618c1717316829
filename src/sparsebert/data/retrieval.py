"""A retrieval set in the layout of BEIR: `corpus.jsonl`, `queries.jsonl`, and judgements in `qrels`."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsebert.data.text import decoded
from sparsebert.errors import UserError

CORPUS, QUERIES, JUDGEMENTS = "corpus.jsonl", "queries.jsonl", "qrels"
_PREFERRED = ("test", "dev", "validation")


@dataclass(frozen=True)
class RetrievalSet:
    """Texts of documents and queries, and for each query the grades of its relevant documents by their numbers.

    `unjudged` queries have no relevant document, and are left out. `own` is for each query the number of a document of
    the same id that is not relevant: the query itself, as BEIR takes it, which is not to be found; else none.
    """

    documents: tuple[str, ...]
    queries: tuple[str, ...]
    relevant: tuple[Mapping[int, float], ...]
    unjudged: int
    own: tuple[int | None, ...]


def read_retrieval_set(folder: Path) -> RetrievalSet:
    """Read a folder. A document's title stands before its text.

    Of several files of judgements that of the test split is taken. Raises UserError for a file that is missing or
    damaged, an id that is there twice or is unknown, an empty text, and where no query has a relevant document.
    """
    documents = {one: _document(row, where) for one, row, where in _rows(folder / CORPUS)}
    queries = {one: _text(row, "text", where) for one, row, where in _rows(folder / QUERIES)}
    numbers = {one: number for number, one in enumerate(documents)}
    grades: dict[str, dict[int, float]] = {}
    for query, document, grade, where in _judgements(_judgement_file(folder)):
        if query not in queries or document not in numbers:
            what, name = ("query", query) if query not in queries else ("document", document)
            raise UserError(f"{where}: no {what} has this id", got=f"'{name}'")
        if grade > 0:
            grades.setdefault(query, {})[numbers[document]] = grade
    if not grades:
        raise UserError("No query has a relevant document", got=folder)
    judged = [one for one in queries if one in grades]
    return RetrievalSet(
        tuple(documents.values()),
        tuple(queries[one] for one in judged),
        tuple(grades[one] for one in judged),
        len(queries) - len(judged),
        tuple(None if numbers.get(one) in grades[one] else numbers.get(one) for one in judged),
    )


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The id and content of every line, and what an error calls it."""
    if not file.is_file():
        raise UserError(f"A retrieval set has {CORPUS}, {QUERIES} and a folder {JUDGEMENTS}", got=f"no {file}")
    seen: set[str] = set()
    for number, line in enumerate(_lines(file), start=1):
        where = f"{file.name}, line {number}"
        try:
            row = json.loads(line)
            one = str(row["_id"])
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{where}: no JSON object with an _id") from None
        if one in seen:
            raise UserError(f"{where}: the id is there twice", got=f"'{one}'")
        seen.add(one)
        yield one, row, where


def _lines(file: Path) -> Iterator[str]:
    return io.StringIO(decoded(file.read_bytes(), file.name, None), newline=None)


def _document(row: dict[str, Any], where: str) -> str:
    title, text = row.get("title"), row.get("text")
    if isinstance(title, str) and title.strip() and isinstance(text, str):
        return f"{title.strip()} {text.strip()}".strip()
    return _text(row, "text", where)


def _text(row: dict[str, Any], key: str, where: str) -> str:
    text = row.get(key)
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where}: '{key}' has to be a text", got="nothing" if not text else type(text).__name__)
    return text.strip()


def _judgement_file(folder: Path) -> Path:
    files = {file.stem: file for file in sorted((folder / JUDGEMENTS).glob("*.tsv"))}
    for name in (*_PREFERRED, *files):
        if name in files:
            return files[name]
    raise UserError(f"The folder {JUDGEMENTS} has no .tsv file of judgements", got=folder / JUDGEMENTS)


def _judgements(file: Path) -> Iterator[tuple[str, str, float, str]]:
    """Query, document, grade, and what an error calls the line."""
    for number, line in enumerate(_lines(file), start=1):
        where, cells = f"{file.name}, line {number}", line.rstrip("\n").split("\t")
        if number == 1 and cells[2:] == ["score"]:
            continue
        try:
            query, document, text = cells
            grade = float(text)
        except ValueError:
            raise UserError(f"{where}: not query-id, corpus-id and score", got="\t".join(cells)[:100]) from None
        if not math.isfinite(grade):
            raise UserError(f"{where}: the score is not finite", got=text)
        yield query, document, grade, where

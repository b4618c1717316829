"""Files of questions about texts: JSON as SQuAD 1.1 and 2.0 have it, and rows as Hugging Face has them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from sparsebert.data.read import column, column_names, missing_column, read_file
from sparsebert.data.text import Written, decoded
from sparsebert.errors import UserError

JSON = ".json"
SUFFIXES = (JSON, ".jsonl", ".parquet")
QUESTION, CONTEXT, LABEL = "question", "context", "answers"
"""What the columns of what is read are called."""
LABEL_TYPE = pa.struct(
    [
        ("question", pa.int64()),
        ("answers", pa.list_(pa.string())),
        ("text", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
    ]
)
"""A label of kind spans (see tasks/spans.py)."""
MOST_LEFT_OUT = 0.01
"""Part of the rows whose answers may not be in their texts."""
_CONTEXTS, _ANSWERS = (CONTEXT, "passage", "text"), (LABEL, "answer")
_At = tuple[str, int]


@dataclass(frozen=True)
class SquadFile:
    """Columns QUESTION, CONTEXT and LABEL, a row a question; notes say what was mended and left out."""

    table: pa.Table
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Row:
    """A question, its text, its answers as the file has them, and what to call it in an error."""

    question: Any
    context: Any
    answers: Any
    where: str


def is_squad(path: Path) -> bool:
    """True if the suffix, in small letters or capitals, is one of files that hold answers with their places."""
    return path.suffix.lower() in SUFFIXES


def read_squad(
    path: Path, text: Sequence[str] = (), label: str | None = None, encoding: str | None = None, labelled: bool = True
) -> SquadFile:
    """Read a file; `text` names the columns of questions and of texts, `label` that of answers, none = as usual.

    Answers are objects of `text` and `answer_start`, or lists of these two by name; no answer is an empty list. An
    answer that stands elsewhere in its text is moved to the nearest such place, and a row whose answer is not there is
    left out, both with a note. Not `labelled`: answers are not looked at.

    Raises UserError for what cannot be read, for questions and texts that are empty, and where more than MOST_LEFT_OUT
    of the rows have answers that are not in their texts.
    """
    if not is_squad(path):
        raise UserError("Answers in texts cannot be read from this file", got=path.name, allowed=", ".join(SUFFIXES))
    if len(text) not in (0, 2):
        raise UserError(
            "Two columns are needed, of questions and of texts", got=", ".join(text), fix="give --text-column twice"
        )
    rows = list(_json(path, encoding) if path.suffix.lower() == JSON else _table(path, text, label, encoding, labelled))
    if not rows:
        raise UserError("The data file has no rows", got=path)
    for row in rows:
        _check_text(row.question, f"{row.where}: the question")
        _check_text(row.context, f"{row.where}: the text")
    return _placed(rows, path.name) if labelled else SquadFile(_made([(row, [], None) for row in rows]))


def _check_text(value: Any, what: str) -> None:
    if not isinstance(value, str):
        raise UserError(f"{what} must be a string", got="nothing" if value is None else type(value).__name__)
    if not value.strip():
        raise UserError(f"{what} is empty", fix="fill it in or drop the row")


def _json(path: Path, encoding: str | None) -> Iterator[_Row]:
    """SQuAD's own form, or a list of rows."""
    if not path.is_file():
        raise UserError("The data file does not exist", got=path)
    try:
        found = json.loads(decoded(path.read_bytes(), path.name, encoding))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path.name} is no JSON ({str(error).splitlines()[0]})") from None
    entries = found.get("data") if isinstance(found, dict) else found
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise _other_form(path.name)
    number = 0
    for entry in entries:
        for own in _questions(entry, path.name):
            number += 1
            yield _Row(own.get(QUESTION), own.get(CONTEXT), own.get(LABEL), f"{path.name}, question {number}")


def _questions(entry: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    """The questions of an article; a row that is one question by itself."""
    if QUESTION in entry:
        yield entry
        return
    for paragraph in _objects(entry.get("paragraphs"), name):
        for asked in _objects(paragraph.get("qas"), name):
            answers = [] if asked.get("is_impossible") else asked.get(LABEL)
            yield {QUESTION: asked.get(QUESTION), CONTEXT: paragraph.get(CONTEXT), LABEL: answers}


def _objects(value: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise _other_form(name)
    return value


def _other_form(name: str) -> UserError:
    return UserError(
        f"{name} has neither SQuAD's form nor a list of rows",
        allowed='{"data": [{"paragraphs": [{"context": ..., "qas": [...]}]}]}, or rows of question, context, answers',
    )


def _table(path: Path, text: Sequence[str], label: str | None, encoding: str | None, labelled: bool) -> Iterator[_Row]:
    names = column_names(path, encoding)
    usual = zip((*text, None, None), ((QUESTION,), _CONTEXTS), strict=False)
    chosen = [given or _usual(names, among, path.name) for given, among in usual]
    if labelled:
        chosen.append(label or _usual(names, _ANSWERS, path.name))
    raw = read_file(path, chosen, Written(encoding=encoding))
    sides = [column(raw, name, path.name) for name in chosen]
    for number, (question, context, *answers) in enumerate(zip(*sides, strict=True), start=1):
        yield _Row(question, context, answers[0] if answers else None, f"{path.name}, row {number}")


def _usual(names: Sequence[str], among: Sequence[str], where: str) -> str:
    found = [name for name in among if name in names]
    if not found:
        raise missing_column(among[0], names, where)
    return found[0]


def _placed(rows: Sequence[_Row], name: str) -> SquadFile:
    """The rows with the place of the answer that is to be learned."""
    kept: list[tuple[_Row, list[str], _At | None]] = []
    gone: list[_Row] = []
    moved = 0
    for row in rows:
        answers = _answers(row.answers, row.where)
        places = [(text, place) for text, start in answers if (place := _place(row.context, text, start)) is not None]
        if answers and not places:
            gone.append(row)
            continue
        moved += bool(places) and places[0] not in answers
        kept.append((row, [text for text, _ in answers], places[0] if places else None))
    if len(gone) > MOST_LEFT_OUT * len(rows):
        first = gone[0]
        text, start = _answers(first.answers, first.where)[0]
        raise UserError(
            f"{first.where}: the answer is not in its text ({len(gone)} of {len(rows)} rows)",
            got=f"'{text[:60]}' at {start}",
            fix="mend the rows or drop them",
        )
    without = sum(not answers for _, answers, _ in kept)
    notes = [f"{name}: {len(gone)} rows are left out, as their answers are not in their texts"] if gone else []
    notes += [f"{name}: {moved} answers are not where answer_start says: the nearest place is taken"] if moved else []
    notes += [f"{name}: {without} of {len(kept)} questions have no answer in their text"] if without else []
    return SquadFile(_made(kept), tuple(notes))


def _place(context: str, text: str, start: int) -> int | None:
    """Where an answer stands: at its start, else at the nearest place."""
    if not text.strip():
        return None
    if start >= 0 and context[start : start + len(text)] == text:
        return start
    places = []
    place = context.find(text)
    while place >= 0:
        places.append(place)
        place = context.find(text, place + 1)
    return min(places, key=lambda one: abs(one - start)) if places else None


def _answers(value: Any, where: str) -> list[_At]:
    """Texts with where they begin."""
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start")
        if isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts):
            return [_answer(*pair, where) for pair in zip(texts, starts, strict=True)]
        if not isinstance(texts, list) and not isinstance(starts, list):
            return [_answer(texts, starts, where)]
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        return [_answer(one.get("text"), one.get("answer_start"), where) for one in value]
    raise UserError(
        f"{where}: the answers have another form",
        got="nothing" if value is None else str(value)[:60],
        allowed='{"text": [...], "answer_start": [...]}, empty lists for no answer',
    )


def _answer(text: Any, start: Any, where: str) -> _At:
    if not isinstance(text, str) or type(start) is not int:
        raise UserError(f"{where}: an answer needs text and answer_start", got=f"{text!r} and {start!r}"[:80])
    return text, start


def _made(rows: Sequence[tuple[_Row, list[str], _At | None]]) -> pa.Table:
    labels = [
        {
            "question": number,
            "answers": answers,
            "text": row.context,
            "start": -1 if placed is None else placed[1],
            "end": -1 if placed is None else placed[1] + len(placed[0]),
        }
        for number, (row, answers, placed) in enumerate(rows)
    ]
    return pa.table(
        {
            QUESTION: [row.question for row, _, _ in rows],
            CONTEXT: [row.context for row, _, _ in rows],
            LABEL: pa.array(labels, LABEL_TYPE),
        }
    )

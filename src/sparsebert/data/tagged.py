"""Files of texts whose words have tags: columns of CoNLL, lists of words and tags, or places of entities in a text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from sparsebert.data.conll import CONLL_SUFFIXES, read_conll
from sparsebert.data.declared import declared_names, with_names
from sparsebert.data.read import column, column_names, missing_column, read_file
from sparsebert.data.text import Written
from sparsebert.errors import UserError
from sparsebert.tasks.class_names import class_name
from sparsebert.tasks.entities import OUTSIDE, begun, joined, marks_entities, tag_parts, tagged_words
from sparsebert.tasks.numbers import number

SUFFIXES = (*CONLL_SUFFIXES, ".jsonl", ".parquet")
TEXT, LABEL = "text", "tags"
"""What the columns of what is read are called."""
# In the order in which they are looked for, where the user names none.
_TEXTS = ("tokens", "words", "text", "sentence")
_TAGS = ("tags", "ner_tags", "pos_tags", "spans", "entities", "labels")
_SPAN_LABELS = ("label", "tag", "type", "entity")
# A letter of IOB and what may be a type, in another spelling.
_ALMOST = re.compile(r"[BILESUbilesu][-_.:]\w+")
Word = dict[str, Any]


@dataclass(frozen=True)
class TaggedFile:
    """Columns TEXT and LABEL, in which each word has `start`, `end` and `tag`; names of tags that the file declares."""

    table: pa.Table
    declared: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def is_tagged(path: Path) -> bool:
    """True if the suffix, in small letters or capitals, is one of files that hold tags."""
    return path.suffix.lower() in SUFFIXES


def read_tagged(
    path: Path, text: str | None = None, label: str | None = None, encoding: str | None = None
) -> TaggedFile:
    """Read a file; `text` and `label` name its columns, none = by what they are usually called.

    Words that are listed are put into one text with spaces between them. An entity that goes on without having begun
    is taken to begin there (IOB1), which a note says. Raises UserError for what cannot be read, lists of different
    lengths, tags that are missing, and entities that overlap or lie beyond their text.
    """
    if not is_tagged(path):
        raise UserError("Tags of words cannot be read from this file", got=path.name, allowed=", ".join(SUFFIXES))
    if path.suffix.lower() in CONLL_SUFFIXES:
        words, tags = read_conll(path, text, label, encoding)
        return _of_lists(words, tags, path.name)
    names = column_names(path, encoding)
    chosen = [_column(path, names, *asked) for asked in ((text, _TEXTS, "text"), (label, _TAGS, "label"))]
    raw = read_file(path, chosen, Written(encoding=encoding))
    where = f"{path.name}, columns '{chosen[0]}' and '{chosen[1]}'"
    values = column(raw, chosen[0], path.name)
    if all(isinstance(value, str) for value in values):
        return _of_places(values, column(raw, chosen[1], path.name), where)
    declared = declared_names(raw, chosen[1], path.name)
    if declared:
        raw = with_names(raw, chosen[1], declared, path.name)
    return _of_lists(values, column(raw, chosen[1], path.name), where, declared)


def _column(path: Path, names: Sequence[str], given: str | None, usual: Sequence[str], what: str) -> str:
    """The column that the user names, or the only one of the usual names; of texts the first."""
    if given is not None:
        return given
    found = [name for name in usual if name in names]
    if not found:
        raise missing_column(usual[0], names, path.name)
    if len(found) > 1 and what == "label":
        raise UserError(
            f"{path.name} has several columns that may hold tags", got=", ".join(found), fix="name one: --label-column"
        )
    return found[0]


def _of_lists(words: Sequence[Any], tags: Sequence[Any], where: str, declared: tuple[str, ...] = ()) -> TaggedFile:
    rows = [
        _row(one, other, f"{where}, row {row}") for row, (one, other) in enumerate(zip(words, tags, strict=True), 1)
    ]
    kept = [([word for word in own if word[0].strip()], len(own)) for own in rows]
    gone = sum(before - len(own) for own, before in kept)
    notes = [f"{gone} tokens without a letter are left out"] if gone else []
    entity = marks_entities({tag for own, _ in kept for _, tag in own})
    _check_one_form({tag for own, _ in kept for _, tag in own}, where)
    mended, places = [], 0
    for own, _ in kept:
        given = [tag for _, tag in own]
        right = begun(given) if entity else given
        places += sum(one != other for one, other in zip(given, right, strict=True))
        text, where_words = joined([word.strip() for word, _ in own])
        mended.append((text, _words(where_words, right)))
    if declared:
        declared = tuple(dict.fromkeys((*declared, *sorted({word["tag"] for _, own in mended for word in own}))))
    if places:
        notes.append(f"{places} tags I- have no B- before them: an entity is taken to begin there")
    meant = sorted({tag for own, _ in kept for _, tag in own if _ALMOST.fullmatch(tag) and tag_parts(tag) is None})
    if not entity and meant:
        notes.append(f"tags such as '{meant[0]}' are each a tag of its own; those of entities are written as B-PER")
    if not entity and all(number(tag) == number(tag) for own, _ in kept for _, tag in own):
        notes.append("the tags are numbers without names, so that entities cannot be told: every word is one")
    return TaggedFile(_table(mended), declared, tuple(notes))


def _check_one_form(tags: set[str], where: str) -> None:
    """Raises UserError for tags of entities among which are others, that would make an entity of every word."""
    others = sorted(tag for tag in tags - {OUTSIDE} if tag_parts(tag) is None)
    if others and len(others) < len(tags - {OUTSIDE}):
        raise UserError(
            f"{where}: tags of entities and others cannot go together",
            got=f"'{others[0]}'",
            allowed=f"{OUTSIDE}, and a letter and a type, such as B-PER",
        )


def _row(words: Any, tags: Any, where: str) -> list[tuple[str, str]]:
    """Words with their tags."""
    if not isinstance(words, list) or not isinstance(tags, list):
        got = f"{type(words).__name__} and {type(tags).__name__}"
        raise UserError(f"{where}: words and tags have to be lists, or the text one string", got=got)
    if len(words) != len(tags):
        raise UserError(f"{where}: as many tags as words are needed", got=f"{len(words)} words, {len(tags)} tags")
    if not any(isinstance(word, str) and word.strip() for word in words):
        raise UserError(f"{where}: there is no word", fix="drop the row")
    others = [type(word).__name__ for word in words if not isinstance(word, str)]
    if others:
        raise UserError(f"{where}: a word must be a string", got=others[0].replace("NoneType", "nothing"))
    return [(word, class_name(tag, where)) for word, tag in zip(words, tags, strict=True)]


def _of_places(texts: Sequence[str], values: Sequence[Any], where: str) -> TaggedFile:
    rows = [
        (text, [Word(zip(("start", "end", "tag"), word, strict=True)) for word in tagged_words(text, spans)])
        for row, (text, given) in enumerate(zip(texts, values, strict=True), start=1)
        for spans in [_spans(text, given, f"{where}, row {row}")]
    ]
    return TaggedFile(_table(rows))


def _spans(text: str, given: Any, where: str) -> list[tuple[int, int, str]]:
    """The entities of a text in order, without spaces at their ends."""
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise UserError(
            f"{where}: the entities of a text are a list of objects",
            got=type(given).__name__,
            allowed='[{"start": 0, "end": 5, "label": "PER"}]',
        )
    found: list[tuple[int, int, str]] = []
    for start, end, label in sorted(_span(one, len(text), where) for one in given):
        inner = text[start:end]
        left = start + len(inner) - len(inner.lstrip())
        if not inner.strip():
            raise UserError(f"{where}: an entity of spaces alone", got=f"{start} to {end}")
        if found and left < found[-1][1]:
            raise UserError(f"{where}: entities overlap", got=f"{found[-1]} and {(start, end, label)}")
        found.append((left, left + len(inner.strip()), label))
    return found


def _span(one: dict[str, Any], letters: int, where: str) -> tuple[int, int, str]:
    key = next((name for name in _SPAN_LABELS if one.get(name) is not None), None)
    start, end = one.get("start"), one.get("end")
    if key is None or type(start) is not int or type(end) is not int:
        raise UserError(f"{where}: an entity needs start, end and label", got=one)
    if not 0 <= start < end <= letters:
        raise UserError(f"{where}: an entity lies beyond its text", got=f"{start} to {end}", allowed=f"0 to {letters}")
    return start, end, class_name(one[key], where)


def _words(places: Iterable[tuple[int, int]], tags: Iterable[str]) -> list[Word]:
    return [{"start": start, "end": end, "tag": tag} for (start, end), tag in zip(places, tags, strict=True)]


def _table(rows: Sequence[tuple[str, list[Word]]]) -> pa.Table:
    word = pa.struct([("start", pa.int64()), ("end", pa.int64()), ("tag", pa.string())])
    return pa.table({TEXT: [text for text, _ in rows], LABEL: pa.array([words for _, words in rows], pa.list_(word))})

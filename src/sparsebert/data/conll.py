"""Files with a word a line and an empty line behind each sentence: CoNLL-2003 and its like, and CoNLL-U."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

from sparsebert.data.text import decoded
from sparsebert.errors import UserError, unknown

CONLL_SUFFIXES = (".conll", ".iob", ".iob2", ".bio", ".conllu")
DOCUMENT = "-DOCSTART-"
UNIVERSAL = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
"""The columns of CoNLL-U."""
Sentences = list[list[str]]


def read_conll(
    path: Path, text: str | None = None, label: str | None = None, encoding: str | None = None
) -> tuple[Sentences, Sentences]:
    """The words of each sentence, and their tags.

    Words are in the first column and tags in the last one, divided by tabs or spaces; of CoNLL-U they are in FORM and
    UPOS, or in the columns that `text` and `label` name. Lines that mark a document, comments of CoNLL-U and its
    ranges and empty nodes are passed over. Raises UserError for a file that is not there, lines without a tag, and
    columns where there are no names.
    """
    if not path.is_file():
        raise UserError("The data file does not exist", got=path)
    universal = path.suffix.lower() == ".conllu"
    if not universal and (text or label):
        raise UserError(
            f"The columns of {path.name} have no names",
            got=label or text,
            fix="the first is the word, the last the tag",
        )
    places = (_place(text or "FORM"), _place(label or "UPOS")) if universal else (0, -1)
    words: Sentences = []
    tags: Sentences = []
    for sentence in _sentences(path, encoding, universal):
        words.append([cells[places[0]] for cells in sentence])
        tags.append([cells[places[1]] for cells in sentence])
    if not words:
        raise UserError("The data file has no rows", got=path)
    return words, tags


def _place(name: str) -> int:
    if name.upper() not in UNIVERSAL:
        raise unknown("column of CoNLL-U", name, UNIVERSAL)
    return UNIVERSAL.index(name.upper())


def _sentences(path: Path, encoding: str | None, universal: bool) -> Iterator[Sentences]:
    """The cells of the words of each sentence."""
    sentence: Sentences = []
    text = decoded(path.read_bytes(), path.name, encoding)
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        cells = _cells(line, universal)
        if not cells and sentence:
            yield sentence
            sentence = []
        if not cells or cells[0] == DOCUMENT or (universal and not cells[0].isdigit()):
            continue
        if not universal and sentence and len(cells) != len(sentence[0]):
            what = f"{path.name}, line {number}: {len(cells)} columns, and {len(sentence[0])} in the line before"
            raise UserError(what, got=line.strip()[:40])
        if len(cells) < (len(UNIVERSAL) if universal else 2):
            wanted = f"{len(UNIVERSAL)} columns" if universal else "a word and its tag"
            raise UserError(f"{path.name}, line {number}: needs {wanted}", got=line.strip()[:40])
        sentence.append(cells)
    if sentence:
        yield sentence


def _cells(line: str, universal: bool) -> list[str]:
    if universal:
        return [] if not line.strip() else line.rstrip("\n").split("\t")
    # Spaces that do not break a line may stand within words.
    text = line.strip(" \t\r\n")
    return re.split("\t+" if "\t" in text else " +", text) if text else []

"""Texts that are longer than a model reads, in parts: cut where sentences end, so that little is torn apart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from sparsebert.tasks.answers import Letters

# Marks behind which a sentence is over, as far as letters before a place tell; a line's end does as well.
_SENTENCE = re.compile(r"(?:[.!?…。！？][\"'”’)\]]*\s+|[。！？]|\n\s*)$")
_LETTERS = 12
OVERLAP = 3
"""What part of a window the next one begins with: one of so many."""


def parts_of(text: str, offsets: Sequence[Letters], limit: int) -> list[Letters]:
    """Where the parts of a text begin and end, in characters, each of at most `limit` tokens, special ones included.

    `offsets` are the places of the tokens of the whole text. A part ends behind a sentence or a line in its second
    half where there is one, else between words, else between tokens.
    """
    tokens = [place for place in offsets if place[0] < place[1]]
    room = max(1, limit - (len(offsets) - len(tokens)))
    borders, first = [0], 0
    while len(tokens) - first > room:
        first = _next(text, tokens, first, room)
        borders.append(_start(text, tokens[first]))
    return list(pairwise([*borders, len(text)]))


def windows_of(text: str, offsets: Sequence[Letters], room: int) -> list[Letters]:
    """Where the windows of a text begin and end, in characters, each of at most `room` tokens, without special ones.

    A third of a window is in the next one too, and a little more where that makes it begin with a word: an answer that
    one of them cuts is whole in the other.
    """
    tokens = [place for place in offsets if place[0] < place[1]]
    found, first = [], 0
    while len(tokens) - first > room:
        found.append((_start(text, tokens[first]) if first else 0, tokens[first + room - 1][1]))
        wanted = range(first + room - room // OVERLAP, first + room // 2, -1)
        apart = (text[_start(text, tokens[token]) - 1].isspace() for token in wanted)
        first = next(iter(_first(wanted, apart)), max(first + 1, first + room - room // OVERLAP))
    return [*found, (_start(text, tokens[first]) if first else 0, len(text))]


def _next(text: str, tokens: Sequence[Letters], first: int, room: int) -> int:
    """The token that the next part begins with."""
    choices = range(first + room, first + room // 2, -1)
    starts = [_start(text, tokens[token]) for token in choices]
    ended = (bool(_SENTENCE.search(text[max(0, start - _LETTERS) : start])) for start in starts)
    apart = (text[start - 1].isspace() for start in starts)
    # Between tokens of one place, as the bytes of a letter are, nothing is to be cut.
    new = (tokens[token][0] >= tokens[token - 1][1] for token in choices)
    return next(token for fits in (ended, apart, new, iter([True])) for token in _first(choices, fits))


def _first(choices: Sequence[int], fits: Iterator[bool]) -> list[int]:
    return next(([token] for token, fit in zip(choices, fits, strict=False) if fit), [])


def _start(text: str, token: Letters) -> int:
    """The first letter: some tokenizers count the space before a word as part of its first token."""
    letters = text[slice(*token)]
    return token[0] + len(letters) - len(letters.lstrip())

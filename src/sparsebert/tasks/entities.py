"""Tags of words, the entities that they stand for, and where words and entities stand in a text."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

import numpy as np

from sparsebert.tasks.kind import Passage

OUTSIDE = "O"
BEGIN, INSIDE = "B", "I"
_BEGINS, _GOES_ON = frozenset("BSU"), frozenset("IELM")
_TAG = re.compile(r"([BIESLUM])-(.+)")
# Scripts that put no spaces between words: each letter is one.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# Marks on letters, which are no letters by themselves: accents, vowel signs, joiners, soft hyphens.
MARKS = (
    "\u0300-\u036f\u0483-\u0489\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0711\u0730-\u074a\u07a6-\u07b0"
    "\u0816-\u082d\u0859-\u085b\u08d3-\u0963\u0966-\u0dff\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f"
    "\u00ad\u200b-\u200d"
)
_LETTERS = rf"(?![{UNSPACED}])\w(?:(?![{UNSPACED}])[\w{MARKS}])*"
# A word goes on behind a sign that stands within words.
_WORD = re.compile(rf"[{UNSPACED}]|{_LETTERS}(?:[-.'’@&]{_LETTERS})*|[^\w\s][{MARKS}]*")

Entity = tuple[int, int, int]
"""The number of its type, its first word, and the word after its last."""


def tag_parts(tag: str) -> tuple[str, str] | None:
    """The letter and the type of a tag of an entity, as of `B-PER`; none for another tag."""
    found = _TAG.fullmatch(tag)
    return None if found is None else (found[1], found[2])


def marks_entities(names: Iterable[str]) -> bool:
    """Whether tags are those of entities: `O`, and letter and type (IOB, IOBES, BILOU) with one entity at least."""
    others = [name for name in names if name != OUTSIDE]
    return bool(others) and all(tag_parts(name) is not None for name in others)


def types_of(names: Sequence[str]) -> tuple[str, ...]:
    """The types of entities by number, in the order in which tags name them; of other tags each is a type itself."""
    if not marks_entities(names):
        return tuple(names)
    return tuple(dict.fromkeys(parts[1] for name in names if (parts := tag_parts(name)) is not None))


def tag_codes(names: Sequence[str]) -> np.ndarray:
    """For each tag [tags]: 0 outside of entities, 2t + 1 where one of type t begins, 2t + 2 where it goes on.

    Of tags that are none of entities each word begins one, whose type is its tag.
    """
    types = {name: number for number, name in enumerate(types_of(names))}
    if not marks_entities(names):
        return np.array([2 * types[name] + 1 for name in names])
    parts = [tag_parts(name) for name in names]
    return np.array([0 if one is None else 2 * types[one[1]] + 1 + (one[0] in _GOES_ON) for one in parts])


def entities(codes: Iterable[int]) -> list[Entity]:
    """The entities of a row of words by their codes.

    One that goes on without having begun begins there, as in conlleval.
    """
    found: list[Entity] = []
    kind, start, place = -1, 0, -1
    for place, code in enumerate(codes):
        own = (code - 1) // 2
        if kind >= 0 and (code == 0 or code % 2 or own != kind):
            found.append((kind, start, place))
            kind = -1
        if code and kind < 0:
            kind, start = own, place
    return [*found, (kind, start, place + 1)] if kind >= 0 else found


def begun(tags: Sequence[str]) -> list[str]:
    """The tags of a row with `B` for an `I` that goes on with nothing (IOB1 as IOB2); those of other forms as they are.

    A row that names other letters than these two is of another form.
    """
    parts = [tag_parts(tag) for tag in tags]
    if any(one is not None and one[0] not in (BEGIN, INSIDE) for one in parts):
        return list(tags)
    found, before = [], None
    for tag, one in zip(tags, parts, strict=True):
        starts = one is not None and one[0] == INSIDE and (before is None or before[1] != one[1])
        found.append(f"{BEGIN}-{one[1]}" if starts and one is not None else tag)
        before = one
    return found


def in_tag_order(names: Iterable[str]) -> tuple[str, ...]:
    """What is outside first, then type by type; other tags alphabetically."""
    known = set(names)
    if not marks_entities(known):
        return tuple(sorted(known))

    def place(name: str) -> tuple[str, str]:
        letter, kind = tag_parts(name) or ("", "")
        return kind, letter

    return tuple(sorted(known, key=place))


def words_in(text: str) -> list[tuple[int, int]]:
    """Where the words of a text stand: letters and digits with signs within, or one other sign."""
    return [found.span() for found in _WORD.finditer(text)]


def joined(words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """A text of these words with spaces between them, and where each stands."""
    places, end = [], 0
    for word in words:
        places.append((end, end + len(word)))
        end += len(word) + 1
    return " ".join(words), places


def tagged_words(text: str, spans: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """The words of a text with their tags (IOB2), of entities (start, end, type) in order, which do not overlap.

    A word that an entity ends within is two words.
    """
    borders = sorted({edge for start, end, _ in spans for edge in (start, end)})
    starts = [span[0] for span in spans]
    found, before = [], None
    for left, right in words_in(text):
        edges = [left, *borders[bisect_right(borders, left) : bisect_left(borders, right)], right]
        for start, end in itertools.pairwise(edges):
            place = bisect_right(starts, start) - 1
            own = place if place >= 0 and start < spans[place][1] else None
            tag = OUTSIDE if own is None else f"{INSIDE if own == before else BEGIN}-{spans[own][2]}"
            found.append((start, end, tag))
            before = own
    return found


def first_tokens(words: Sequence[tuple[int, int]], passage: Passage) -> list[int]:
    """For each word (start, end), in order, the number of the first token of a passage that begins in it; -1 for none.

    There is none where the text was cut before the word, and where a token of another word holds it whole.
    """
    ends, found = [end for _, end in words], [-1] * len(words)
    for token, (start, end) in enumerate(passage.offsets):
        letters = passage.text[start:end]
        # Some tokenizers count the space before a word as part of its first token.
        first = start + len(letters) - len(letters.lstrip())
        place = bisect_right(ends, first)
        if first < end and place < len(words) and words[place][0] <= first and found[place] < 0:
            found[place] = token
    return found

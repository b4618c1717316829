"""Questions about texts that are longer than a model reads: windows of the text, each behind the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from statistics import median

from sparsebert.data.passages import Letters, windows_of
from sparsebert.data.tokens import Reader
from sparsebert.errors import UserError

_PAIR = (["a"], ["b"])
_SOME = 2000
LEAST_ROOM = 8
"""Tokens of a text beside the question; in fewer there is hardly an answer with words around it."""


@dataclass(frozen=True)
class Windows:
    """A question as it is read, whether it was cut, and where the windows of its text begin and end, in characters."""

    question: str
    cut: bool
    places: list[Letters]


def windows_of_pairs(reader: Reader, questions: Sequence[str], contexts: Sequence[str]) -> list[Windows]:
    """How each pair is read, in windows that fit the reader's limit with the question; equal texts are read once.

    A question takes half of what is read at most, and what is more of it is cut.
    """
    tokens = {text: _real(places) for text, places in _places(reader, [*questions, *contexts])}
    special = _special(reader)
    most = _most(reader.limit, special)
    found, known = [], dict[tuple[str, int], list[Letters]]()
    for question, context in zip(questions, contexts, strict=True):
        own = tokens[question]
        asked = question if len(own) <= most else question[: own[most - 1][1]]
        key = context, max(1, reader.limit - special - min(len(own), most))
        if key not in known:
            known[key] = windows_of(context, tokens[context], key[1])
        found.append(Windows(asked, asked != question, known[key]))
    return found


def check_room(reader: Reader, questions: Sequence[str]) -> None:
    """Raises UserError for a limit that leaves hardly a token for the text beside a question of median length."""
    length = round(median(len(_real(places)) for _, places in _places(reader, questions[:_SOME])))
    special = _special(reader)

    def room(limit: int) -> int:
        return limit - special - min(length, _most(limit, special))

    if room(reader.limit) < LEAST_ROOM:
        enough = next(limit for limit in count(reader.limit) if room(limit) >= LEAST_ROOM)
        raise UserError(
            f"max_length leaves {max(0, room(reader.limit))} tokens for the text beside a question, of which half have "
            f"{length} or more",
            got=f"{reader.limit} tokens",
            allowed=f"{enough} up",
        )


def _special(reader: Reader) -> int:
    """How many special tokens a pair has."""
    ids = reader.read(*_PAIR)[0]["input_ids"][0]
    return len(ids) - sum(len(_real(reader.places(text)[0])) for text in _PAIR)


def _most(limit: int, special: int) -> int:
    """Tokens that are read of a question."""
    return max(1, (limit - special) // 2)


def _places(reader: Reader, texts: Sequence[str]) -> list[tuple[str, Sequence[Letters]]]:
    different = list(dict.fromkeys(texts))
    return list(zip(different, reader.places(different), strict=True))


def _real(places: Sequence[Letters]) -> list[Letters]:
    """Without special tokens."""
    return [place for place in places if place[0] < place[1]]

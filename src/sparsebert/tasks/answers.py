"""Answers that stand in a text: what they may begin and end with, which one a model gives, and how right that is."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sparsebert.tasks.entities import MARKS, UNSPACED

Letters = tuple[int, int]
MOST_PIECES = 30
"""Of an answer, as the official scripts have 30 tokens."""
NO_ANSWER = ""
# A logit that nothing real comes near; infinite ones would be no numbers in sums and products.
LOWEST = -1e4
_PIECE = re.compile(rf"[{UNSPACED}]|(?:(?![{UNSPACED}])[^\W\d_][{MARKS}]*)+|\d+|[^\w\s][{MARKS}]*|_")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class FoundAnswer:
    """The best span of letters in a text; `lead` is the sum of its two logits less that of there being no answer.

    `chance` is the probability of its start times that of its end, among all places of the window it was found in.
    `window` is the number of that window. A window without a place for an answer has none: `span` is None then.
    """

    span: Letters | None
    lead: float
    chance: float
    window: int

    @property
    def given(self) -> bool:
        """Whether it is likelier than that there is no answer."""
        return self.span is not None and self.lead >= 0

    @property
    def answerable(self) -> float:
        """The probability that there is an answer, of the best span and none."""
        return float(1 / (1 + np.exp(-np.clip(self.lead, -500, 500))))


def pieces_in(text: str) -> list[Letters]:
    """Where an answer may begin and end: letters in a row, digits in a row, and other signs each by itself.

    So are letters of scripts that put no spaces between words.
    """
    return [found.span() for found in _PIECE.finditer(text)]


def pieces_of(span: Letters, pieces: Sequence[Letters]) -> tuple[int, int] | None:
    """The first and the last of the pieces that a span of letters touches; None where it touches none."""
    inside = [place for place, (start, end) in enumerate(pieces) if start < span[1] and end > span[0]]
    return (inside[0], inside[-1]) if inside else None


def piece_tokens(text: str, pieces: Sequence[Letters], offsets: Sequence[Letters]) -> list[list[int]]:
    """For each piece the token that begins with it and the one that ends with it, -1 where none does.

    `offsets` are the places of all tokens of a row in `text`, the same place twice for those of another text.
    """
    begin: dict[int, int] = {}
    end: dict[int, int] = {}
    for token, (start, stop) in enumerate(offsets):
        letters = text[start:stop]
        if letters.strip():
            begin.setdefault(start + len(letters) - len(letters.lstrip()), token)
            end[start + len(letters.rstrip())] = token
    return [[begin.get(start, -1), end.get(stop, -1)] for start, stop in pieces]


def best_answer(windows: Sequence[tuple[np.ndarray, Sequence[Letters]]]) -> FoundAnswer:
    """The answer of a model that read a text in windows.

    Each is logits of a start and of an end [1 + pieces, 2], the first for there being no answer, and the pieces. An
    answer is the pair of pieces, the end not before the start and at most MOST_PIECES long, whose logits have the
    highest sum, in any window; that of no answer is the lowest of all windows (Devlin et al. 2019, arXiv:1810.04805,
    section 4.3, and its script for long texts). A logit of 0 stands for a place without a token.
    """
    found: list[tuple[float, int, Letters, float]] = []
    nothing = min(float(logits[0].astype(np.float64).sum()) for logits, _ in windows)
    for number, (logits, pieces) in enumerate(windows):
        own = _padded(logits, len(pieces))
        if len(pieces):
            score, first, last = _best_pair(own[1:])
            chance = float(np.exp(own[[first + 1, last + 1], [0, 1]] - _log_sums(own)).prod())
            found.append((score, number, (pieces[first][0], pieces[last][1]), chance))
    if not found:
        return FoundAnswer(None, LOWEST, 0.0, 0)
    score, number, span, chance = max(found, key=lambda one: (one[0], -one[1]))
    return FoundAnswer(span, score - nothing, chance, number)


def _padded(logits: np.ndarray, pieces: int) -> np.ndarray:
    """The logits [1 + pieces, 2] in float64, LOWEST where a place has no token."""
    own = np.full((1 + pieces, 2), LOWEST)
    given = logits[: 1 + pieces].astype(np.float64)
    own[: len(given)] = np.where(given == 0, LOWEST, given)
    return own


def _best_pair(logits: np.ndarray) -> tuple[float, int, int]:
    """The highest sum of a start and of an end that is not before it, and their places."""
    ends = np.concatenate([logits[:, 1], np.full(MOST_PIECES - 1, 2 * LOWEST)])
    sums = logits[:, :1] + np.lib.stride_tricks.sliding_window_view(ends, MOST_PIECES)
    first, more = np.unravel_index(int(sums.argmax()), sums.shape)
    return float(sums[first, more]), int(first), int(first + more)


def _log_sums(logits: np.ndarray) -> np.ndarray:
    highest = logits.max(axis=0)
    return highest + np.log(np.exp(logits - highest).sum(axis=0))


def normalised(text: str) -> str:
    """Small letters, without ASCII punctuation and English articles, single spaces: the script of SQuAD."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def answer_scores(given: str, right: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 of words of a given answer, each the highest over the right ones (SQuAD, evaluate-v2.0.py).

    Without a right answer both are 1 where none is given, else 0.
    """
    # As the script has it: right answers that are nothing but articles and signs are none.
    wanted = [answer for answer in right if normalised(answer)] or [NO_ANSWER]
    pairs = [_pair_scores(normalised(given), normalised(answer)) for answer in wanted]
    return max(exact for exact, _ in pairs), max(f1 for _, f1 in pairs)


def _pair_scores(given: str, right: str) -> tuple[float, float]:
    own, wanted = given.split(), right.split()
    if not own or not wanted:
        return float(own == wanted), float(own == wanted)
    shared = sum((Counter(own) & Counter(wanted)).values())
    return float(given == right), 2 * shared / (len(own) + len(wanted))


def grouped(numbers: Sequence[int]) -> Iterator[list[int]]:
    """Places of equal numbers, in the order in which these come first."""
    found: dict[int, list[int]] = {}
    for place, number in enumerate(numbers):
        found.setdefault(number, []).append(place)
    yield from found.values()

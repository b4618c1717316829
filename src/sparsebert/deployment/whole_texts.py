"""Texts of any length for a model of words, or of answers: read in parts or windows, and put together again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from sparsebert.data.batches import stacked
from sparsebert.data.passages import Letters
from sparsebert.data.tokens import WINDOW_TEXTS, ReadTexts
from sparsebert.data.windows import windows_of_pairs
from sparsebert.tasks.answers import piece_tokens, pieces_in

if TYPE_CHECKING:
    from sparsebert.deployment.predictor import Source

_Row = tuple[np.ndarray, Sequence[Letters]]


def read_whole(source: Source, texts: Sequence[str], done: Callable[[int], None]) -> Iterator[ReadTexts]:
    """The outputs of all tokens of texts [texts, tokens, ...], of which none is cut, and where these stand.

    Each part of a text brings its own special tokens, which have no letters. Raises UserError as a Source does.
    """
    for start in range(0, len(texts), WINDOW_TEXTS):
        window = texts[start : start + WINDOW_TEXTS]
        parts = source.reader.parts(window)
        read = (text[slice(*place)] for text, places in zip(window, parts, strict=True) for place in places)
        # Where texts have several parts, how far it is can be told of a window only.
        whole = all(len(places) == 1 for places in parts)
        rows = _rows(source, list(read), done if whole else lambda count: None)
        yield _joined([list(islice(rows, len(places))) for places in parts], parts)
        if not whole:
            done(len(window))


def read_in_windows(
    source: Source, questions: Sequence[str], texts: Sequence[str], done: Callable[[int], None]
) -> Iterator[ReadTexts]:
    """Logits of all places of texts [texts, places, 2] where an answer may start and end, and which letters these are.

    Those of each window of a text come one after the other, each begun by that of no answer, which has no letters.
    `cut` are questions that are too long. Raises UserError as a Source does.
    """
    for start in range(0, len(texts), WINDOW_TEXTS):
        part = slice(start, start + WINDOW_TEXTS)
        pairs = windows_of_pairs(source.reader, questions[part], texts[part])
        flat = [
            (one.question, text[slice(*place)])
            for one, text in zip(pairs, texts[part], strict=True)
            for place in one.places
        ]
        whole = len(flat) == len(pairs)
        rows = _rows(
            source, [asked for asked, _ in flat], done if whole else lambda count: None, [text for _, text in flat]
        )
        outputs: dict[int, np.ndarray] = {}
        letters: list[list[Letters]] = []
        for row, (one, text) in enumerate(zip(pairs, texts[part], strict=True)):
            read = [_of_pieces(next(rows), text, place) for place in one.places]
            outputs[row] = np.concatenate([values for values, _ in read])
            letters.append([place for _, places in read for place in places])
        cut = {row for row, one in enumerate(pairs) if one.cut}
        yield ReadTexts(stacked(outputs, [range(len(places)) for places in letters]), cut, letters)
        if not whole:
            done(len(pairs))


def _of_pieces(row: _Row, text: str, window: Letters) -> _Row:
    """The logits of a window's tokens as those of its pieces, and where these stand in the whole text."""
    inside = text[slice(*window)]
    pieces = pieces_in(inside)
    tokens = [[0, 0], *piece_tokens(inside, pieces, row[1])]
    places = [(0, 0), *((window[0] + start, window[0] + end) for start, end in pieces)]
    return stacked({0: row[0]}, [tokens])[0], places


def _rows(
    source: Source, parts: Sequence[str], done: Callable[[int], None], second: Sequence[str] | None = None
) -> Iterator[_Row]:
    for read in source.logits(parts, second, done):
        assert read.offsets is not None, "the reader says where tokens stand"
        for outputs, offsets in zip(read.outputs, read.offsets, strict=True):
            yield outputs[: len(offsets)], offsets


def _joined(texts: Sequence[Sequence[_Row]], parts: Sequence[Sequence[Letters]]) -> ReadTexts:
    outputs = {row: np.concatenate([values for values, _ in found]) for row, found in enumerate(texts)}
    offsets = [
        [
            (start + one, start + other)
            for (_, places), (start, _) in zip(found, begun, strict=True)
            for one, other in places
        ]
        for found, begun in zip(texts, parts, strict=True)
    ]
    return ReadTexts(stacked(outputs, [range(len(places)) for places in offsets]), set(), offsets)

"""Texts of any length for a model of words: read in parts, and put together as if they had been read at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from sparsebert.data.batches import stacked
from sparsebert.data.passages import Letters
from sparsebert.data.tokens import WINDOW_TEXTS, ReadTexts

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


def _rows(source: Source, parts: Sequence[str], done: Callable[[int], None]) -> Iterator[_Row]:
    for read in source.logits(parts, None, done):
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

"""What a check of two deployed models is asked about, and what it found."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import Field

from sparsebert.data.meant import Label, label_columns
from sparsebert.data.read import read_file
from sparsebert.data.text import Written
from sparsebert.deployment.predictor import Predictor
from sparsebert.records import Flip, Part, Score

TIMED_TEXTS = 200


class LabelRecall(Part):
    """Part of a label's rows that each model finds."""

    label: str
    rows: int
    first: float
    second: float

    @property
    def drop(self) -> float:
        """Points that the second model loses."""
        return 100 * (self.first - self.second)


class Latency(Part):
    """Milliseconds of one text at a time, both models in turn on the same texts, tokenisation included."""

    texts: int
    first_ms: tuple[float, float] = Field(description="median and 95th percentile")
    second_ms: tuple[float, float]
    speedup: float = Field(description="median over texts of the first model's time by the second's")


class CheckResult(Part):
    """What was found on `rows` texts; `failures` are the limits that are passed, in words, none where all hold."""

    rows: int
    runtimes: tuple[str, str]
    metric: str | None = None
    first: tuple[Score, ...] = ()
    second: tuple[Score, ...] = ()
    mixed: tuple[Score, ...] = Field(
        default=(), description="of vectors: what is stored by the first model, and asked for by the second"
    )
    recalls: tuple[LabelRecall, ...] = ()
    agreement: float | None = Field(default=None, description="part of the texts, or words, that are decided alike")
    by_head: bool = Field(default=False, description="whether that is by classifiers of vectors, beside the models")
    words: int | None = Field(default=None, description="of the texts, where each of them has a class")
    largest_difference: float | None = Field(
        default=None, description="of the outputs; none for vectors of different lengths"
    )
    notes: tuple[str, ...] = ()
    flips: tuple[Flip, ...] = ()
    latency: Latency
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckedTexts:
    """A file of texts: its columns, and that of the labels, or one for each, none where there are none.

    `by_query`: the second texts of each first one are to be put in order.
    """

    file: Path
    text: tuple[str, ...]
    label: Label | None
    written: Written
    by_query: bool = False

    @cached_property
    def table(self) -> pa.Table:
        """Its columns. Raises UserError for a file that cannot be read, and a column that it has not."""
        return read_file(self.file, [*self.text, *(label_columns(self.label) if self.label else ())], self.written)


def latency_of(first: Predictor, second: Predictor, texts: Sequence[str], pair: Sequence[str] | None) -> Latency:
    """Both in turn; which begins changes from text to text."""
    return in_turns((_asks(first, texts, pair), _asks(second, texts, pair)), len(texts))


def in_turns(asks: tuple[Callable[[int], None], Callable[[int], None]], texts: int) -> Latency:
    """Times of what asks each of two models about the text of a number, as `latency_of` has it."""
    step = max(1, texts // TIMED_TEXTS)
    chosen = [*range(0, texts, step)][:TIMED_TEXTS]
    for ask in asks:
        ask(0)
    times = np.zeros((len(chosen), 2))
    for place, row in enumerate(chosen):
        for which in ((0, 1), (1, 0))[place % 2]:
            start = time.perf_counter()
            asks[which](row)
            times[place, which] = 1000 * (time.perf_counter() - start)
    middle, late = np.percentile(times, [50, 95], axis=0)
    return Latency(
        texts=len(chosen),
        first_ms=(float(middle[0]), float(late[0])),
        second_ms=(float(middle[1]), float(late[1])),
        speedup=float(np.median(times[:, 0] / times[:, 1])),
    )


def _asks(model: Predictor, texts: Sequence[str], pair: Sequence[str] | None) -> Callable[[int], None]:
    def ask(row: int) -> None:
        for _ in model.read([texts[row]], None if pair is None else [pair[row]]):
            pass

    return ask

"""A gate before going live: two deployed models on the user's own texts, answer by answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset
from pydantic import Field

from sparsebert.data.read import column, read_file
from sparsebert.data.rows import standard_rows
from sparsebert.data.text import Written
from sparsebert.deployment.predictor import Predictor
from sparsebert.errors import UserError
from sparsebert.records import Decisions, Flip, Part, Score
from sparsebert.runs.scoring import decisions, split_scores
from sparsebert.tasks.kind import TaskKind, task_kind
from sparsebert.tasks.table import TaskSpec

FEWEST_ROWS = 20
"""Of a label, for its loss to count: one of fewer rows is a point of many points."""
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
    recalls: tuple[LabelRecall, ...] = ()
    agreement: float | None = Field(default=None, description="part of the texts given the same class, if any")
    largest_difference: float = Field(description="of the outputs")
    flips: tuple[Flip, ...] = ()
    latency: Latency
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckedTexts:
    """A file of texts: its columns, and that of the labels, none where there are none."""

    file: Path
    text: tuple[str, ...]
    label: str | None
    written: Written

    @cached_property
    def table(self) -> pa.Table:
        """Its columns. Raises UserError for a file that cannot be read, and a column that it has not."""
        return read_file(self.file, [*self.text, *([self.label] if self.label else [])], self.written)


def check(
    first: Predictor,
    second: Predictor,
    given: CheckedTexts,
    max_drop: float | None = None,
    done: Callable[[int], None] = lambda count: None,
) -> CheckResult:
    """Ask both models everything, and compare.

    Vectors have no labels: those of the first model stand for them. With labels the gate is the main metric, and the
    recall of every label of FEWEST_ROWS rows or more, which may fall by `max_drop` points at most; without, that part
    of the texts, in points, which may get another class. `done` is told how many answers are ready. Raises UserError
    for a file that cannot be read, for models of different tasks, and for a limit where there is nothing to hold to it.
    """
    spec, raw = _task(first, second, given), given.table
    sides = [[str(text) for text in column(raw, name, given.file.name)] for name in given.text]
    pair = sides[1] if len(sides) > 1 else None
    rows = standard_rows(raw, spec, given.file.name, empty_text=True) if given.label else _unlabelled(sides)
    if given.label and not first.kind.labelled:
        raise UserError(f"Models of kind {first.kind_name} have no labels", got=given.label, fix="leave them out")
    outputs = [one.outputs(sides[0], pair, done) for one in (first, second)]
    latency = _latency(first, second, sides[0], pair)
    told = given.label is not None or not first.kind.labelled
    found = _compared(spec, rows, outputs, told, (str(first.runtime), str(second.runtime)), latency)
    return found.model_copy(update={"failures": _failures(found, max_drop)})


def _task(first: Predictor, second: Predictor, given: CheckedTexts) -> TaskSpec:
    if (first.kind, first.labels) != (second.kind, second.labels):
        raise UserError(
            "The two models are not for the same task",
            got=f"{second.kind_name} of {', '.join(second.labels)}",
            allowed=f"{first.kind_name} of {', '.join(first.labels)}",
        )
    labels = first.labels if first.kind.named else ()
    name = first.kind_name
    return TaskSpec("check", given.text, labels, first.kind.metrics, "", label=given.label or "", kind=name)


def _unlabelled(sides: Sequence[Sequence[str]]) -> Dataset:
    return Dataset.from_dict(dict(zip(("text_a", "text_b"), sides, strict=False)))


def _compared(
    spec: TaskSpec,
    rows: Dataset,
    outputs: Sequence[np.ndarray],
    labelled: bool,
    runtimes: tuple[str, str],
    latency: Latency,
) -> CheckResult:
    first, second = outputs
    kind = task_kind(spec.kind)
    labels = _labels(kind, rows, first, labelled)
    told: Decisions | None = decisions(spec, rows, second, labels, first)
    scores: list[tuple[Score, ...]] = [(), ()]
    if labelled:
        constant = kind.constant(labels, spec.labels)
        scores[0] = tuple(split_scores(spec, "texts", first, labels, constant))
        scores[1] = tuple(split_scores(spec, "texts", second, labels, constant, first))
    return CheckResult(
        rows=len(first),
        runtimes=runtimes,
        metric=spec.main_metric if labelled else None,
        first=scores[0],
        second=scores[1],
        recalls=_recalls(spec.labels, labels, first, second) if labelled and kind.exclusive else (),
        agreement=told.agreement if told else None,
        largest_difference=float(np.abs(first - second).max()),
        flips=told.flips if told else (),
        latency=latency,
    )


def _labels(kind: TaskKind, rows: Dataset, first: np.ndarray, labelled: bool) -> np.ndarray:
    """Those of the rows; where there are none, what the first model says, by class or, of vectors, as it is."""
    if not kind.labelled:
        return first
    return np.array(list(rows["label"])) if labelled else first.argmax(-1)


def _recalls(
    names: Sequence[str], labels: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[LabelRecall, ...]:
    chosen = [outputs.argmax(-1) for outputs in (first, second)]
    found = []
    for number, name in enumerate(names):
        own = labels == number
        if own.any():
            recalls = [float(np.mean(one[own] == number)) for one in chosen]
            found.append(LabelRecall(label=name, rows=int(own.sum()), first=recalls[0], second=recalls[1]))
    return tuple(found)


def _latency(first: Predictor, second: Predictor, texts: Sequence[str], pair: Sequence[str] | None) -> Latency:
    """Both in turn; which begins changes from text to text."""
    step = max(1, len(texts) // TIMED_TEXTS)
    chosen = [*range(0, len(texts), step)][:TIMED_TEXTS]
    _one(first, texts, pair, 0)
    _one(second, texts, pair, 0)
    times = np.zeros((len(chosen), 2))
    for place, row in enumerate(chosen):
        for which in ((0, 1), (1, 0))[place % 2]:
            times[place, which] = _one((first, second)[which], texts, pair, row)
    middle, late = np.percentile(times, [50, 95], axis=0)
    return Latency(
        texts=len(chosen),
        first_ms=(float(middle[0]), float(late[0])),
        second_ms=(float(middle[1]), float(late[1])),
        speedup=float(np.median(times[:, 0] / times[:, 1])),
    )


def _one(model: Predictor, texts: Sequence[str], pair: Sequence[str] | None, row: int) -> float:
    start = time.perf_counter()
    model.outputs([texts[row]], None if pair is None else [pair[row]])
    return 1000 * (time.perf_counter() - start)


def _failures(found: CheckResult, max_drop: float | None) -> tuple[str, ...]:
    if max_drop is None:
        return ()
    if not found.first and found.agreement is None:
        raise UserError("--max-drop needs labels: these models give no classes that could differ", fix="--label-column")
    failures = []
    if found.first:
        lost = 100 * (found.first[0].value - found.second[0].value)
        if lost > max_drop:
            failures.append(f"{found.first[0].metric} falls by {lost:.2f} points")
        failures += [
            f"recall of {one.label} falls by {one.drop:.2f} points ({one.rows} rows)"
            for one in found.recalls
            if one.rows >= FEWEST_ROWS and one.drop > max_drop
        ]
    elif found.agreement is not None and 100 * (1 - found.agreement) > max_drop:
        failures.append(f"{100 * (1 - found.agreement):.2f} of 100 texts get another class")
    return tuple(failures)

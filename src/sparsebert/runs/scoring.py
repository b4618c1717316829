"""What a model's outputs are worth: scores beside chance, and decisions beside those of the dense model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset

from sparsebert.records import Decisions, Flip, Score, TypeCount
from sparsebert.tasks.bootstrap import (
    FEWEST,
    MOST_ROWS,
    RESAMPLES,
    difference_interval,
    interval,
    resampled_ratios,
    resampled_scores,
)
from sparsebert.tasks.entities import types_of
from sparsebert.tasks.kind import IGNORED, ConstantAnswer, TaskKind, task_kind
from sparsebert.tasks.masked_lm import COUNT, LOSS
from sparsebert.tasks.metrics import constant_scores, score_with_reasons
from sparsebert.tasks.table import TaskSpec
from sparsebert.tasks.tokens import entity_counts

MOST_FLIPS = 20
MOST_LETTERS = 300
# Of a text in which a word is shown.
NEAR_LETTERS = 200
# A table of decisions has as many numbers as the square of this.
MOST_CLASSES = 100


def split_scores(
    spec: TaskSpec,
    split: str,
    logits: np.ndarray,
    labels: np.ndarray,
    constant: ConstantAnswer,
    dense: np.ndarray | None = None,
) -> list[Score]:
    """The task's metrics on one split, each with its interval and what the `constant` answer would score.

    With the `dense` model's logits of the same rows, also the interval of the difference from it. A metric without a
    value is left out.
    """
    kind = task_kind(spec.kind)
    always, _ = kind.scored(constant.everywhere(labels), labels, spec.labels)
    dense = None if dense is None else kind.scored(dense, labels, spec.labels)[0]
    logits, labels = kind.scored(logits, labels, spec.labels)
    return values_scores(spec, split, logits, labels, always, dense)


def values_scores(
    spec: TaskSpec,
    split: str,
    logits: np.ndarray,
    labels: np.ndarray,
    always: np.ndarray,
    dense: np.ndarray | None = None,
) -> list[Score]:
    """The same of what metrics take: of outputs and labels, those `always` given, and those of the `dense` model."""
    values, _ = score_with_reasons(spec.metrics, logits, labels)
    baselines = constant_scores(spec.metrics, always, labels)
    return [
        Score(
            metric=name,
            value=value,
            split=split,
            examples=len(logits),
            baseline=baselines.get(name),
            **_intervals(partial(resampled_scores, name, labels=labels), logits, dense),
        )
        for name, value in values.items()
    ]


def mean_score(name: str, values: np.ndarray, before: np.ndarray | None = None) -> Score:
    """The mean of `values` [queries], with its interval, and that of the change from the values `before`."""
    bounds = _intervals(_resampled_means, values, before)
    return Score(metric=name, value=float(values.mean()), split="queries", examples=len(values), **bounds)


def hidden_loss_score(split: str, outputs: np.ndarray, before: np.ndarray | None, constant: ConstantAnswer) -> Score:
    """The mean loss of hidden tokens, in nats, of outputs as of MaskedLM [texts, 3]."""
    sums, others = (None if each is None else each[:, [LOSS, COUNT]] for each in (outputs, before))
    assert sums is not None
    return nats_score("loss", split, sums, others, float(constant.outputs[LOSS]))


def nats_score(
    metric: str,
    split: str,
    sums: np.ndarray,
    before: np.ndarray | None = None,
    baseline: float | None = None,
    perplexity: bool = False,
) -> Score:
    """The nats a token, or their exponential, of texts with `sums` of nats and of tokens [texts, 2]; less is better.

    With its interval, and that of the change from a model with the sums `before` for the same tokens.
    """

    def shown(nats: Any) -> Any:
        return np.exp(nats) if perplexity else nats

    return Score(
        metric=metric,
        value=float(shown(np.divide(*sums.sum(axis=0)))),
        split=split,
        examples=len(sums),
        baseline=baseline,
        **_intervals(lambda one: shown(resampled_ratios(one)), sums, before),
    )


def _resampled_means(values: np.ndarray) -> np.ndarray:
    """Of resamples of the values; equal numbers of values are drawn alike, so that two models are paired."""
    count, generator = max(FEWEST, min(RESAMPLES, MOST_ROWS // len(values))), np.random.default_rng(0)
    return np.array([values[generator.integers(len(values), size=len(values))].mean() for _ in range(count)])


def _intervals(
    resampled: Callable[[np.ndarray], np.ndarray], values: np.ndarray, before: np.ndarray | None
) -> dict[str, float | None]:
    """Of what `resampled` makes of the values, and of its change from what it makes of the values `before`."""
    own = resampled(values)
    low, high = interval(own) or (None, None)
    if before is None:
        return {"low": low, "high": high}
    apart = difference_interval(own, resampled(before)) or (None, None)
    return {"low": low, "high": high, "change_low": apart[0], "change_high": apart[1]}


def agreement(own: np.ndarray, other: np.ndarray, kind: TaskKind | None) -> float | None:
    """Part of the texts, or words, that two models give the same class, or labels; None where nothing is decided.

    Both are what metrics take of outputs. Words of which nothing was read do not count. Of answers it is the part of
    the windows whose likeliest start and likeliest end are the same.
    """
    if kind is not None and kind.by_span:
        return float(np.mean((own.argmax(axis=1) == other.argmax(axis=1)).all(axis=-1)))
    if kind is not None and kind.has_thresholds:
        return float(np.mean(((own > 0) == (other > 0)).all(axis=-1)))
    if kind is None or not kind.exclusive:
        return None
    alike = own.argmax(axis=-1) == other.argmax(axis=-1)
    return float(np.mean(alike[other.any(axis=-1)] if kind.by_word else alike))


def decisions(
    spec: TaskSpec, rows: Dataset, logits: np.ndarray, labels: np.ndarray, dense: np.ndarray | None
) -> Decisions | None:
    """What a classifier says of `rows` (`text_a`, perhaps `text_b`); None for another kind and very many classes.

    Where words have classes, each of them counts, and a flip shows it within its text.
    """
    kind, classes = task_kind(spec.kind), len(spec.labels)
    if not kind.exclusive or classes > MOST_CLASSES:
        return None
    places = np.nonzero(labels != IGNORED)
    true, own = labels[places], logits[places].argmax(axis=-1)
    table = np.bincount(true * classes + own, minlength=classes**2).reshape(classes, classes)
    before = own if dense is None else dense[places].argmax(axis=-1)
    return Decisions(
        classes=spec.labels,
        confusion=tuple(tuple(map(int, row)) for row in table),
        agreement=None if dense is None else float(np.mean(own == before)),
        flips=tuple(
            Flip(
                text=_word(rows, *(int(axis[one]) for axis in places)) if kind.by_word else _text(rows[one]),
                label=spec.labels[int(true[one])],
                dense=spec.labels[int(before[one])],
                own=spec.labels[int(own[one])],
            )
            for one in np.flatnonzero(before != own)[:MOST_FLIPS].tolist()
        ),
        types=type_counts(spec, logits, labels) if kind.by_word else (),
    )


def type_counts(spec: TaskSpec, logits: np.ndarray, labels: np.ndarray) -> tuple[TypeCount, ...]:
    """How many entities of each type are given, are there, and are both; of words, as `decisions` takes them."""
    names = types_of(spec.labels)
    counts = entity_counts(*task_kind(spec.kind).scored(logits, labels, spec.labels), len(names)).sum(axis=0)
    return tuple(
        TypeCount(label=name, right=int(right), given=int(given), there=int(there))
        for name, (right, given, there) in zip(names, counts, strict=True)
    )


def set_flips(
    spec: TaskSpec, rows: Dataset, own: np.ndarray, labels: np.ndarray, dense: np.ndarray
) -> tuple[Flip, ...]:
    """Some of the texts that are given other labels: `own` and `dense` are above 0 where one is [texts, labels]."""

    def said(chosen: np.ndarray) -> str:
        return ", ".join(name for name, one in zip(spec.labels, chosen, strict=True) if one > 0) or "none"

    return tuple(
        Flip(text=_text(rows[one]), label=said(labels[one]), dense=said(dense[one]), own=said(own[one]))
        for one in np.flatnonzero(((own > 0) != (dense > 0)).any(axis=-1))[:MOST_FLIPS].tolist()
    )


def _word(rows: Dataset, row: int, word: int) -> str:
    """A word in brackets, with the letters around it."""
    text, (start, end, *_) = rows[row]["text_a"], rows[row]["label"][word]
    near = max(0, NEAR_LETTERS - (end - start)) // 2
    left, right = max(0, start - near), end + near
    before, after = "…" if left else "", "…" if right < len(text) else ""
    return f"{before}{text[left:start]}[{text[start:end]}]{text[end:right]}{after}"


def _text(row: dict[str, str]) -> str:
    return shortened(" / ".join(row[name] for name in ("text_a", "text_b") if name in row))


def shortened(text: str) -> str:
    """The text as a flip shows it."""
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…"

"""A gate before going live: two deployed models on the user's own texts, answer by answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from datasets import Dataset

from sparsebert.data.meant import label_name, one_column, with_meant_labels
from sparsebert.data.read import column
from sparsebert.data.retrieval import read_retrieval_set
from sparsebert.data.rows import standard_rows
from sparsebert.deployment.predictor import Predictor
from sparsebert.errors import UserError
from sparsebert.records import Flip, Score
from sparsebert.runs.check_heads import OpenHead, with_classes
from sparsebert.runs.check_spans import check_spans, spans_spec
from sparsebert.runs.check_vectors import pair_scores, ranking_scores, retrieval_scores
from sparsebert.runs.check_words import check_spec, check_words
from sparsebert.runs.checked import CheckedTexts, CheckResult, LabelRecall, Latency, latency_of
from sparsebert.runs.scoring import agreement, decisions, set_flips, split_scores
from sparsebert.tasks.kind import TaskKind, task_kind
from sparsebert.tasks.numbers import finite_numbers
from sparsebert.tasks.table import TaskSpec

FEWEST_ROWS = 20
"""Of a label, for its loss to count: one of fewer rows is a point of many points."""


def check(
    first: Predictor,
    second: Predictor,
    given: CheckedTexts,
    max_drop: float | None = None,
    done: Callable[[int], None] = lambda count: None,
    heads: tuple[OpenHead, OpenHead] | None = None,
) -> CheckResult:
    """Ask both models everything, and compare.

    Vectors have no labels: those of the first model stand for them, unless pairs with how alike they are, or a folder
    of documents and queries, say how good they are (see check_vectors). With labels the gate is the main metric, and
    the recall of every label of FEWEST_ROWS rows or more, which may fall by `max_drop` points at most; without, that
    part of the texts, in points, which may be decided otherwise. By the `heads` of two SetFit models texts have classes
    too. `done` is told how many answers are ready. Raises UserError for a file that cannot be read, for models of
    different tasks, and for a limit where there is nothing to hold to it.
    """
    if given.by_query or (not first.kind.labelled and (given.file.is_dir() or given.label)):
        if heads is not None:
            raise UserError(
                "Heads give classes to texts, and these are to be put in order", fix="leave out --trust-head"
            )
        found = _of_order(first, second, given, done)
        return found.model_copy(update={"failures": failures(found, max_drop)})
    spec = _task(first, second, given)
    if first.kind.by_word:
        found = check_words(first, second, given, check_spec(first), done)
        return found.model_copy(update={"failures": failures(found, max_drop)})
    if first.kind.by_span:
        found = check_spans(first, second, given, spans_spec(first), done)
        return found.model_copy(update={"failures": failures(found, max_drop)})
    raw = given.table
    sides = [[str(text) for text in column(raw, name, given.file.name)] for name in given.text]
    pair = sides[1] if len(sides) > 1 else None
    rows = _labelled(given, first, spec) if given.label else _unlabelled(sides)
    outputs = [one.outputs(sides[0], pair, done) for one in (first, second)]
    if not first.kind.labelled and outputs[0].shape != outputs[1].shape:
        raise UserError(
            "Vectors of different lengths cannot be compared with each other",
            got=f"{outputs[0].shape[1]} and {outputs[1].shape[1]} numbers",
            fix="give what says how good each is: scored pairs, or documents and queries",
        )
    latency = latency_of(first, second, sides[0], pair)
    told = given.label is not None or not first.kind.labelled
    found = _compared(spec, rows, outputs, told, (first, second), latency)
    if heads is not None:
        found = with_classes(found, heads, outputs, sides[0])
    return found.model_copy(update={"failures": failures(found, max_drop)})


def _task(first: Predictor, second: Predictor, given: CheckedTexts) -> TaskSpec:
    if (first.kind_name, first.labels) != (second.kind_name, second.labels):
        raise UserError(
            "The two models are not for the same task",
            got=_named(second),
            allowed=_named(first),
        )
    labels = first.labels if first.kind.named else ()
    name = first.kind_name
    label = label_name(given.label) if given.label else ""
    return TaskSpec("check", given.text, labels, first.kind.metrics, "", label=label, kind=name)


def _named(model: Predictor) -> str:
    """The task of a model in words."""
    return f"{model.kind_name} of {', '.join(model.labels)}" if model.labels else model.kind_name


def _of_order(first: Predictor, second: Predictor, given: CheckedTexts, done: Callable[[int], None]) -> CheckResult:
    """Scored pairs, or documents and queries: of vectors in a folder, of a cross-encoder by pairs."""
    _task(first, second, given)
    pair = None
    if given.by_query:
        if first.kind.named or not first.kind.labelled:
            raise UserError("Only models that give a pair one score put passages in order", got=first.kind_name)
        (texts, pair), grades = _scored_pairs(given)
        scores = ranking_scores((first, second), (texts, pair), grades, done)
    elif given.file.is_dir():
        told = read_retrieval_set(given.file)
        texts, scores = told.queries, retrieval_scores((first, second), told, done)
    else:
        sides, likeness = _scored_pairs(given)
        texts, scores = sides[0], pair_scores((first, second), sides, likeness, done)
    return CheckResult(
        rows=len(texts),
        runtimes=(str(first.runtime), str(second.runtime)),
        metric=next((one.metric for one in scores.first), None),
        first=scores.first,
        second=scores.second,
        mixed=scores.mixed,
        largest_difference=scores.apart,
        notes=scores.notes,
        latency=latency_of(first, second, texts, pair),
    )


def _scored_pairs(given: CheckedTexts) -> tuple[list[list[str]], np.ndarray]:
    """Both sides of each pair, and how alike they are said to be."""
    if given.label is None:
        raise UserError("The order of passages is judged by grades", fix="give their column: --label-column")
    label = one_column(given.label)
    if len(given.text) < 2:
        got = f"text column {', '.join(given.text)}"
        raise UserError("Scores are of pairs of texts", got=got, fix="give --text-column twice")
    where = f"{given.file.name}, column '{label}'"
    values = finite_numbers(column(given.table, label, given.file.name), where)
    sides = [[str(text) for text in column(given.table, name, given.file.name)] for name in given.text]
    return sides, np.array(values)


def _labelled(given: CheckedTexts, model: Predictor, spec: TaskSpec) -> Dataset:
    assert given.label is not None, "the file has labels"
    meant = with_meant_labels(given.table, given.label, model.kind, given.file.name)
    return standard_rows(meant.table, spec, given.file.name, empty_text=True)


def _unlabelled(sides: Sequence[Sequence[str]]) -> Dataset:
    return Dataset.from_dict(dict(zip(("text_a", "text_b"), sides, strict=False)))


def _compared(
    spec: TaskSpec,
    rows: Dataset,
    outputs: Sequence[np.ndarray],
    labelled: bool,
    models: tuple[Predictor, Predictor],
    latency: Latency,
) -> CheckResult:
    # Each decides at thresholds of its own, if it has any.
    first, second = (model.kind.margins(found) for model, found in zip(models, outputs, strict=True))
    kind = task_kind(spec.kind)
    labels = _labels(kind, rows, first, labelled)
    scores: list[tuple[Score, ...]] = [(), ()]
    if labelled:
        constant = kind.constant(labels, spec.labels)
        scores[0] = tuple(split_scores(spec, "texts", first, labels, constant))
        scores[1] = tuple(split_scores(spec, "texts", second, labels, constant, first))
    return CheckResult(
        rows=len(first),
        runtimes=(str(models[0].runtime), str(models[1].runtime)),
        metric=spec.main_metric if labelled else None,
        first=scores[0],
        second=scores[1],
        recalls=_recalls(spec.labels, labels, first, second) if labelled and kind.exclusive else (),
        agreement=agreement(second, first, kind),
        largest_difference=float(np.abs(outputs[0] - outputs[1]).max()),
        flips=_flips(spec, rows, second, labels, first),
        latency=latency,
    )


def _labels(kind: TaskKind, rows: Dataset, first: np.ndarray, labelled: bool) -> np.ndarray:
    """Those of the rows; where there are none, what the first model decides or, of vectors, says."""
    if not kind.labelled:
        return first
    if labelled:
        return np.array(list(rows["label"]))
    return first if kind.has_thresholds else first.argmax(-1)


def _flips(spec: TaskSpec, rows: Dataset, own: np.ndarray, labels: np.ndarray, dense: np.ndarray) -> tuple[Flip, ...]:
    if task_kind(spec.kind).has_thresholds:
        return set_flips(spec, rows, own, labels, dense)
    told = decisions(spec, rows, own, labels, dense)
    return told.flips if told else ()


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


def failures(found: CheckResult, max_drop: float | None) -> tuple[str, ...]:
    """The limits that are passed, in words. Raises UserError where there is nothing to hold to `max_drop`."""
    if max_drop is None:
        return ()
    if not found.first and found.agreement is None:
        raise UserError("--max-drop needs labels: these models give no classes that could differ", fix="--label-column")
    passed = []
    if found.first:
        lost = 100 * (found.first[0].value - found.second[0].value)
        if lost > max_drop:
            passed.append(f"{found.first[0].metric} falls by {lost:.2f} points")
        passed += [
            f"recall of {one.label} falls by {one.drop:.2f} points ({one.rows} rows)"
            for one in found.recalls
            if one.rows >= FEWEST_ROWS and one.drop > max_drop
        ]
    judged_alike = found.agreement if found.by_head or not found.first else None
    if judged_alike is not None and 100 * (1 - judged_alike) > max_drop:
        judged = "texts are decided otherwise" if found.words is None else "words get another class"
        passed.append(f"{100 * (1 - judged_alike):.2f} of 100 {judged}")
    return tuple(passed)

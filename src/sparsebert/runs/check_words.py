"""Two deployed models that tag words, on the same texts: entities that are found, and words that get another tag."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from datasets import Dataset

from sparsebert.data.batches import stacked
from sparsebert.data.conll import CONLL_SUFFIXES
from sparsebert.data.labels import filled_labels
from sparsebert.data.meant import one_column
from sparsebert.data.read import column
from sparsebert.data.rows import standard_rows
from sparsebert.data.tagged import LABEL, TEXT, read_tagged
from sparsebert.deployment.predictor import Predictor
from sparsebert.records import Score, TypeCount
from sparsebert.runs.checked import CheckedTexts, CheckResult, LabelRecall, latency_of
from sparsebert.runs.scoring import decisions, split_scores, type_counts
from sparsebert.tasks.entities import first_tokens, words_in
from sparsebert.tasks.kind import IGNORED, Passage, task_kind
from sparsebert.tasks.table import TaskSpec


def check_words(
    first: Predictor, second: Predictor, given: CheckedTexts, spec: TaskSpec, done: Callable[[int], None]
) -> CheckResult:
    """Scores where the file has tags (a label column is named, or it is CoNLL); else how alike the two are.

    Without tags words are told apart as `predict` does.
    """
    rows, labels, notes = _rows(given, spec)
    texts = list(rows["text_a"])
    places = [[(start, end) for start, end, *_ in words] for words in rows["label"]]
    outputs = [_of_words(model, texts, places, done) for model in (first, second)]
    told = labels is not None
    if labels is None:
        real = np.arange(outputs[0].shape[1]) < np.array([len(words) for words in places])[:, None]
        labels = np.where(real, outputs[0].argmax(axis=-1), IGNORED)
    decided = decisions(spec, rows, outputs[1], labels, outputs[0])
    scores = _scores(spec, outputs, labels) if told else ((), ())
    return CheckResult(
        rows=len(texts),
        runtimes=(str(first.runtime), str(second.runtime)),
        metric=spec.main_metric if told else None,
        first=scores[0],
        second=scores[1],
        recalls=_recalls(type_counts(spec, outputs[0], labels), decided.types) if told and decided else (),
        words=int(np.count_nonzero(labels != IGNORED)),
        agreement=decided.agreement if decided else None,
        largest_difference=float(np.abs(outputs[0] - outputs[1]).max()),
        notes=notes,
        flips=decided.flips if decided else (),
        latency=latency_of(first, second, texts, None),
    )


def _rows(given: CheckedTexts, spec: TaskSpec) -> tuple[Dataset, np.ndarray | None, tuple[str, ...]]:
    """Texts, with the places of their words, and numbers of tags [texts, words] where the file has any."""
    encoding = given.written.encoding
    if given.label is None and given.file.suffix.lower() not in CONLL_SUFFIXES:
        texts = [str(text) for text in column(given.table, given.text[0], given.file.name)]
        return Dataset.from_dict({"text_a": texts, "label": [words_in(text) for text in texts]}), None, ()
    named = None if given.text == (TEXT,) else given.text[0]
    label = None if given.label is None else one_column(given.label)
    found = read_tagged(given.file, named, label, encoding)
    rows = standard_rows(found.table, spec, given.file.name)
    return rows, filled_labels([[tag for *_, tag in words] for words in rows["label"]]), found.notes


def check_spec(model: Predictor) -> TaskSpec:
    """The task of the texts that are checked."""
    return TaskSpec("check", (TEXT,), model.labels, model.kind.metrics, "", label=LABEL, kind=model.kind_name)


def _of_words(
    model: Predictor, texts: Sequence[str], places: Sequence[Sequence[tuple[int, int]]], done: Callable[[int], None]
) -> np.ndarray:
    """Logits of the words at these places [texts, words, tags], 0 for words that were not read."""
    found: dict[int, np.ndarray] = {}
    tokens: list[list[int]] = []
    for read, part in model.read(texts, None, done):
        assert read.offsets is not None, "the model tags words"
        for outputs, text, offsets in zip(read.outputs, part, read.offsets, strict=True):
            tokens.append(first_tokens(places[len(found)], Passage(text, offsets)))
            found[len(found)] = outputs
    return stacked(found, tokens)


def _scores(
    spec: TaskSpec, outputs: Sequence[np.ndarray], labels: np.ndarray
) -> tuple[tuple[Score, ...], tuple[Score, ...]]:
    """Those of the first model, and of the second beside the first."""
    constant = task_kind(spec.kind).constant(labels, spec.labels)
    before = split_scores(spec, "texts", outputs[0], labels, constant)
    return tuple(before), tuple(split_scores(spec, "texts", outputs[1], labels, constant, outputs[0]))


def _recalls(first: Sequence[TypeCount], second: Sequence[TypeCount]) -> tuple[LabelRecall, ...]:
    """Of each type the part of its entities that each model finds."""
    return tuple(
        LabelRecall(label=one.label, rows=one.there, first=one.right / one.there, second=other.right / one.there)
        for one, other in zip(first, second, strict=True)
        if one.there
    )

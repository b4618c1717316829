"""Two deployed models that find answers in texts, on the same questions: answers that are right, and that change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sparsebert.data.meant import one_column
from sparsebert.data.squad import CONTEXT, LABEL, QUESTION, read_squad
from sparsebert.deployment.predictor import Predictor
from sparsebert.records import Flip, Score
from sparsebert.runs.checked import CheckedTexts, CheckResult, latency_of
from sparsebert.runs.scoring import MOST_FLIPS, shortened, values_scores
from sparsebert.tasks.answers import answer_scores, normalised
from sparsebert.tasks.table import TaskSpec

_NONE = "no answer"


def check_spans(
    first: Predictor, second: Predictor, given: CheckedTexts, spec: TaskSpec, done: Callable[[int], None]
) -> CheckResult:
    """Scores where the file has answers: it is SQuAD's JSON, or a label column is named; else how alike the two are.

    Answers are alike if exact match finds them so.
    """
    told = given.label is not None or given.file.suffix.lower() == ".json"
    label = None if given.label is None else one_column(given.label)
    text = () if given.text in ((QUESTION, CONTEXT), ("text",)) else given.text
    found = read_squad(given.file, text, label, given.written.encoding, labelled=told)
    questions, texts = (found.table.column(name).to_pylist() for name in (QUESTION, CONTEXT))
    right = [row["answers"] for row in found.table.column(LABEL).to_pylist()]
    said = [_answers(model, questions, texts, done) for model in (first, second)]
    same = np.array([normalised(one) == normalised(other) for one, other in zip(*said, strict=True)])
    scores = _scores(spec, said, right) if told else ((), ())
    return CheckResult(
        rows=len(questions),
        runtimes=(str(first.runtime), str(second.runtime)),
        metric=spec.main_metric if told else None,
        first=scores[0],
        second=scores[1],
        agreement=float(same.mean()),
        notes=found.notes,
        flips=tuple(
            Flip(
                text=shortened(f"{questions[row]} / {texts[row]}"),
                label=next(iter(right[row]), _NONE),
                dense=said[0][row] or _NONE,
                own=said[1][row] or _NONE,
            )
            for row in np.flatnonzero(~same)[:MOST_FLIPS].tolist()
        ),
        latency=latency_of(first, second, questions, texts),
    )


def spans_spec(model: Predictor) -> TaskSpec:
    """The task of the questions that are checked."""
    return TaskSpec("check", (QUESTION, CONTEXT), (), model.kind.metrics, "", label=LABEL, kind=model.kind_name)


def _answers(
    model: Predictor, questions: Sequence[str], texts: Sequence[str], done: Callable[[int], None]
) -> list[str]:
    return [one["answer"] for found, _ in model.answers(questions, texts, done) for one in found]


def _scores(
    spec: TaskSpec, said: Sequence[Sequence[str]], right: Sequence[Sequence[str]]
) -> tuple[tuple[Score, ...], tuple[Score, ...]]:
    """Those of the first model, and of the second beside the first."""
    has = np.array([int(bool(answers)) for answers in right])
    none = np.array([answer_scores("", answers) for answers in right])
    before, after = (np.array([answer_scores(*pair) for pair in zip(own, right, strict=True)]) for own in said)
    return (
        tuple(values_scores(spec, "texts", before, has, none)),
        tuple(values_scores(spec, "texts", after, has, none, before)),
    )

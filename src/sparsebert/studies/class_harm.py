"""What compression did to single classes and inputs: recalls, agreement, calibration, before and after.

Hooker et al. 2019, arXiv:1911.05248, and 2020, arXiv:2010.03058: accuracy as a whole hides that some classes lose more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparsebert.errors import UserError
from sparsebert.reports import values as v
from sparsebert.reports.charts import ChartLine, ChartRange, LinePanel, Panel, RangePanel, StudyChart, written
from sparsebert.reports.study import StudyColumn, StudyResult, StudyRow
from sparsebert.studies.calibration import BINS, ClassAnswers, binned_error
from sparsebert.studies.study import CheckpointStudy

if TYPE_CHECKING:
    from sparsebert.studies.checkpoints import AskedCheckpoints

QUESTION = "Which classes does compression hurt?"
DEFINITION = (
    "On the same labelled rows, the first checkpoint (before) and another (after). Recall: part of a class's rows that "
    "is found; intervals of one model by Wilson 1927, of a change by a paired bootstrap over rows, all 95%. Against "
    "mean: the change of a class's recall less the change of accuracy, with the p-value of a permutation test (which "
    "rows got better or worse is dealt out to the classes at random), two-sided, by Holm over classes. "
    f"ECE: sum over {BINS} bins of equal width of the part of the rows in it times |accuracy - mean confidence|, where "
    "confidence is the probability of the chosen class (Guo et al. 2017). Brier score: sum over classes of "
    "(probability - 1 for the label, else 0)^2, mean over rows, 0 to 2 (Brier 1950). Agreement: part of the rows given "
    "the same class by both."
)
LEVEL = 0.05
BEHIND, AHEAD = "behind the mean", "ahead of the mean"
RESAMPLES, DEALS = 2000, 20_000
_MOST_PANELS = 4
_COLUMNS = (
    StudyColumn("what", "What"),
    StudyColumn("rows", "Rows", form="count"),
    StudyColumn("before", "Before", "95%"),
    StudyColumn("before_low", "Before", beside=True),
    StudyColumn("before_high", "Before", beside=True),
    StudyColumn("after", "After", "95%"),
    StudyColumn("after_low", "After", beside=True),
    StudyColumn("after_high", "After", beside=True),
    StudyColumn("change", "Change", "95%", "signed"),
    StudyColumn("change_low", "Change", "", "signed", True),
    StudyColumn("change_high", "Change", "", "signed", True),
    StudyColumn("against_mean", "Against mean", form="signed"),
    StudyColumn("p_corrected", "p", "Holm"),
    StudyColumn("verdict", "Verdict"),
)


@dataclass(frozen=True)
class ClassChange:
    """Of one class: its rows, recalls, the change with its interval, that less the change of accuracy, and its p."""

    name: str
    rows: int
    before: float
    after: float
    low: float
    high: float
    against_mean: float
    p_corrected: float

    @property
    def change(self) -> float:
        """Recall after less recall before."""
        return self.after - self.before

    @property
    def verdict(self) -> str:
        """Whether the class fared worse, or better, than all rows together, beyond chance."""
        if self.p_corrected >= LEVEL:
            return "could be chance"
        return BEHIND if self.against_mean < 0 else AHEAD


@dataclass(frozen=True)
class ResampledChanges:
    """Changes on each resample of the rows: of recalls [resamples, classes], accuracy, ECE and Brier [resamples]."""

    recalls: np.ndarray
    accuracy: np.ndarray
    calibration_error: np.ndarray
    brier: np.ndarray


def resampled(before: ClassAnswers, after: ClassAnswers, seed: int) -> ResampledChanges:
    """A paired bootstrap: the same rows are drawn for both; nan for a class of which no row was drawn."""
    labels, count, classes = before.labels, len(before.labels), before.chances.shape[1]
    change = after.right.astype(float) - before.right
    brier = after.brier - before.brier
    sides = [(one.bins, one.gaps) for one in (before, after)]
    rng = np.random.default_rng(seed)
    recalls = np.full((RESAMPLES, classes), np.nan)
    others = np.zeros((3, RESAMPLES))
    for draw in range(RESAMPLES):
        rows = rng.integers(count, size=count)
        own = np.bincount(labels[rows], minlength=classes)
        sums = np.bincount(labels[rows], change[rows], minlength=classes)
        recalls[draw, own > 0] = sums[own > 0] / own[own > 0]
        errors = [binned_error(bins[rows], gaps[rows]) for bins, gaps in sides]
        others[:, draw] = change[rows].mean(), errors[1] - errors[0], brier[rows].mean()
    return ResampledChanges(recalls, *others)


def permutation_p(change: np.ndarray, own: np.ndarray, seed: int) -> float:
    """Of no difference between the rows `own` and all: how often DEALS random deals of `change` are as far apart.

    change: -1, 0 or 1 for each row. own: True for the rows of the class.
    """
    counts = [int((change == value).sum()) for value in (-1, 0, 1)]
    deals = np.random.default_rng(seed).multivariate_hypergeometric(counts, int(own.sum()), size=DEALS)
    expected = own.sum() * change.mean()
    far = abs(float(change[own].sum()) - expected)
    # Sums are whole numbers; the expected one is not.
    return float((1 + np.sum(np.abs(deals[:, 2] - deals[:, 0] - expected) >= far - 1e-9)) / (1 + DEALS))


def class_changes(
    before: ClassAnswers, after: ClassAnswers, names: Sequence[str], drawn: ResampledChanges, seed: int
) -> list[ClassChange]:
    """Of each class with rows."""
    from sparsebert.studies.significance import holm_corrected

    change = after.right.astype(float) - before.right
    own = {number: before.labels == number for number in range(len(names))}
    own = {number: rows for number, rows in own.items() if rows.any()}
    p_values = holm_corrected([permutation_p(change, rows, seed) for rows in own.values()])
    found = []
    for (number, rows), p in zip(own.items(), p_values, strict=True):
        low, high = _ends(drawn.recalls[:, number])
        recalls = (float(before.right[rows].mean()), float(after.right[rows].mean()))
        apart = float(change[rows].mean() - change.mean())
        found.append(ClassChange(names[number], int(rows.sum()), *recalls, low, high, apart, p))
    return found


def class_harm(
    labels: np.ndarray,
    names: Sequence[str],
    logits: Mapping[str, np.ndarray],
    seed: int = 0,
    settings: Mapping[str, str] | None = None,
) -> StudyResult:
    """The first checkpoint against each other one, on rows with these class numbers; logits [rows, classes] by name."""
    answers = {name: ClassAnswers.of(values, labels) for name, values in logits.items()}
    (first, before), *others = answers.items()
    rows: list[StudyRow] = []
    changes: dict[str, list[ClassChange]] = {}
    sentences: dict[str, str] = {}
    for name, after in others:
        drawn = resampled(before, after, seed)
        changes[name] = class_changes(before, after, names, drawn, seed)
        heading = f"{first} to {name}"
        rows += [StudyRow(heading, values) for values in _rows(before, after, changes[name], drawn)]
        sentences[name] = f"{heading}: {_sentence(before, after, changes[name])}"
    worst = min(sentences, key=lambda name: (float(answers[name].right.mean()), name))
    return StudyResult(
        "class-harm",
        QUESTION,
        sentences[worst],
        DEFINITION,
        tuple(logits),
        _COLUMNS,
        tuple(rows),
        _chart(first, answers, changes),
        heading="change",
        settings={**(settings or {}), "Bootstrap": f"{RESAMPLES:,} resamples", "Permutations": f"{DEALS:,}"},
    )


def _ends(values: np.ndarray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    return float(np.quantile(known, 0.025)), float(np.quantile(known, 0.975))


def wilson(right: int, rows: int) -> tuple[float, float]:
    """The 95 % interval of a part, 0-1."""
    from scipy.stats import binomtest

    found = binomtest(right, rows).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


Values = tuple[str | float | int | None, ...]


def _rows(
    before: ClassAnswers, after: ClassAnswers, changes: Sequence[ClassChange], drawn: ResampledChanges
) -> list[Values]:
    count = len(before.labels)
    accuracies = (float(before.right.mean()), float(after.right.mean()))
    rows = [_part("accuracy", count, accuracies, _ends(drawn.accuracy))]
    for one in changes:
        part = _part(f"recall of {one.name}", one.rows, (one.before, one.after), (one.low, one.high))
        rows.append((*part[:-3], one.against_mean, one.p_corrected, one.verdict))
    rows.append(_plain("ECE", count, before.calibration_error, after.calibration_error, drawn.calibration_error))
    rows.append(_plain("Brier score", count, float(before.brier.mean()), float(after.brier.mean()), drawn.brier))
    alike = before.chosen == after.chosen
    rows.append(_alone("agreement", count, float(alike.mean())))
    rows.append(_alone("right before, wrong after", count, float((before.right & ~after.right).mean())))
    rows.append(_alone("wrong before, right after", count, float((~before.right & after.right).mean())))
    if not alike.all():
        where = int((~alike).sum())
        parts = (float(before.right[~alike].mean()), float(after.right[~alike].mean()))
        rows.append(_part("accuracy where they differ", where, parts, (None, None)))
    return rows


def _part(what: str, rows: int, parts: tuple[float, float], ends: tuple[float | None, float | None]) -> Values:
    """A part of rows in both models, and the ends of the interval of its change; without a verdict."""
    before, after = ((one, *wilson(round(one * rows), rows)) for one in parts)
    return (what, rows, *before, *after, parts[1] - parts[0], *ends, None, None, "")


def _plain(what: str, rows: int, before: float, after: float, drawn: np.ndarray) -> Values:
    """A number that is no part of rows, with the interval of its change."""
    return (what, rows, before, None, None, after, None, None, after - before, *_ends(drawn), None, None, "")


def _alone(what: str, rows: int, value: float) -> Values:
    """A part of rows that is of both models together."""
    return (what, rows, None, None, None, value, *wilson(round(value * rows), rows), *[None] * 5, "")


def _chart(first: str, answers: Mapping[str, ClassAnswers], changes: Mapping[str, Sequence[ClassChange]]) -> StudyChart:
    panels: list[Panel] = []
    for name, own in list(changes.items())[:_MOST_PANELS]:
        ranges = tuple(
            ChartRange(
                f"{one.name} ({one.rows})", 100 * one.change, 100 * one.low, 100 * one.high, one.verdict == BEHIND
            )
            for one in own
        )
        mean = 100 * float(answers[name].right.mean() - answers[first].right.mean())
        panels.append(RangePanel(f"Recall, {first} to {name}", "Change, points (dashed: accuracy)", ranges, mean))
    lines = []
    for name, one in answers.items():
        x, y, _ = zip(*one.by_bin(), strict=True)
        lines.append(ChartLine(name, tuple(100 * value for value in x), tuple(100 * value for value in y)))
    lines.append(ChartLine("as confident as right", (0.0, 100.0), (0.0, 100.0), reference=True))
    panels.append(LinePanel(f"Calibration, {BINS} bins", "Mean confidence, %", "Right, %", tuple(lines)))
    return StudyChart(tuple(panels))


def _sentence(before: ClassAnswers, after: ClassAnswers, changes: Sequence[ClassChange]) -> str:
    points = v.signed(100 * float(after.right.mean() - before.right.mean()))
    behind = [one for one in changes if one.verdict == BEHIND]
    named = ", ".join(f"{one.name} ({v.signed(100 * one.change)})" for one in behind)
    who = f"{named} fared worse than that" if behind else "no class is shown to fare worse than that"
    errors = [written(one.calibration_error, "number") for one in (before, after)]
    return f"accuracy changes by {points} points, and {who}; ECE {errors[0]} before, {errors[1]} after."


def _ask(asked: AskedCheckpoints) -> StudyResult:
    from sparsebert.studies.task_rows import common_length, drawn, task_model, task_of, token_rows
    from sparsebert.tasks.kind import task_kind
    from sparsebert.training.evaluate import predict_logits

    task = task_of(asked.options)
    kind = task_kind(task.spec.kind)
    if not kind.exclusive or kind.by_word:
        raise UserError("class-harm asks about tasks of one class a text", got=f"{task.spec.name} ({task.spec.kind})")
    rows = drawn(task.validation, asked.options.examples, asked.options.seed)
    length = common_length(list(asked.sources.values()))
    labels, logits = np.empty(0, dtype=int), {}
    for name, source in asked.sources.items():
        asked.progress(f"Asking {name}")
        model = task_model(source, task.spec)
        tokens = token_rows(source, rows, length, kind)
        labels, logits[name] = tokens.labels, predict_logits(model, tokens.rows, tokens.collate, kind=kind)
    asked.progress("Resampling")
    where = f"{len(rows):,} {task.validation_name} rows of {task.spec.name}, up to {length} tokens each"
    return class_harm(labels, task.spec.labels, logits, asked.options.seed, {"Rows": where})


CLASS_HARM = CheckpointStudy(
    "which classes and inputs compression hurts: recalls, agreement, calibration",
    _ask,
    fewest=2,
    takes=("task", "examples"),
)

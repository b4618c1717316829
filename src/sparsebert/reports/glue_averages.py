"""Averages over tasks: the GLUE score, the BERT score, and those of papers; and why one may not be called so."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from sparsebert.reports.glue_scores import OverRuns, TaskRun, TaskScores, over_runs
from sparsebert.tasks.glue import GLUE
from sparsebert.tasks.table import SUBSET

WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class AveragePart:
    """What of a task goes into an average: metrics, none = those of GLUE, on one dev split, None = on all."""

    task: str
    metrics: tuple[str, ...] = ()
    split: str | None = None


@dataclass(frozen=True)
class Average:
    """A mean over parts, each as much as another. `title` is protected: it stands only over official splits."""

    key: str
    name: str
    parts: tuple[AveragePart, ...]
    says: str = ""
    title: str = ""


@dataclass(frozen=True)
class AverageScore:
    """An average of a model's scores over the seeds of which every part has a run.

    The best is the mean of the best of each part, of all runs of its task, of which the fewest have `best_of`.
    `reasons` say why it may not bear its title.
    """

    average: Average
    name: str
    scores: OverRuns
    baseline: float | None
    reasons: tuple[str, ...]


def _whole(*tasks: str) -> tuple[AveragePart, ...]:
    return tuple(AveragePart(task) for task in tasks)


_MNLI = (AveragePart("mnli", split="validation_matched"), AveragePart("mnli", split="validation_mismatched"))
_ULTRA = (
    *(AveragePart(task, metrics) for task, metrics in (("rte", ()), ("mrpc", ("f1",)), ("stsb", ("pearson",)))),
    AveragePart("sst2"),
    *_MNLI,
    AveragePart("qnli"),
    AveragePart("qqp", ("f1",)),
)
AVERAGES = (
    Average("nine", "mean of nine", _whole(*GLUE), title="GLUE score"),
    Average(
        "eight",
        "mean of eight without WNLI",
        _whole(*(task for task in GLUE if task != "wnli")),
        title="BERT score",
    ),
    Average("without_cola", "mean of eight without CoLA", _whole(*(task for task in GLUE if task != "cola"))),
    Average(
        "five_by_accuracy",
        "mean of five by accuracy",
        tuple(AveragePart(task, ("accuracy",)) for task in ("mnli", "qqp", "qnli", "sst2", "cola")),
        "MNLI, QQP, QNLI, SST-2 and CoLA, as in Gordon et al. 2020",
    ),
    Average(
        "mnli_twice",
        "mean of eight, MNLI twice",
        _ULTRA,
        "without CoLA and WNLI, F1 of MRPC and QQP, Pearson of STS-B, as in Belcak & Wattenhofer 2023",
    ),
    Average(
        "mnli_twice_with_cola",
        "mean of nine, MNLI twice",
        (*_ULTRA, AveragePart("cola")),
        "the same, with CoLA and no WNLI",
    ),
)


def averages(scores: Mapping[str, TaskScores]) -> list[AverageScore]:
    """All that the tasks of a model allow; where that is not the one of all nine, also the mean of those there are."""
    found = [score for average in AVERAGES if (score := _score(average, scores)) is not None]
    present = tuple(task for task in GLUE if task in scores and scores[task].over_runs())
    titled = [{part.task for part in one.average.parts} for one in found if one.average.title]
    if present and set(present) not in titled:
        titles = ", ".join(GLUE[task].title for task in present)
        mean = Average("present", f"mean of {WORDS[len(present)]}", _whole(*present), titles)
        found = [*filter(None, [_score(mean, scores)]), *found]
    return found


def _score(average: Average, scores: Mapping[str, TaskScores]) -> AverageScore | None:
    """None where a part has no score, or no seed has one of each."""
    if any(part.task not in scores for part in average.parts):
        return None
    own = [(part, scores[part.task]) for part in average.parts]
    seeds = set.intersection(*(set(task.shown) for _, task in own))
    by_seed = [
        _mean([task.shown[seed].value(part.metrics, part.split) for part, task in own]) for seed in sorted(seeds)
    ]
    over = [task.over_runs(part.metrics, part.split) for part, task in own]
    bests = [one for one in over if one is not None]
    complete = over_runs(by_seed)
    if complete is None or len(bests) < len(over):
        return None
    best, best_of = statistics.fmean(one.best for one in bests), min(one.best_of for one in bests)
    shown = OverRuns(complete.median, complete.low, complete.high, complete.runs, best, best_of)
    baseline = _mean([task.some.baseline(part.metrics, part.split) for part, task in own])
    reasons = tuple(dict.fromkeys(reason for _, task in own for reason in shortfalls(task)))
    name = average.title if average.title and not reasons else average.name
    return AverageScore(average, name, shown, baseline, reasons)


def _mean(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return statistics.fmean(present) if len(present) == len(values) else None


def shortfalls(scores: TaskScores) -> list[str]:
    """In words, what of a task is not as official scores have it: subsets, missing splits, other rows."""
    run, task = scores.some, scores.task
    official = dict(task.dev_rows)
    seen = {score.split: score.examples for score in run.on_dev(task.metrics[0])}
    found = [_dev(task.title, split, rows, official) for split, rows in seen.items()]
    if not any(split not in {*official, *(name + SUBSET for name in official)} for split in seen):
        missing = official.keys() - {split.removesuffix(SUBSET) for split in seen}
        found += [f"{_titled(task.title, split)} is missing" for split in official if split in missing]
    return [*filter(None, found), *_train(run)]


def _dev(title: str, split: str, rows: int, official: Mapping[str, int]) -> str:
    wanted = official.get(split.removesuffix(SUBSET))
    if wanted is None:
        return f"{title} was scored on {split.replace('_', ' ')} rows"
    if split.endswith(SUBSET) or rows != wanted:
        return f"{_titled(title, split.removesuffix(SUBSET))} is a subset ({rows:,} of {wanted:,} rows)"
    return ""


def _titled(title: str, split: str) -> str:
    part = split.removeprefix("validation").strip("_")
    return f"{title} {part} dev" if part else f"{title} dev"


def _train(run: TaskRun) -> list[str]:
    inputs, wanted = run.record.inputs, run.task.train_rows
    rows = inputs.data["train"].rows if inputs is not None and "train" in inputs.data else wanted
    # A training may hold some of them out, to end early by their score.
    rows = min([rows, *(training.examples for training in run.trainings)])
    return [] if rows == wanted else [f"{run.task.title} was trained on {rows:,} of {wanted:,} rows"]

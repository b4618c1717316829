"""Train rows that no training sees: what thresholds of labels are chosen on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from datasets import Dataset

from sparsebert.data.hold_out import hold_out
from sparsebert.data.labels import labels_of
from sparsebert.data.load import Task
from sparsebert.errors import UserError
from sparsebert.tasks.kind import task_kind
from sparsebert.tasks.thresholds import FEWEST

_MOST_NAMED = 8


def without_threshold_rows(task: Task, share: float, seed: int) -> Task:
    """The task with this part of its train rows (0-1) set apart, if models of its kind have thresholds.

    They stay train rows where they have too few labels to choose by, which a note says.
    """
    kind = task_kind(task.spec.kind)
    if not kind.has_thresholds or not share:
        return task
    try:
        train, held = hold_out(task.train, seed, kind, share)
    except UserError:
        return _told(task, "no train row can be held out")
    if kind.by_span:
        return _of_answers(task, train, held)
    counts = labels_of(held).sum(axis=0)
    if counts.sum() < FEWEST:
        return _told(task, f"{len(held)} train rows have {int(counts.sum())} labels, too few")
    few = [f"{task.spec.labels[place]} ({int(counts[place])})" for place in np.flatnonzero(counts < FEWEST)]
    more = f" and {len(few) - _MOST_NAMED} more" if len(few) > _MOST_NAMED else ""
    lean = f"; those of few rows lean on one that all share: {', '.join(few[:_MOST_NAMED])}{more}" if few else ""
    which = f"{len(held)} train rows that no training here sees"
    note = f"from which probability on a label is given is chosen on {which}{lean}"
    return replace(task, train=train, threshold_rows=held, notes=(*task.notes, note))


def _of_answers(task: Task, train: Dataset, held: Dataset) -> Task:
    """The same for questions, of which some have no answer; where all have one, an answer is always given."""
    if all(label["answers"] for label in task.train["label"]):
        return task
    has = [bool(label["answers"]) for label in held["label"]]
    if min(sum(has), len(has) - sum(has)) < FEWEST or not any(label["answers"] for label in train["label"]):
        few = f"of {len(held)} train rows {len(has) - sum(has)} have no answer, too few"
        return _told(task, few)
    note = (
        f"from which probability on an answer is given is chosen on {len(held)} train rows that no training here sees, "
        f"{len(has) - sum(has)} of them without an answer"
    )
    return replace(task, train=train, threshold_rows=held, notes=(*task.notes, note))


def _told(task: Task, why: str) -> Task:
    what = "answers" if task_kind(task.spec.kind).by_span else "labels"
    note = f"{what} are given from a probability of 0.5 on: {why} to choose thresholds by"
    return replace(task, notes=(*task.notes, note))

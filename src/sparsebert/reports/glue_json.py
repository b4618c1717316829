"""GLUE as plain values: scores of 0-1, by model."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sparsebert.reports.glue import GlueScores
from sparsebert.reports.glue_averages import AverageScore
from sparsebert.reports.glue_scores import TaskScores


def glue_json(scores: GlueScores, notes: Sequence[str], failed: Sequence[str]) -> dict[str, Any]:
    """All that the tables show; a score that there is none of is absent. `failed` are names of runs."""
    models = {
        name: {
            "tasks": {task: _task(one) for task, one in own.items()},
            "averages": {one.name: _average(one) for one in scores.averages[name]},
        }
        for name, own in scores.tasks.items()
    }
    return {"models": models, "notes": list(notes), "failed": list(failed)}


def _task(scores: TaskScores) -> dict[str, Any]:
    over = scores.over_runs()
    made: dict[str, Any] = {} if over is None else asdict(over)
    made["metrics"] = {
        " ".join(filter(None, (metric, split))): asdict(found)
        for metric, split in scores.parts
        if (found := scores.over_runs((metric,), split)) is not None
    }
    if scores.choice:
        made["choice"] = scores.choice
    for metric in ("loss", *dict.fromkeys(metric for metric, _ in scores.parts)):
        seen = [value for run in scores.shown.values() if (value := run.on_train(metric)) is not None]
        if seen:
            made.setdefault("median_on_train", {})[metric] = statistics.median(seen)
    return made


def _average(one: AverageScore) -> dict[str, Any]:
    baseline = {} if one.baseline is None else {"majority_class": one.baseline}
    return asdict(one.scores) | baseline | {"not_official_as": list(one.reasons)}

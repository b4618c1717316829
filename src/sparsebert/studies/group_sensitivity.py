"""What a model loses with one part of it at a time removed: a layer's heads, its neurons, or the layer as a whole.

As Michel et al. 2019, arXiv:1905.10650, remove single heads; here by component and depth, beside how much each weighs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparsebert.errors import UserError
from sparsebert.reports.charts import ChartLine, LinePanel, StudyChart, written
from sparsebert.reports.study import StudyColumn, StudyResult, StudyRow
from sparsebert.studies.study import CheckpointStudy

if TYPE_CHECKING:
    from sparsebert.studies.checkpoints import AskedCheckpoints

QUESTION = "Which parts can go most easily?"
DEFINITION = (
    "One part at a time is removed from the model as it is, without training after: all heads of a layer, all its "
    "neurons (their output columns become zero, output biases stay), or the layer as a whole, past which the residual "
    "stream goes. Rise: mean loss of the task with it removed less the loss of the whole model, on the same rows, with "
    "the 95% interval of a mean of paired differences (1.96 standard errors). Per 1%: the rise by the part of the "
    "encoder's linear weights that go, in percent."
)
EXAMPLES = 1024
_COLUMNS = (
    StudyColumn("layer", "Layer"),
    StudyColumn("weights", "Weights", "of the encoder", "percent"),
    StudyColumn("loss", "Loss", "without"),
    StudyColumn("rise", "Rise", "95%", "signed"),
    StudyColumn("rise_low", "Rise", "", "signed", True),
    StudyColumn("rise_high", "Rise", "", "signed", True),
    StudyColumn("rise_per_percent", "Rise", "per 1%", "signed"),
    StudyColumn("score_change", "Score", "change", "signed"),
)


@dataclass(frozen=True)
class RemovedPart:
    """One part: `kind` is heads, neurons or layer; its layer in the dense model, from 0; its part of the weights, 0-1.

    losses: of each row without it [rows]. score: the main metric without it, None where undefined.
    """

    kind: str
    layer: int
    weights: float
    losses: np.ndarray
    score: float | None


@dataclass(frozen=True)
class Rise:
    """Of the mean loss, with the ends of its 95 % interval, and by percent of the encoder's weights."""

    mean: float
    low: float
    high: float
    per_percent: float | None

    @classmethod
    def of(cls, part: RemovedPart, before: np.ndarray) -> Rise:
        """`before`: the whole model's loss of each row [rows]."""
        apart = part.losses - before
        mean, reach = float(apart.mean()), 1.96 * float(apart.std(ddof=1)) / len(apart) ** 0.5
        return cls(mean, mean - reach, mean + reach, mean / (100 * part.weights) if part.weights else None)


def group_sensitivity(
    name: str,
    before: np.ndarray,
    score: float | None,
    parts: Sequence[RemovedPart],
    metric: str,
    settings: Mapping[str, str] | None = None,
) -> StudyResult:
    """`before` are the whole model's losses [rows] and `score` its main metric. Raises UserError without any part."""
    if not parts:
        raise UserError("The checkpoint has no part that could be removed", got=name)
    kinds = list(dict.fromkeys(part.kind for part in parts))
    rises = [(part, Rise.of(part, before)) for part in sorted(parts, key=lambda one: kinds.index(one.kind))]
    rows = [StudyRow("whole model", ("all layers", None, float(before.mean()), None, None, None, None, None))]
    rows += [StudyRow(part.kind, _row(part, rise, score)) for part, rise in rises]
    return StudyResult(
        "group-sensitivity",
        QUESTION,
        _sentence(rises),
        DEFINITION,
        (name,),
        _COLUMNS,
        tuple(rows),
        _chart(rises),
        heading="removed",
        settings={**(settings or {}), "Score": f"{metric}, {written(score, 'number')} of the whole model"},
    )


_Rises = Sequence[tuple[RemovedPart, Rise]]


def _row(part: RemovedPart, rise: Rise, score: float | None) -> tuple[str | float | None, ...]:
    change = None if score is None or part.score is None else part.score - score
    ends = (rise.mean, rise.low, rise.high, rise.per_percent)
    return (f"layer {part.layer + 1}", part.weights, float(part.losses.mean()), *ends, change)


def _chart(rises: _Rises) -> StudyChart:
    whole, each = [], []
    for kind in dict.fromkeys(part.kind for part, _ in rises):
        own = [(part.layer + 1.0, rise) for part, rise in rises if part.kind == kind]
        x = tuple(layer for layer, _ in own)
        mean, low, high = zip(*((one.mean, one.low, one.high) for _, one in own), strict=True)
        whole.append(ChartLine(kind, x, mean, low, high))
        each.append(ChartLine(kind, x, tuple(one.per_percent for _, one in own)))
    return StudyChart(
        (
            LinePanel("Rise of the loss without it", "Layer", "Rise of the loss", tuple(whole), level=0.0),
            LinePanel("The same per 1% of the weights", "Layer", "Rise per 1%", tuple(each), level=0.0),
        )
    )


def _sentence(rises: _Rises) -> str:
    known = [(part, rise) for part, rise in rises if rise.per_percent is not None]
    if not known:
        return "No part that can be removed has weights."
    ordered = sorted(known, key=lambda one: one[1].per_percent or 0.0)
    ends = [f"{_name(part)} ({written(rise.per_percent, 'signed')})" for part, rise in (ordered[0], ordered[-1])]
    means = []
    for kind in ("heads", "neurons"):
        own = [rise.per_percent for part, rise in known if part.kind == kind and rise.per_percent is not None]
        if own:
            means.append(f"{kind} {written(float(np.mean(own)), 'signed')}")
    beside = f"; in the mean of layers {' and '.join(means)}" if means else ""
    return (
        f"For each 1% of the encoder's weights the loss rises least without {ends[0]}, most without {ends[1]}{beside}."
    )


def _name(part: RemovedPart) -> str:
    return f"layer {part.layer + 1}" if part.kind == "layer" else f"the {part.kind} of layer {part.layer + 1}"


def _ask(asked: AskedCheckpoints) -> StudyResult:
    from sparsebert.studies.removed_parts import removed_parts
    from sparsebert.studies.task_rows import common_length, drawn, task_model, task_of, token_rows
    from sparsebert.tasks.kind import task_kind

    task, [(name, source)] = task_of(asked.options), asked.sources.items()
    kind, length = task_kind(task.spec.kind), common_length([source])
    model = task_model(source, task.spec)
    rows = drawn(task.validation, asked.options.examples or EXAMPLES, asked.options.seed)
    tokens = token_rows(source, rows, length, kind)
    metric = task.spec.main_metric
    before, score, parts = removed_parts(model, tokens, kind, task.spec, asked.progress)
    where = f"{len(rows):,} {task.validation_name} rows of {task.spec.name}, up to {length} tokens each"
    return group_sensitivity(name, before, score, parts, metric, {"Rows": where})


GROUP_SENSITIVITY = CheckpointStudy(
    "what is lost without one layer's heads, its neurons, or the layer", _ask, most=1, takes=("task", "examples")
)

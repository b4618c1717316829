"""Whether a smaller pretraining loss goes with a better score after fine-tuning: a line through encoders, task by task.

Of runs of `pretrain`, and of the fine-tunings that began with their models; after Gordon et al. 2020, "Compressing
BERT" (arXiv:2002.08307), figure 2 left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sparsebert.errors import UserError
from sparsebert.records import ModelResult, Record
from sparsebert.reports.charts import ChartLine, LinePanel, StudyChart, written
from sparsebert.reports.study import StudyColumn, StudyResult, StudyRow
from sparsebert.reports.tables import metric_name
from sparsebert.studies.records import AskedRecords
from sparsebert.studies.study import RecordStudy

QUESTION = "Does a smaller pretraining loss mean a better score?"
DEFINITION = (
    "An encoder's loss is that of its pretraining run on held-out text, in nats a hidden token; a score is that of a "
    "fine-tuned model that began with this encoder's files, in points (0-100), on the split that decides. A line is "
    "laid through all of a task by least squares. Points a nat: its slope; small: its 95 % interval by Student's t, "
    "which takes runs for independent. Correlation: Pearson's. Which encoders are compared decides both: where they "
    "differ in more than their loss, the slope is not that of the loss alone."
)
_COLUMNS = (
    StudyColumn("metric", "Metric"),
    StudyColumn("runs", "Runs", form="count"),
    StudyColumn("least", "Smallest loss"),
    StudyColumn("largest", "Largest loss"),
    StudyColumn("slope", "Points a nat", form="signed"),
    StudyColumn("low", "low", form="signed", beside=True),
    StudyColumn("high", "high", form="signed", beside=True),
    StudyColumn("correlation", "Correlation", form="correlation"),
)
FEWEST = 3
LOSS, WEIGHTS = "loss", "model.safetensors"
_LEVEL = 0.95


@dataclass(frozen=True)
class LossLine:
    """The fine-tunings of one task, by rising pretraining loss [runs], with the line through them."""

    task: str
    metric: str
    losses: tuple[float, ...]
    scores: tuple[float, ...]
    slope: float
    level: float
    low: float
    high: float
    correlation: float | None

    @property
    def row(self) -> StudyRow:
        """Of the table."""
        ends = (self.losses[0], self.losses[-1])
        fit = (self.slope, self.low, self.high, self.correlation)
        return StudyRow(self.task, (metric_name(self.metric), len(self.losses), *ends, *fit))

    @property
    def panel(self) -> LinePanel:
        """The runs as points, and the line."""
        ends = (self.losses[0], self.losses[-1])
        fit = tuple(self.level + self.slope * loss for loss in ends)
        lines = (
            ChartLine("fine-tuned models", self.losses, self.scores, joined=False),
            ChartLine("least squares", ends, fit, reference=True),
        )
        return LinePanel(self.task, "Pretraining loss, nats", metric_name(self.metric), lines)


def pretraining_loss(records: Mapping[str, Record]) -> StudyResult:
    """Of every task with FEWEST runs of encoders whose losses differ. Raises UserError where there is none."""
    losses = _losses(records)
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for record in records.values():
        encoder = "" if record.inputs is None else record.inputs.model.get(WEIGHTS, "")
        score = None if record.kind == "pretrain" else _main_score(record, record.models[-1])
        if encoder in losses and score is not None and record.main_metric is not None:
            found.setdefault((record.task, record.main_metric), []).append((losses[encoder], score))
    lines = [_line(*key, sorted(rows)) for key, rows in found.items() if len({loss for loss, _ in rows}) >= FEWEST]
    if not lines:
        raise UserError(
            f"A line wants {FEWEST} pretrained encoders with a fine-tuned model of each",
            got=f"{len(losses)} of runs of pretrain, {sum(map(len, found.values()))} models that began with one",
            fix="give the runs of pretrain, and those of finetune or glue on their models",
        )
    return StudyResult(
        "pretraining-loss",
        QUESTION,
        _sentence(lines),
        DEFINITION,
        tuple(records),
        _COLUMNS,
        tuple(line.row for line in lines),
        StudyChart(tuple(line.panel for line in lines)),
        heading="task",
    )


def _losses(records: Mapping[str, Record]) -> dict[str, float]:
    """By the digest of an encoder's weights its loss on held-out text."""
    found = {}
    for record in records.values():
        for model in record.models if record.kind == "pretrain" else ():
            loss = next((score.value for score in model.scores if score.metric == LOSS), None)
            if loss is not None and WEIGHTS in model.files:
                found[model.files[WEIGHTS]] = loss
    return found


def _main_score(record: Record, model: ModelResult) -> float | None:
    return next((100 * one.value for one in model.scores if one.metric == record.main_metric), None)


def _line(task: str, metric: str, rows: list[tuple[float, float]]) -> LossLine:
    from scipy.stats import t

    losses, scores = (np.array(side) for side in zip(*rows, strict=True))
    away, spread = losses - losses.mean(), ((losses - losses.mean()) ** 2).sum()
    slope = float((away * scores).sum() / spread)
    level = float(scores.mean() - slope * losses.mean())
    freedom = len(rows) - 2
    error = float(np.sqrt(((scores - level - slope * losses) ** 2).sum() / freedom / spread))
    reach = float(t.ppf((1 + _LEVEL) / 2, freedom)) * error
    correlation = float(np.corrcoef(losses, scores)[0, 1]) if np.ptp(scores) else None
    points = (tuple(losses.tolist()), tuple(scores.tolist()))
    return LossLine(task, metric, *points, slope, level, slope - reach, slope + reach, correlation)


def _sentence(lines: list[LossLine]) -> str:
    """What each task gains with a nat less."""
    numbers = [[written(-one, "signed") for one in (line.slope, line.high, line.low)] for line in lines]
    said = [
        f"{mid} points ({low} to {high}) on {line.task}" for line, (mid, low, high) in zip(lines, numbers, strict=True)
    ]
    known = [line.task for line in lines if line.high < 0]
    shown = f"known to be a gain on {', '.join(known)}" if known else "on no task known to be a gain"
    return f"A nat less goes with {', '.join(said)}: {shown}."


def _ask(asked: AskedRecords) -> StudyResult:
    return pretraining_loss(asked.records)


PRETRAINING_LOSS = RecordStudy("whether a smaller pretraining loss means a better score", _ask, fewest=FEWEST + 1)

"""The thresholds of a run's models: chosen on train rows that no training sees, before a model is saved."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from sparsebert.data.labels import labels_of
from sparsebert.models.thresholds import set_thresholds, thresholds_of
from sparsebert.records import LabelThresholds
from sparsebert.runs.context import RunContext

ANSWER = "answer"
"""What a record calls the threshold of a model that finds answers."""


def choose_own(context: RunContext[Any], model: PreTrainedModel) -> None:
    """Write into a model's configuration the thresholds that suit its outputs; without rows to choose by it stays.

    One that has none then gets those of its kind, if there are any.
    """
    if not context.kind.has_thresholds:
        return
    if context.threshold_rows is None and not thresholds_of(model.config):
        set_thresholds(model.config, context.kind.default_thresholds(labels_of(context.train)))
    if context.threshold_rows is not None:
        outputs = context.outputs(model, context.threshold_rows)
        set_thresholds(model.config, context.kind.chosen_thresholds(outputs, labels_of(context.threshold_rows)))


def recorded(context: RunContext[Any], model: PreTrainedModel) -> LabelThresholds | None:
    """What a record says of a model's thresholds; None for one without."""
    values = thresholds_of(model.config)
    if not values:
        return None
    # Rows of the task: those that models read are windows where texts are long.
    rows = context.task.threshold_rows
    given = rows is None or values == thresholds_of(context.start().config)
    return LabelThresholds(
        values=dict(zip(context.spec.labels or (ANSWER,), values, strict=True)),
        rows=None if given or rows is None else len(rows),
    )

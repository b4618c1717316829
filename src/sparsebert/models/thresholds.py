"""Thresholds in a model's configuration: from which probability on each label of a multilabel model is given."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PretrainedConfig

from sparsebert.models.config import CONFIG_FILE
from sparsebert.tasks.multilabel import MULTILABEL
from sparsebert.tasks.thresholds import checked_thresholds

KEY = "thresholds"


def thresholds_of(config: PretrainedConfig, where: str = CONFIG_FILE) -> tuple[float, ...]:
    """Probabilities in the order of the model's labels; none where the model has none, or is for another kind of task.

    Raises UserError, which names `where`, for thresholds that are damaged.
    """
    found = vars(config).get(KEY)
    if found is None or config.problem_type != MULTILABEL.problem_type:
        return ()
    return checked_thresholds(found, config.num_labels or 0, where)


def set_thresholds(config: PretrainedConfig, values: Sequence[float]) -> None:
    """Write them into a configuration, in place; none = the model decides at one half."""
    if values:
        vars(config)[KEY] = list(values)
    else:
        vars(config).pop(KEY, None)

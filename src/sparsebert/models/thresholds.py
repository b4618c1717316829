"""Thresholds in a model's configuration: from which probability on a label, or an answer in a text, is given."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PretrainedConfig

from sparsebert.models.config import CONFIG_FILE
from sparsebert.tasks.multilabel import MULTILABEL
from sparsebert.tasks.thresholds import checked_thresholds

KEY, ANSWER_KEY = "thresholds", "answer_threshold"


def thresholds_of(config: PretrainedConfig, where: str = CONFIG_FILE) -> tuple[float, ...]:
    """Probabilities in the order of the model's labels, or the one of answers; none where the model has none.

    Raises UserError, which names `where`, for thresholds that are damaged.
    """
    if config.problem_type == MULTILABEL.problem_type:
        found = vars(config).get(KEY)
        return () if found is None else checked_thresholds(found, config.num_labels or 0, where)
    found = vars(config).get(ANSWER_KEY)
    return () if found is None else checked_thresholds([found], 1, where)


def set_thresholds(config: PretrainedConfig, values: Sequence[float]) -> None:
    """Write them into a configuration, in place; none = the model decides at one half, or always gives an answer."""
    for key in (KEY, ANSWER_KEY):
        vars(config).pop(key, None)
    if not values:
        return
    if config.problem_type == MULTILABEL.problem_type:
        vars(config)[KEY] = list(values)
    else:
        vars(config)[ANSWER_KEY] = values[0]

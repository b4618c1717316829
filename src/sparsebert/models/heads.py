"""What a configuration says its model was saved as: with which head, and for what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, PretrainedConfig

from sparsebert.models.families import family_of

Kind = Literal["classification", "regression", "masked_lm", "base"]
AUTO: dict[Kind, Any] = {
    "base": AutoModel,
    "classification": AutoModelForSequenceClassification,
    "regression": AutoModelForSequenceClassification,
    "masked_lm": AutoModelForMaskedLM,
}
CLASSIFIER, LANGUAGE_MODEL = "ForSequenceClassification", "ForMaskedLM"


def saved_kind(config: PretrainedConfig) -> Kind:
    """The kind of model that the configuration's class stands for; base for a head of any other kind."""
    names = config.architectures or ()
    if any(name.endswith(CLASSIFIER) for name in names):
        # As transformers itself reads one label without a problem type.
        alone = config.num_labels == 1 and config.problem_type is None
        return "regression" if alone or config.problem_type == "regression" else "classification"
    return "masked_lm" if any(name.endswith(LANGUAGE_MODEL) for name in names) else "base"


def unknown_head(config: PretrainedConfig) -> str | None:
    """The configuration's class where it has a head that this package neither loads nor saves, else None."""
    base = family_of(config).model_class("base").rpartition(":")[2]
    if saved_kind(config) != "base":
        return None
    return next((name for name in config.architectures or () if name.removeprefix("Sparse") != base), None)


def has_task_head(config: PretrainedConfig, num_labels: int, label_names: Sequence[str] = ()) -> bool:
    """True if this is a sequence classification model with these labels, so that it counts as fine-tuned.

    One label is a regression. Label names are compared, ignoring case, only where the configuration has names of its
    own. A model that may give several labels at once counts for no task here.
    """
    if saved_kind(config) != ("regression" if num_labels == 1 else "classification"):
        return False
    if config.num_labels != num_labels or config.problem_type == "multi_label_classification":
        return False
    names = [name.lower() for _, name in sorted((config.id2label or {}).items())]
    return has_no_names(config) or not label_names or names == [name.lower() for name in label_names]


def has_no_names(config: PretrainedConfig) -> bool:
    """True where the labels have no names but transformers' own, LABEL_0 and so on."""
    names = list((config.id2label or {}).values())
    return names == [f"LABEL_{index}" for index in range(len(names))]

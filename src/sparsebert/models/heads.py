"""What a configuration says its model was saved as: with which head, and for what."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import transformers
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, PretrainedConfig

from sparsebert.errors import UserError
from sparsebert.models.families import family_of
from sparsebert.models.labels import head_order

HeadKind = Literal["classification", "regression", "masked_lm", "base"]
AUTO: dict[HeadKind, Any] = {
    "base": AutoModel,
    "classification": AutoModelForSequenceClassification,
    "regression": AutoModelForSequenceClassification,
    "masked_lm": AutoModelForMaskedLM,
}
CLASSIFIER, LANGUAGE_MODEL = "ForSequenceClassification", "ForMaskedLM"
TASKS = "classification, regression"
# Ends of the names of classes that nobody has fine-tuned for a task yet.
_PRETRAINING = ("Model", LANGUAGE_MODEL, "ForCausalLM", "ForPreTraining", "ForNextSentencePrediction")


def saved_kind(config: PretrainedConfig) -> HeadKind:
    """The kind of model that the configuration's class stands for; base for a head of any other kind.

    Of a class that transformers does not have nothing is known but the family.
    """
    names = [name for name in config.architectures or () if is_known(name)]
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


def foreign_head(config: PretrainedConfig) -> str | None:
    """In words, the head of a model that was fine-tuned for a kind of task that this package does not have, else None.

    A base model, and the heads that models are pretrained with, are a start for any task. A class that transformers
    does not have may do anything.
    """
    for name in config.architectures or ():
        if not is_known(name):
            return f"{name}, a class of somebody's own"
        if not name.endswith((CLASSIFIER, *_PRETRAINING)):
            return name
        if name.endswith(CLASSIFIER) and config.problem_type == "multi_label_classification":
            return f"{name} for several labels at once (problem_type {config.problem_type})"
    return None


def is_known(name: str) -> bool:
    """Whether a model class is one of transformers, or of this package."""
    return name.removeprefix("Sparse") in _classes()


@cache
def _classes() -> frozenset[str]:
    # Listing them takes a tenth of a second.
    return frozenset(dir(transformers))


def check_start(config: PretrainedConfig, model: str) -> None:
    """Raise UserError for a model whose fine-tuned head a training for one of the known tasks would throw away."""
    head = foreign_head(config)
    if head is not None:
        raise UserError(
            f"The model '{model}' has a head that would be lost",
            got=head,
            allowed=f"models for {TASKS}, or without a fine-tuned head",
            fix="to start from its encoder alone, save that: transformers.AutoModel.from_pretrained(FOLDER)"
            ".save_pretrained(OTHER)",
        )


def has_task_head(config: PretrainedConfig, num_labels: int, label_names: Sequence[str] = ()) -> bool:
    """True if this is a sequence classification model with these labels, so that it counts as fine-tuned.

    One label is a regression. Labels may come in another order, which `take_labels` mends; their names are compared,
    ignoring case, only where both the configuration and the task have names. A model that may give several labels at
    once counts for no task here.
    """
    if saved_kind(config) != ("regression" if num_labels == 1 else "classification"):
        return False
    if config.num_labels != num_labels or config.problem_type == "multi_label_classification":
        return False
    return not label_names or head_order(config, label_names) is not None

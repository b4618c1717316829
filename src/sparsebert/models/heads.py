"""What a configuration says its model was saved as: with which head, and for what."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import transformers
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.models.families import ANSWERER, TAGGER, HeadName, family_of
from sparsebert.models.labels import head_order
from sparsebert.models.pair_classes import AutoModelForHead
from sparsebert.models.sentence import vector_of
from sparsebert.tasks.kind import TaskKind, task_kind

AUTO: dict[str, Any] = {
    "base": AutoModel,
    "classification": AutoModelForSequenceClassification,
    "tokens": AutoModelForTokenClassification,
    "spans": AutoModelForQuestionAnswering,
    "masked_lm": AutoModelForMaskedLM,
    "pair_classification": AutoModelForHead("pair_classification"),
    "pair_similarity": AutoModelForHead("pair_similarity"),
    "multitask": AutoModelForHead("multitask"),
    "embeddings": AutoModelForHead("embeddings"),
}
CLASSIFIER, LANGUAGE_MODEL = "ForSequenceClassification", "ForMaskedLM"
# Ends of the names of the classes with each head.
_ENDS: dict[str, HeadName] = {
    CLASSIFIER: "classification",
    TAGGER: "tokens",
    ANSWERER: "spans",
    LANGUAGE_MODEL: "masked_lm",
    "ForPairClassification": "pair_classification",
    "ForPairSimilarity": "pair_similarity",
    "ForMultitask": "multitask",
    "ForEmbeddings": "embeddings",
}
TASKS = ", ".join(registry.names("task_kind"))
# Ends of the names of classes that nobody has fine-tuned for a task yet.
_PRETRAINING = ("Model", LANGUAGE_MODEL, "ForCausalLM", "ForPreTraining", "ForNextSentencePrediction")


def saved_head(config: PretrainedConfig) -> HeadName:
    """The head of the configuration's class; of a base model embeddings, if it says how texts get vectors, else base.

    Of a class that transformers does not have nothing is known but the family.
    """
    for name in config.architectures or ():
        if is_known(name) and _head_of(name) != "base":
            return _head_of(name)
    return "base" if vector_of(config) is None else "embeddings"


def head_of(model: PreTrainedModel) -> HeadName:
    """The head of a model in memory, by the name of its class."""
    return _head_of(type(model).__name__)


def _head_of(name: str) -> HeadName:
    for end, head in _ENDS.items():
        if name.endswith(end):
            return head
    return "base"


def saved_kind(config: PretrainedConfig) -> str | None:
    """The name of the task kind that a model was saved as fine-tuned for; None for one that is for none of them."""
    return _kind_with(saved_head(config), config)


def kind_of(model: PreTrainedModel) -> TaskKind:
    """The task kind that a model in memory is for, by its configuration. Raises UserError if that is for none."""
    head = head_of(model)
    name = _kind_with("classification" if head == "base" else head, model.config)
    if name is None:
        got = f"problem_type {model.config.problem_type}"
        raise UserError("The model is for no known task", got=got, allowed=TASKS)
    return task_kind(name)


def _kind_with(head: HeadName, config: PretrainedConfig) -> str | None:
    for name in registry.names("task_kind"):
        kind = task_kind(name)
        if kind.head == head and kind.recognises(config.num_labels, config.problem_type):
            return name
    return None


def unknown_head(config: PretrainedConfig) -> str | None:
    """The configuration's class where it has a head that this package neither loads nor saves, else None."""
    base = family_of(config).model_class("base").rpartition(":")[2]
    if saved_head(config) != "base":
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
        if not name.endswith((*_ENDS, *_PRETRAINING)):
            return name
    return None


def is_known(name: str) -> bool:
    """Whether a model class is one of transformers, or of this package."""
    return name.removeprefix("Sparse") in _classes() | _own_classes()


@cache
def _classes() -> frozenset[str]:
    # Listing them takes a tenth of a second.
    return frozenset(dir(transformers))


@cache
def _own_classes() -> frozenset[str]:
    """The classes for heads that transformers does not have."""
    families = (registry.get("family", name) for name in registry.names("family"))
    named = (dotted.split(":") for family in families for _, dotted in family.model_classes)
    return frozenset(name for module, name in named if module.startswith("sparsebert."))


def check_start(config: PretrainedConfig, model: str) -> None:
    """Raise UserError for a model whose fine-tuned head a training for one of the known tasks would throw away."""
    if saved_head(config) == "multitask":
        raise UserError(f"The model '{model}' has three heads", fix="take it apart with `sparsebert split`")
    head = foreign_head(config)
    if head is not None:
        raise UserError(
            f"The model '{model}' has a head that would be lost",
            got=head,
            allowed=f"models for {TASKS}, or without a fine-tuned head",
            fix="to start from its encoder alone, save that: transformers.AutoModel.from_pretrained(FOLDER)"
            ".save_pretrained(OTHER)",
        )


def has_task_head(config: PretrainedConfig, kind: TaskKind, num_labels: int, label_names: Sequence[str] = ()) -> bool:
    """True if this is a model with the head of a task of this kind and these labels, so that it counts as fine-tuned.

    Labels may come in another order, which `take_labels` mends; their names are compared, ignoring case, only where
    both the configuration and the task have names.
    """
    if kind.hides_tokens:
        return saved_head(config) == kind.head
    if saved_head(config) != kind.head or not kind.recognises(config.num_labels, config.problem_type):
        return False
    if kind.labelled and config.num_labels != num_labels:
        return False
    return not label_names or head_order(config, label_names) is not None

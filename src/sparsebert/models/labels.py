"""Which row of a saved classifier stands for which label of a task, and what the labels are called afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PretrainedConfig, PreTrainedModel

from sparsebert.models.families import TAGGER, family_of
from sparsebert.models.pair import PairClassificationHead
from sparsebert.models.thresholds import set_thresholds, thresholds_of


def own_names(config: PretrainedConfig) -> list[str]:
    """What the configuration calls its labels, in the order of the classifier's rows."""
    return [name for _, name in sorted((config.id2label or {}).items())]


def has_no_names(config: PretrainedConfig) -> bool:
    """True where the labels have no names but numbers: transformers' own LABEL_0 and so on, or 0 and so on."""
    names = own_names(config)
    return names == [f"LABEL_{index}" for index in range(len(names))] or are_numbers(names)


def are_numbers(names: Sequence[str]) -> bool:
    """True for labels that are called 0, 1 and so on: they say which row is meant, and nothing else."""
    return list(names) == [str(index) for index in range(len(names))]


def head_order(config: PretrainedConfig, label_names: Sequence[str]) -> list[int] | None:
    """For each label of the task the row of the classifier that stands for it; None where that cannot be told.

    Names that are not the same are compared ignoring case. Where model or task has only numbers for its labels, the
    order is the model's.
    """
    own = own_names(config)
    if len(own) != len(label_names):
        return None
    if has_no_names(config) or are_numbers(label_names):
        return list(range(len(own)))
    exact = _places(own, label_names)
    return exact or _places([name.lower() for name in own], [name.lower() for name in label_names])


def _places(own: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    rows = {name: row for row, name in enumerate(own)}
    return [rows[name] for name in wanted] if sorted(rows) == sorted(wanted) else None


def name_labels(config: PretrainedConfig, names: Sequence[str]) -> None:
    """Give the labels of a configuration these names, in place."""
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}


@torch.no_grad()
def take_labels(model: PreTrainedModel, label_names: Sequence[str]) -> None:
    """Put a classifier of the task's labels into the task's order, in place, and name them as the task does.

    A model's own names stay where the task has only numbers.
    """
    order = head_order(model.config, label_names)
    assert order is not None, "the model's labels are not the task's"
    limits = thresholds_of(model.config)
    set_thresholds(model.config, [limits[row] for row in order] if limits else ())
    pairs = _pair_head(model)
    if order != sorted(order) and pairs is not None:
        pairs.reorder(order)
    elif order != sorted(order):
        for parameter in _classifier(model).parameters():
            parameter.copy_(parameter[order].clone())
    if has_no_names(model.config) or not are_numbers(label_names):
        name_labels(model.config, label_names)


@torch.no_grad()
def draw_head(model: PreTrainedModel) -> None:
    """Give the rows of a classifier, which stand for other labels than the task's, new values, in place."""
    set_thresholds(model.config, ())
    pairs = _pair_head(model)
    head = _classifier(model) if pairs is None else pairs.linear
    for name, parameter in head.named_parameters():
        parameter.normal_(std=model.config.initializer_range if name == "weight" else 0.0)


def _classifier(model: PreTrainedModel) -> torch.nn.Module:
    """The projection that has one row a label."""
    # Every family calls it so where tokens are classified.
    tags = type(model).__name__.endswith(TAGGER)
    return model.get_submodule("classifier" if tags else family_of(model.config).classifier)


def _pair_head(model: PreTrainedModel) -> PairClassificationHead | None:
    """The head of a model that classifies pairs whose sides it reads apart."""
    found = dict(model.named_children()).get("classifier")
    return found if isinstance(found, PairClassificationHead) else None

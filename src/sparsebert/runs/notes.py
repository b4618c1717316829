"""What a run says of the model and the teachers that it is given, before it begins."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PretrainedConfig

from sparsebert.data.load import Task
from sparsebert.models.families import family_of
from sparsebert.models.heads import has_task_head, saved_head
from sparsebert.models.labels import are_numbers, has_no_names, head_order, own_names
from sparsebert.models.load import load_config
from sparsebert.models.source import resolve
from sparsebert.models.thresholds import thresholds_of
from sparsebert.tasks.kind import task_kind
from sparsebert.tasks.table import TaskSpec


def has_head(config: PretrainedConfig, spec: TaskSpec) -> bool:
    """Whether a saved model is fine-tuned for a task."""
    kind = task_kind(spec.kind)
    return has_task_head(config, kind, kind.num_outputs or len(spec.labels), spec.labels)


def notes_about(config: PretrainedConfig, spec: TaskSpec) -> list[str]:
    """What is special about a model as a start for a task."""
    notes = []
    if config.dtype not in (None, torch.float32):
        saved = str(config.dtype).removeprefix("torch.")
        notes.append(
            f"The model is saved in {saved}; it is worked on in float32, and sizes are against its float32 file"
        )
    together = family_of(config).heads_together(config)
    if together > 1:
        notes.append(f"{together} heads share keys and values, so that heads are counted, and cut, in such groups")
    notes += _notes_about_head(config, spec)
    return notes


def notes_about_thresholds(config: PretrainedConfig, task: Task) -> list[str]:
    """A line where thresholds are chosen for a model that somebody else has trained."""
    if task.threshold_rows is None or not has_head(config, task.spec) or thresholds_of(config):
        return []
    return ["The model was fine-tuned before, perhaps on rows that its thresholds are chosen on here"]


def notes_about_teachers(names: Sequence[str], labels: Sequence[str]) -> list[str]:
    """A line for each teacher whose labels' order cannot be checked."""
    if not labels:
        return []
    wanted = ", ".join(labels)
    return [
        f"The labels of the teacher {name} have no names: they are taken to be {wanted}, in this order"
        for name in names
        if has_no_names(load_config(resolve(name)))
    ]


def _notes_about_head(config: PretrainedConfig, spec: TaskSpec) -> list[str]:
    """What was made of a head for texts that the model brings along."""
    label_names = spec.labels
    if saved_head(config) in ("base", "masked_lm", "embeddings"):
        return []
    own, wanted = ", ".join(own_names(config)), ", ".join(label_names) or "one value"
    wanted = "the start and the end of an answer" if task_kind(spec.kind).by_span else wanted
    if not has_head(config, spec):
        has = "one value" if config.num_labels == 1 else own
        return [f"The model's head gives {has}, and the task wants {wanted}: it is not recognised, and trained anew"]
    if not label_names:
        return []
    if has_no_names(config):
        return ["The model's labels have no names, but are as many as the task's: it is taken to be fine-tuned for it"]
    if are_numbers(label_names):
        return [f"The labels {wanted} are taken to be the model's {own}, in this order; it keeps these names"]
    order = head_order(config, label_names) or []
    if order != sorted(order):
        return [f"The model gives its labels in the order {own}; its head was put into the task's order, {wanted}"]
    return []

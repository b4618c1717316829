"""Knowledge distillation: what a teacher adds to the loss, by logits, layer outputs and attention maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from sparsebert.data.batches import inputs_of
from sparsebert.errors import UserError
from sparsebert.models.families import is_shrunk
from sparsebert.models.layout import layout_of
from sparsebert.recipe.schema import Distill
from sparsebert.training.collate import Batch, Collator
from sparsebert.training.teacher import TeacherCache, names_of_labels


@dataclass(frozen=True)
class Distiller:
    """What the trainer needs to distil: the teacher's cache, the weights, and which layers teach which.

    `layers` holds for each layer of the student the layer of the teacher that it was, and `dimensions` the same for the
    hidden states of a student that has fewer; none = it has all. `teacher` runs along only for its attention maps,
    which are too large to keep: [layers, heads, T, T] an example.
    """

    cache: TeacherCache
    weights: Distill
    layers: tuple[int, ...]
    teacher: PreTrainedModel | None = None
    dimensions: tuple[int, ...] | None = None

    @property
    def wants_hidden(self) -> bool:
        """Whether the outputs of the student's layers are needed."""
        return self.weights.hidden > 0 and self.cache.hidden is not None and len(self.layers) > 0

    @property
    def wants_maps(self) -> bool:
        """Whether attention maps are needed."""
        return self.weights.attention > 0

    @property
    def taught(self) -> tuple[int, ...]:
        """The teacher's layers whose outputs a batch carries."""
        if not self.wants_hidden:
            return ()
        return tuple(range(len(self.cache.scale))) if self.weights.match == "nearest" else self.layers

    def check(self, student: PreTrainedModel, rows: int | None) -> None:
        """Raises UserError for a student that the teacher cannot teach; `rows` is how many it trains on, if known."""
        taught, outputs = len(self.cache.logits), self.cache.logits.shape[-1]
        if rows is not None and rows != taught:
            raise UserError(
                "The teacher was asked about other training rows",
                got=f"{rows} rows, {taught} of the teacher's",
                fix="call cache_teacher with the rows that are trained on",
            )
        if self.cache.kind.labelled:
            check_labels(student, outputs, self.cache.labels)
        if self.teacher is not None:
            check_match(student, self.teacher, self.weights)
        if self.cache.hidden is not None and self.wants_hidden:
            _check_width(student, len(self.dimensions or ()) or self.cache.hidden.shape[-1])
            self._check_layers(len(layout_of(student).layers))

    def _check_layers(self, own: int) -> None:
        known = len(self.cache.scale)
        ordered = self.weights.match == "kept"
        if any(layer not in range(known) for layer in self.layers) or (ordered and len(self.layers) != own):
            raise UserError(
                "The distiller names other layers than the models have",
                got=self.layers,
                allowed=f"one of the teacher's {known} for each of the student's {own}",
            )

    def collator(self, collate: Collator) -> Collator:
        """Wrap a collator so that batches carry the teacher's outputs."""
        # No function of its own, which could not be sent to the workers of a data loader.
        return partial(_with_teacher, self.cache, self.taught, self.dimensions, collate)

    @contextmanager
    def at_work(self, student: PreTrainedModel) -> Iterator[None]:
        """Inside, both models give attention maps where these are wanted: only eager attention makes them."""
        models = [student, self.teacher] if self.wants_maps else []
        before = [(model, model.config._attn_implementation) for model in models if model is not None]
        try:
            for model, _ in before:
                model.set_attn_implementation("eager")
            if self.teacher is not None:
                nn.Module.to(self.teacher, student.device)
            yield
        finally:
            for model, implementation in before:
                model.set_attn_implementation(implementation)

    def loss(self, output: Any, layers: Sequence[torch.Tensor], batch: Batch) -> torch.Tensor:
        """Weighted sum of the task loss and what the teacher says of logits, `layers` and attention (see Distill)."""
        total = self.weights.labels * output.loss
        kind = self.cache.kind
        own = kind.counted(kind.outputs(output), batch["labels"])
        taught = kind.counted(batch["teacher_logits"], batch["labels"])
        total = total + self.weights.logits * kind.distillation(own, taught, self.weights.temperature)
        if self.wants_hidden:
            student = torch.stack(tuple(layers))
            scale = torch.tensor([self.cache.scale[layer] for layer in self.taught], device=student.device)
            compare = nearest_loss if self.weights.match == "nearest" else hidden_loss
            total = total + self.weights.hidden * compare(
                student, batch["teacher_hidden"], batch["attention_mask"], scale
            )
        if self.wants_maps:
            total = total + self.weights.attention * self._map_loss(output.attentions, batch)
        return total

    def _map_loss(self, maps: Sequence[torch.Tensor], batch: Batch) -> torch.Tensor:
        assert self.teacher is not None
        with torch.no_grad():
            given = inputs_of(batch)
            taught = self.teacher(**given, output_attentions=True).attentions
        chosen = torch.stack([taught[layer] for layer in self.layers])
        return attention_loss(torch.stack(tuple(maps)), chosen, batch["attention_mask"])


def _with_teacher(
    cache: TeacherCache, layers: Sequence[int], dimensions: Sequence[int] | None, collate: Collator, rows: Sequence[Any]
) -> Batch:
    batch = cache.add_to(collate(rows), layers)
    if dimensions is not None and "teacher_hidden" in batch:
        batch["teacher_hidden"] = batch["teacher_hidden"][..., list(dimensions)]
    return batch


def check_match(student: PreTrainedModel, teacher: PreTrainedModel, weights: Distill) -> None:
    """Raises UserError if the layers or heads of two models cannot be compared as the weights ask for."""
    own, theirs = (layout_of(model).layers for model in (student, teacher))
    ordered = weights.attention > 0 or (weights.hidden > 0 and weights.match == "kept")
    if ordered and layers_taught_by(student, teacher) is None:
        raise UserError(
            "Teacher and student have different numbers of layers",
            got=f"{len(theirs)} and {len(own)}",
            fix="set distill.match to nearest and distill.attention to 0, or distill.hidden to 0",
        )
    if weights.hidden > 0:
        dimensions = dimensions_taught_by(student, teacher)
        _check_width(student, teacher.config.hidden_size if dimensions is None else len(dimensions))
    heads = [[layer.units["head"] for layer in layers] for layers in (theirs, own)]
    if weights.attention > 0 and heads[0] != heads[1]:
        raise UserError(
            "Teacher and student have different numbers of heads", got=heads[1], fix="set distill.attention to 0"
        )


def layers_taught_by(student: PreTrainedModel, teacher: PreTrainedModel) -> tuple[int, ...] | None:
    """For each layer of the student, the number of the teacher's that it was; none where that is not known.

    A shrunk student says which of its dense model's layers it kept, and a teacher with as many is taken to have those.
    """
    own, theirs = (layout_of(model).layers for model in (student, teacher))
    if len(own) == len(theirs):
        return tuple(range(len(own)))
    if is_shrunk(student.config) and student.config.original_layers == len(theirs):
        return tuple(layer.original_index for layer in own)
    return None


def dimensions_taught_by(student: PreTrainedModel, teacher: PreTrainedModel) -> tuple[int, ...] | None:
    """For each dimension of the student's hidden states the number of the teacher's that it was.

    None where both have as many, and where a student with fewer does not say that they are some of the teacher's.
    """
    own, theirs = (_places(model.config) for model in (student, teacher))
    if len(own) == len(theirs) or not set(own) <= set(theirs):
        return None
    if not is_shrunk(student.config) or student.config.original_hidden != _original(teacher.config):
        return None
    return tuple(theirs.index(place) for place in own)


def _places(config: PretrainedConfig) -> list[int]:
    """The places that the dimensions of hidden states had in the dense model."""
    return (config.kept_hidden if is_shrunk(config) else None) or list(range(config.hidden_size))


def _original(config: PretrainedConfig) -> int:
    return config.original_hidden if is_shrunk(config) else config.hidden_size


def _check_width(student: PreTrainedModel, taught: int) -> None:
    if student.config.hidden_size != taught:
        raise UserError(
            "The layers of teacher and student have outputs of different widths",
            got=f"{taught} and {student.config.hidden_size}",
            fix="set distill.hidden to 0",
        )


def check_labels(student: PreTrainedModel, outputs: int, labels: tuple[str, ...]) -> None:
    """Raises UserError if a teacher's outputs, or their names, are not the student's, one by one.

    Names are compared, ignoring case, only where both have some.
    """
    own = names_of_labels(student)
    if outputs != student.config.num_labels:
        what = "Teacher and student have different numbers of outputs"
        raise UserError(what, got=f"{outputs} and {student.config.num_labels}", fix="give a teacher of this task")
    if labels and own and [name.lower() for name in labels] != [name.lower() for name in own]:
        same = {name.lower() for name in labels} == {name.lower() for name in own}
        raise UserError(
            f"Teacher and student have their labels in {'another order' if same else 'other words'}",
            got=f"{', '.join(labels)} and {', '.join(own)}",
            fix="give both models the same id2label, and the rows of their heads in that order",
        )


def hidden_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Mean squared error of hidden states [layers, B, T, hidden] over real tokens (mask [B, T]), each layer by `scale`.

    TinyBERT, arXiv:1909.10351, eq. 8, without the learned projection, as the widths are equal.
    """
    error = (student - teacher).square().mean(dim=-1)
    per_layer = (error * mask).sum(dim=(1, 2)) / mask.sum()
    return (per_layer / scale).mean()


def nearest_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Every layer of the teacher teaches the layer of the student that is nearest to it in this batch.

    student [S, B, T, hidden], teacher [L, B, T, hidden], mask [B, T], scale [L]. CoFi, arXiv:2204.00408, eq. 5-6,
    without the learned projection.
    """
    pairs = [
        hidden_loss(one[None], taught[None], mask, scale[i]) for i, taught in enumerate(teacher) for one in student
    ]
    return torch.stack(pairs).view(len(teacher), len(student)).amin(dim=1).mean()


def attention_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Squared error of attention probabilities [layers, B, heads, T, T], summed over keys, mean over real queries.

    TinyBERT, arXiv:1909.10351, eq. 7, on probabilities, and summed over keys so that it does not shrink with length.
    """
    error = (student - teacher).square().sum(dim=-1)
    return (error * mask[:, None, :]).sum() / (mask.sum() * student.shape[0] * student.shape[2])

"""Teachers that a phase names: loaded, checked, and asked about the texts in their own tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from datasets import Dataset
from transformers import PreTrainedModel

from sparsebert.data.encode import encode
from sparsebert.errors import UserError
from sparsebert.models.layout import layout_of
from sparsebert.models.limits import position_limit, token_limits
from sparsebert.models.load import load_config, load_tokenizer
from sparsebert.models.source import resolve
from sparsebert.recipe.schema import Distill
from sparsebert.runs.context import RunContext
from sparsebert.runs.remarks import collapse
from sparsebert.training.collate import Collator, padding_collator
from sparsebert.training.distill import Distiller, check_match, dimensions_taught_by, layers_taught_by
from sparsebert.training.evaluate import predict_logits
from sparsebert.training.live_distill import LiveDistiller, Teaching
from sparsebert.training.teacher import cache_teacher

SAMPLE_ROWS = 1000


class Distilled(Protocol):
    """A part of a recipe that names a teacher and says what is learned from it: a phase, or the recipe of finetune."""

    @property
    def teacher(self) -> str | None:
        """A folder or hub name, `dense`, or none."""
        ...

    @property
    def distill(self) -> Distill:
        """The weights of the terms of the loss."""
        ...


@dataclass(frozen=True)
class Teacher:
    """A teacher, rows as it reads them, and how these become batches."""

    model: PreTrainedModel
    rows: Dataset
    collate: Collator


def check_teacher(context: RunContext, phase: Distilled, student: PreTrainedModel) -> None:
    """Raises UserError if the model that a phase names cannot teach the student what the phase asks for."""
    if phase.teacher is None or phase.teacher == "dense":
        return
    if not context.kind.kept:
        LiveDistiller(_live(context, phase.teacher), phase.distill).check(student, None)
        return
    teacher = given_teacher(context, phase, SAMPLE_ROWS)
    check_match(student, teacher.model, phase.distill)


def given_teacher(context: RunContext, phase: Distilled, most: int | None = None) -> Teacher:
    """The model that a phase names, with the train rows, or the first `most`, in the tokens of its own tokenizer.

    Raises UserError for a model that is not fine-tuned for the task, and for tokens that are not the student's where
    the phase compares what the models give token by token.
    """
    assert phase.teacher is not None
    if not context.kind.kept:
        return Teacher(_live(context, phase.teacher), context.train, context.collate)
    texts = context.task.train if most is None else context.task.train.select(range(min(most, len(context.task.train))))
    teacher = _teacher(context, phase.teacher, texts)
    if phase.distill.hidden > 0 or phase.distill.attention > 0:
        _check_tokens(context, phase, teacher)
    return teacher


def distiller_of(
    context: RunContext, phase: Distilled, teacher: Teacher, folder: Path, student: PreTrainedModel
) -> Teaching:
    """What teaches a student, each of its layers by the one that it was; the teacher's outputs are kept in `folder`.

    A task whose outputs are too many has a teacher that runs along.
    """
    if not context.kind.kept:
        return LiveDistiller(teacher.model, phase.distill)
    hidden = phase.distill.hidden > 0
    cache = cache_teacher(teacher.model, teacher.rows, teacher.collate, folder, hidden, context.kind)
    # Where layers need not be told apart, none is known to be another's.
    layers = layers_taught_by(student, teacher.model) or tuple(range(len(layout_of(student).layers)))
    dimensions = dimensions_taught_by(student, teacher.model)
    return Distiller(cache, phase.distill, layers, teacher.model if phase.distill.attention > 0 else None, dimensions)


def teacher_doubts(context: RunContext, names: Sequence[str]) -> tuple[str, ...]:
    """A line for each of the named teachers that is no better than an answer that does not look at the text."""
    found = []
    for name in names if context.kind.kept else ():
        teacher = _teacher(context, name, context.task.validation)
        outputs = predict_logits(teacher.model, teacher.rows, teacher.collate, kind=context.kind)
        predictions = {context.task.validation_name: outputs}
        said = collapse(context, f"The teacher {name}", context.score(predictions), context.decide(predictions))
        found += [f"{said}. What is learned from it is worth as little"] if said else []
    return tuple(found)


def _live(context: RunContext, name: str) -> PreTrainedModel:
    source = resolve(name)
    config = load_config(source)
    if not context.has_head(config):
        raise UserError("The teacher is no masked language model", got=name, fix="give teacher: dense")
    if load_tokenizer(source).get_vocab() != context.tokenizer.get_vocab():
        raise UserError("The teacher was pretrained with another vocabulary", got=name, fix="give teacher: dense")
    limit = position_limit(config)
    if limit is not None and context.recipe.max_length > limit:
        raise UserError("Rows are longer than the teacher reads", got=context.recipe.max_length, allowed=f"to {limit}")
    return context.load(source)


def _teacher(context: RunContext, name: str, texts: Dataset) -> Teacher:
    source = resolve(name)
    config = load_config(source)
    if not context.has_head(config):
        raise UserError("The teacher is not fine-tuned for this task", got=name, fix="give teacher: dense")
    model, tokenizer = context.load(source), load_tokenizer(source)
    takes = (context.recipe.max_length, *token_limits(config), context.kind)
    rows = encode(texts, tokenizer, *takes).dataset
    return Teacher(model, rows, padding_collator(tokenizer))


def _check_tokens(context: RunContext, phase: Distilled, teacher: Teacher) -> None:
    """Layers and attention maps are compared token by token; for maps the teacher reads the student's own batches."""
    rows, own = teacher.rows, context.train.select(range(len(teacher.rows)))
    alike = _ids(own).equals(_ids(rows))
    if phase.distill.attention > 0:
        alike = alike and set(rows.column_names) <= set(own.column_names) <= {*rows.column_names, "row"}
        alike = alike and teacher.collate == context.collate
    if not alike:
        raise UserError(
            "The teacher's tokenizer gives other tokens than the student's, so only logits can be compared",
            got=phase.teacher,
            fix="set distill.hidden and distill.attention to 0, or give a teacher with the student's tokenizer",
        )


def _ids(rows: Dataset) -> Any:
    return rows.select_columns(["input_ids"]).with_format("arrow")[:]["input_ids"]

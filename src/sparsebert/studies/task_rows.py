"""Texts that models are asked about: rows of a task or of the user's own file, as the models' tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sparsebert.data.encode import encode
from sparsebert.data.labels import labels_of
from sparsebert.data.load import Task, load_task
from sparsebert.errors import UserError
from sparsebert.models.heads import has_task_head, saved_head
from sparsebert.models.labels import own_names, take_labels
from sparsebert.models.limits import reading_length, token_limits
from sparsebert.models.load import load_config, load_model, load_tokenizer
from sparsebert.models.source import ModelSource
from sparsebert.recipe.base import Recipe
from sparsebert.studies.study import StudyOptions
from sparsebert.tasks.kind import TaskKind, task_kind
from sparsebert.tasks.table import TaskSpec
from sparsebert.training.collate import Collator, padding_collator


@dataclass(frozen=True)
class TokenRows:
    """Texts as tokens of one model, and what makes batches of them; `length` tokens of a text are read at most."""

    rows: Dataset
    collate: Collator
    length: int
    tokenizer: PreTrainedTokenizerBase

    @property
    def names(self) -> list[list[str]]:
        """The tokens of each row, as the vocabulary calls them."""
        known = {number: name for name, number in self.tokenizer.get_vocab().items()}
        return [[known[number] for number in ids] for ids in self.rows["input_ids"]]

    @property
    def labels(self) -> np.ndarray:
        """What the rows are labelled."""
        return labels_of(self.rows)


def task_of(options: StudyOptions) -> Task:
    """The task that was named, else the one that recipes take. Raises UserError for data that cannot be read.

    The seed of a study draws no split: a model would be asked about rows that it was trained on.
    """
    name = options.task or Recipe.model_fields["task"].default
    return load_task(name, options.data, options.columns, Recipe.model_fields["data_seed"].default)


def drawn(rows: Dataset, examples: int | None, seed: int) -> Dataset:
    """`examples` of the rows, none = all, drawn with the seed and in their order."""
    if examples is None or examples >= len(rows):
        return rows
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:examples])
    return rows.select(chosen.tolist())


def texts_of(options: StudyOptions, examples: int) -> tuple[Dataset, str]:
    """Texts with or without labels, at most so many, and in words where they are from: the user's, or a task's.

    Raises UserError where both are given, and as `task_of`.
    """
    if options.texts and "task" in options.given:
        raise UserError("Give --texts, or --task and what goes with it, not both")
    if not options.texts:
        return texts_of_task(task_of(options), options, examples)
    columns = {"text_a": list(options.texts), "label": [0] * len(options.texts)}
    if options.second:
        columns["text_b"] = list(options.second)
    rows = drawn(Dataset.from_dict(columns), options.examples or examples, options.seed)
    return rows, f"{len(rows):,} texts of the file"


def texts_of_task(task: Task, options: StudyOptions, examples: int) -> tuple[Dataset, str]:
    """At most so many validation rows of a task that is read already, and in words where they are from."""
    rows = drawn(task.validation, options.examples or examples, options.seed)
    return rows, f"{len(rows):,} of the {task.spec.name} {task.validation_name} rows"


def common_length(sources: Sequence[ModelSource]) -> int:
    """Tokens of a text that all of the models read."""
    return min(reading_length(load_config(source), load_tokenizer(source)) for source in sources)


def token_rows(source: ModelSource, rows: Dataset, length: int, kind: TaskKind | None = None) -> TokenRows:
    """The rows as a model's own tokenizer reads them, without labels where no `kind` is told.

    Raises UserError for a tokenizer that does not fit its model.
    """
    if kind is None:
        rows = rows.select_columns([name for name in rows.column_names if name != "label"])
    tokenizer = load_tokenizer(source)
    tokenizer.padding_side = "right"
    takes = (*token_limits(load_config(source)), kind)
    return TokenRows(encode(rows, tokenizer, length, *takes).dataset, padding_collator(tokenizer), length, tokenizer)


def task_model(source: ModelSource, spec: TaskSpec) -> PreTrainedModel:
    """A model that is fine-tuned for the task, in float32, its labels in the task's order.

    Raises UserError for one that has no head for this task: what it says would be chance.
    """
    config, kind = load_config(source), task_kind(spec.kind)
    if not has_task_head(config, kind, kind.num_outputs or len(spec.labels), spec.labels):
        head = ", ".join(own_names(config)) if saved_head(config) not in ("base", "masked_lm") else "none"
        raise UserError(
            f"The model '{source.name}' is not fine-tuned for the task {spec.name}",
            got=f"labels {head}",
            allowed=", ".join(spec.labels) or "a number",
            fix="name its task with --task, and --data for one of your own",
        )
    model = load_model(source, num_labels=len(spec.labels) or None, kind=spec.kind, dtype=torch.float32)
    if spec.labels:
        take_labels(model, spec.labels)
    return model


def check_same_tokens(found: Mapping[str, TokenRows]) -> None:
    """Raises UserError where a tokenizer reads a text otherwise than the first one: then no token has its like."""
    (first, own), *others = found.items()
    for name, other in others:
        # By their names: a vocabulary that was cut has other ids.
        if own.names != other.names:
            raise UserError("The checkpoints' tokenizers read the texts differently", got=f"{first} and {name}")

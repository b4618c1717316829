"""The rows of a task as tokens, for one tokenizer and one model's limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from datasets import Dataset
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from sparsebert.data.divide import divided, in_windows, with_tokens
from sparsebert.data.encode import Encoded, encode
from sparsebert.data.load import Task
from sparsebert.data.tokens import Reader
from sparsebert.models.limits import token_limits
from sparsebert.recipe.base import Recipe
from sparsebert.tasks.kind import task_kind
from sparsebert.training.collate import Collator, padding_collator
from sparsebert.training.masked_texts import hidden_once
from sparsebert.training.text_rows import Hider

Further = Callable[[Task], Sequence[PreTrainedTokenizerBase]]
"""Tokenizers that will read the texts of a task besides the model's own."""


def encoded_splits(
    recipe: Recipe, task: Task, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig
) -> tuple[Encoded, dict[str, Encoded]]:
    """The token rows of the train split, and of each validation split."""
    takes = (recipe.max_length, *token_limits(config), task_kind(task.spec.kind))
    validations = {task.validation_name: task.validation, **task.more_validation}
    encoded = {name: encode(rows, tokenizer, *takes) for name, rows in validations.items()}
    train = encode(task.train, tokenizer, *takes)
    if not task_kind(task.spec.kind).hides_tokens:
        return train, encoded
    hider = Hider.of(tokenizer, recipe.masking, recipe.data_seed)
    hidden = {name: replace(one, dataset=hidden_once(one.dataset, hider)) for name, one in encoded.items()}
    return replace(train, dataset=hidden_once(train.dataset, hider)), hidden


def collator_of(tokenizer: PreTrainedTokenizerBase, task: Task) -> Collator:
    """What makes batches of the rows of a task."""
    return padding_collator(tokenizer, task_kind(task.spec.kind).hides_tokens)


def in_parts(
    recipe: Recipe,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    config: PretrainedConfig,
    further: Further = lambda task: (),
) -> Task:
    """The task with long texts divided, where there is something to learn of every word or token of them.

    Parts are such that the `further` tokenizers read them whole too: all models of a run answer the same rows.
    """
    kind = task_kind(task.spec.kind)
    if not (kind.of_tokens or kind.hides_tokens):
        return task
    found = task
    for one in (*further(task), tokenizer):
        found = _in_parts(recipe, found, one, config)
    return found


def _in_parts(recipe: Recipe, task: Task, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> Task:
    kind = task_kind(task.spec.kind)
    reader = Reader.of_kind(kind, tokenizer, recipe.max_length, *token_limits(config))
    if not kind.hides_tokens:
        return divided(task, reader)
    special = Hider.of(tokenizer, recipe.masking, recipe.data_seed).special
    return with_tokens(divided(task, replace(reader, offsets=True)), reader, special)


def apart_rows(
    recipe: Recipe, task: Task, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig
) -> Dataset | None:
    """The token rows that thresholds are chosen on, in windows where models read long texts so."""
    rows, kind = task.threshold_rows, task_kind(task.spec.kind)
    if rows is None:
        return None
    limits = token_limits(config)
    if kind.by_span:
        rows = in_windows(rows, Reader.of_kind(kind, tokenizer, recipe.max_length, *limits))
    return encode(rows, tokenizer, recipe.max_length, *limits, kind).dataset


def numbered(rows: Dataset) -> Dataset:
    """The rows with their numbers in a column `row`."""
    return rows.add_column("row", list(range(len(rows))))


def fit_tokenizer(tokenizer: PreTrainedTokenizerBase, length: int | None) -> list[str]:
    """Have the tokenizer that is saved read and pad as this run does; what that changes for the user is a note.

    `length` none = it reads as much of a text as before: vectors of long texts are to stay what they are.
    """
    if length is not None:
        tokenizer.model_max_length = length
    if tokenizer.padding_side == "right":
        return []
    tokenizer.padding_side = "right"
    return ["The tokenizer pads on the left; here texts are padded on the right, and that is saved with the models"]

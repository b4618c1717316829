"""The text of a pretraining: read, turned into tokens once, and kept where every later run finds it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from sparsebert.data.corpus import documents, text_files
from sparsebert.data.hub_text import hub_file
from sparsebert.data.load import Task
from sparsebert.data.shards import Shards, shard_text
from sparsebert.data.wordpiece import tokenizer_of_vocabulary, train_wordpiece
from sparsebert.errors import UserError
from sparsebert.files import cache_home, digest, folder_beside, home_of
from sparsebert.models.limits import position_limit
from sparsebert.models.load import load_config, load_tokenizer
from sparsebert.models.presets import preset_config
from sparsebert.models.source import resolve
from sparsebert.progress import busy
from sparsebert.recipe.pretrain import NAME, PretrainRecipe
from sparsebert.tasks.masked_lm import MASKED_LM
from sparsebert.tasks.table import TaskSpec
from sparsebert.training.text_rows import Hider, held_out_rows

HUB = "hub:"
VALIDATION = "held_out_text"
SPEC = TaskSpec(
    name=NAME,
    columns=(),
    labels=(),
    metrics=MASKED_LM.metrics,
    description="Which tokens of a text are hidden?",
    kind="masked_lm",
    validation_splits=(VALIDATION,),
)


@dataclass(frozen=True)
class TextTask(Task):
    """Text as a task: rows of tokens to train on, and rows of documents that are held out, with hidden tokens."""

    shards: Shards | None = None
    held: Shards | None = None
    tokenizer: PreTrainedTokenizerBase | None = None


def text_task(recipe: PretrainRecipe) -> TextTask:
    """Read the text of a recipe, or find what was made of it before.

    Raises UserError for text that cannot be read, and for rows that are longer than the model's.
    """
    if recipe.config is None:
        _check_length(recipe)
    else:
        new_config(recipe, vocabulary=1)
    files = [file for name in recipe.text for file in _files(name, recipe.column)]
    tokenizer = _tokenizer(recipe, files)
    shards, held = shard_text(
        files,
        tokenizer,
        recipe.max_length,
        cache_home() / "text",
        column=recipe.column,
        processes=recipe.processes,
        held_out=recipe.validation,
    )
    if held is None:
        raise UserError(
            "None of the text is held out, so there is nothing to score on",
            got=f"validation={recipe.validation:g} of {shards.documents:,} documents",
            fix="give more text, or a larger validation",
        )
    rows = held_out_rows(held, Hider.of(tokenizer, recipe.masking, recipe.data_seed), recipe.validation_rows)
    notes = (f"{shards.tokens:,} tokens of {shards.documents:,} documents to train on, {held.tokens:,} held out",)
    return TextTask(
        SPEC, Dataset.from_dict({}), rows, VALIDATION, notes=notes, shards=shards, held=held, tokenizer=tokenizer
    )


def _files(name: str, column: str) -> list[Path]:
    if name.startswith(HUB):
        return [hub_file(name.removeprefix(HUB), column, cache_home() / "hub")]
    return text_files([str(home_of(name))])


def _tokenizer(recipe: PretrainRecipe, files: list[Path]) -> PreTrainedTokenizerBase:
    if recipe.train_tokenizer is not None:
        return _trained(files, recipe.train_tokenizer, recipe.column)
    if recipe.vocabulary is not None and home_of(recipe.vocabulary).is_file():
        return tokenizer_of_vocabulary(home_of(recipe.vocabulary))
    name = recipe.model if recipe.vocabulary is None else recipe.vocabulary
    tokenizer = load_tokenizer(resolve(name))
    if tokenizer.mask_token_id is None:
        raise UserError("The tokenizer has no mask token", got=name, fix="give one of a masked language model")
    return tokenizer


def _trained(files: list[Path], size: int, column: str) -> PreTrainedTokenizerBase:
    """A vocabulary of this text, trained once."""
    made_of: list[Any] = ["wordpiece", size, column, [digest(file) for file in files]]
    folder = cache_home() / "tokenizers" / hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    if not folder.is_dir():
        with busy("Training a vocabulary on the text"):
            trained = train_wordpiece((text for file in files for text in documents(file, column)), size)
        with folder_beside(folder) as place:
            trained.save_pretrained(place / folder.name)
            (place / folder.name).rename(folder)
    return load_vocabulary(folder)


def load_vocabulary(folder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer of its own, without a model beside it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def new_config(recipe: PretrainRecipe, vocabulary: int) -> PretrainedConfig | None:
    """Of the model that a recipe begins with fresh weights; None where it goes on from one. Raises UserError."""
    if recipe.config is None:
        return None
    return preset_config(recipe.config, vocabulary, recipe.max_length, fff=recipe.feedforward, neurons=recipe.neurons)


def _check_length(recipe: PretrainRecipe) -> None:
    limit = position_limit(load_config(resolve(recipe.model)))
    if limit is not None and recipe.max_length > limit:
        raise UserError(
            "Rows are longer than the model reads", got=recipe.max_length, allowed=f"up to {limit}", fix="--length"
        )

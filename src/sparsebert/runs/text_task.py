"""The text of a pretraining: read, turned into tokens once, and kept where every later run finds it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from sparsebert.data.corpus import documents, text_files
from sparsebert.data.hold_out import HELD_OUT_SPLIT
from sparsebert.data.hub_text import hub_file
from sparsebert.data.load import Task
from sparsebert.data.shards import Shards, shard_text
from sparsebert.data.wordpiece import tokenizer_of_vocabulary, train_wordpiece
from sparsebert.errors import UserError
from sparsebert.files import cache_home, clear_abandoned, digest, folder_beside, home_of
from sparsebert.models.limits import position_limit
from sparsebert.models.load import load_config, load_tokenizer
from sparsebert.models.presets import preset_config
from sparsebert.models.source import resolve
from sparsebert.progress import busy
from sparsebert.recipe.pretrain import NAME, PretrainRecipe
from sparsebert.tasks.kind import IGNORED
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
    files = _files(recipe.text, recipe.column)
    tokenizer = _tokenizer(recipe, files)
    if recipe.config is None:
        _check_tokens(recipe, tokenizer)
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
    to_choose = recipe.hold_out is not None
    hider = Hider.of(tokenizer, recipe.masking, recipe.data_seed)
    rows = held_out_rows(held, hider, recipe.validation_rows, to_choose)
    if not len(rows):
        raise UserError(
            "The text that is held out fills too few rows to choose by some of them",
            got=f"{len(held)} of {recipe.max_length} tokens",
            fix="give more text, or a larger validation",
        )
    if not any(label != IGNORED for labels in rows["label"] for label in labels):
        raise UserError(
            "The tokenizer knows none of the words of the text, so there is nothing to predict",
            got=recipe.vocabulary or recipe.model,
            fix="give text of its language and script",
        )
    notes = [f"{shards.tokens:,} tokens of {shards.documents:,} documents to train on, {held.tokens:,} held out"]
    if recipe.train_tokenizer is not None:
        notes.append(f"The vocabulary has {len(tokenizer):,} entries, of {recipe.train_tokenizer:,} asked for")
    return TextTask(
        SPEC,
        Dataset.from_dict({}),
        rows,
        HELD_OUT_SPLIT if to_choose else VALIDATION,
        notes=tuple(notes),
        shards=shards,
        held=held,
        tokenizer=tokenizer,
    )


def _files(names: Sequence[str], column: str) -> list[Path]:
    own = [name for name in names if not name.startswith(HUB)]
    hub = [name.removeprefix(HUB) for name in dict.fromkeys(names) if name.startswith(HUB)]
    return [*(text_files(own) if own else ()), *(hub_file(name, column, cache_home() / "hub") for name in hub)]


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
        clear_abandoned(folder.parent)
        with folder_beside(folder) as place:
            trained.save_pretrained(place / folder.name)
            # Another run may have made the same meanwhile.
            if not folder.is_dir():
                (place / folder.name).rename(folder)
    return load_vocabulary(folder)


def load_vocabulary(folder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer of its own, without a model beside it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def new_config(recipe: PretrainRecipe, vocabulary: int, padding: int = 0) -> PretrainedConfig | None:
    """Of the model that a recipe begins with fresh weights; None where it goes on from one. Raises UserError.

    `vocabulary` is the number of tokens, `padding` the one of these that fills rows.
    """
    if recipe.config is None:
        return None
    config = preset_config(recipe.config, vocabulary, recipe.max_length, fff=recipe.feedforward, neurons=recipe.neurons)
    config.pad_token_id = padding
    return config


def _check_tokens(recipe: PretrainRecipe, tokenizer: PreTrainedTokenizerBase) -> None:
    known = load_config(resolve(recipe.model)).vocab_size
    if len(tokenizer) > known:
        raise UserError(
            "The tokenizer has more tokens than the model",
            got=f"{len(tokenizer):,} and {known:,}",
            fix="resize the model's embeddings (model.resize_token_embeddings), and save it",
        )


def _check_length(recipe: PretrainRecipe) -> None:
    limit = position_limit(load_config(resolve(recipe.model)))
    if limit is not None and recipe.max_length > limit:
        raise UserError(
            "Rows are longer than the model reads", got=recipe.max_length, allowed=f"up to {limit}", fix="--length"
        )

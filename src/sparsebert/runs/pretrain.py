"""`pretrain`: phases as `train` has them, on text, from fresh weights or on from a masked language model."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from sparsebert.counts import example_inputs
from sparsebert.data.load import Task
from sparsebert.models.heads import saved_head
from sparsebert.models.load import load_model
from sparsebert.models.presets import new_model
from sparsebert.models.source import ModelSource
from sparsebert.recipe.pretrain import PretrainRecipe
from sparsebert.recipe.schema import Training
from sparsebert.records import Decisions, Inputs, ModelResult, SplitOf
from sparsebert.runs.context import Predictions, RunContext
from sparsebert.runs.inputs import files_of, made_from
from sparsebert.runs.run_type import Made
from sparsebert.runs.text_task import TextTask, new_config, text_task
from sparsebert.runs.train import Train
from sparsebert.tasks.kind import ConstantAnswer
from sparsebert.tasks.masked_lm import MASKED_LM
from sparsebert.training.collate import padding_collator
from sparsebert.training.text_rows import Hider, TextOrder, TextRows, collate_text

LOSS = "loss"
# Of the train text, from which frequencies of tokens are taken.
SAMPLE_ROWS = 4096


@dataclass(frozen=True)
class PretrainContext(RunContext[PretrainRecipe]):
    """Rows of text in the place of token rows with labels; a model is new where the recipe has a configuration."""

    config: PretrainedConfig | None = None

    @property
    def is_tuned(self) -> bool:
        """Whether a masked language model is given."""
        return self.config is None and super().is_tuned

    def has_head(self, config: PretrainedConfig) -> bool:
        """Whether it is a masked language model."""
        return saved_head(config) == "masked_lm"

    def drawn(self, rows: Any, training: Training) -> tuple[Any, Sampler[Any] | None]:
        """The rows, and positions of them."""
        return rows, TextOrder(len(self.train), self.recipe.seed)

    @cached_property
    def constant(self) -> ConstantAnswer:
        """What naming tokens by their frequency in rows of the train text is worth on the text that is held out."""
        rows = [self.train[row]["label"] for row in range(min(SAMPLE_ROWS, len(self.train)))]
        return MASKED_LM.baseline(np.stack(rows), self.labels(self.task.validation_name), ())

    def decide(self, predictions: Predictions, dense: Predictions | None = None) -> Decisions | None:
        """None: there are as many classes as tokens."""
        return None

    def load(self, source: ModelSource | Path) -> PreTrainedModel:
        """A masked language model in float32."""
        return load_model(source, head="masked_lm", dtype=torch.float32)

    def _open(self) -> PreTrainedModel:
        return super()._open() if self.config is None else new_model(self.config, self.recipe.seed)


class Pretrain(Train):
    """Masked language modelling in phases."""

    recipe = PretrainRecipe  # type: ignore[assignment]
    name = "pretrained"

    def set_up(self, recipe: Any, folder: Path, callbacks: Sequence[TrainerCallback]) -> Any:
        """Text, tokenizer, and the configuration of a new model."""
        task = text_task(recipe)
        assert task.shards is not None and task.tokenizer is not None
        hider = Hider.of(task.tokenizer, recipe.masking, recipe.seed)
        rows: Any = TextRows(task.shards, hider)
        collate: Any = collate_text
        config = _config(recipe, task.tokenizer)
        context = PretrainContext(
            recipe,
            folder,
            task,
            task.tokenizer,
            rows,
            {task.validation_name: task.validation},
            collate,
            task.notes,
            callbacks=tuple(callbacks),
            config=config,
        )
        if config is None and not context.is_tuned:
            note = "The model has no head for hidden tokens, so one is drawn at random"
            context = replace(context, notes=(*context.notes, note))
        task.tokenizer.model_max_length = recipe.max_length
        padding_collator(task.tokenizer)
        for setting in context.settings:
            example_inputs([context.start()], setting.batch, setting.length)
        return context

    def make(self, context: Any) -> Made:
        """As of `train`; one model without rules is itself the dense one, and compared with nothing."""
        made = super().make(context)
        alone = len(made.entries) == 1 and not any(phase.rules for phase in context.recipe.phases)
        return replace(made, start=None, has_dense=True) if alone else made

    def conclude(self, context: Any, models: Sequence[ModelResult]) -> Sequence[str]:
        """The loss of each model, beside that of an answer that only knows frequencies, and how fast each learned."""
        return [note for model in models for note in (*_about_loss(model), *_about_speed(model))]

    def task(self, recipe: Any) -> Task:
        """The text."""
        return text_task(recipe)

    def inputs(self, recipe: Any, task: Task) -> Inputs:
        """Digests of the text as tokens, which depend on the tokenizer, and of the model or its configuration."""
        text = cast(TextTask, task)
        assert text.shards is not None and text.held is not None and text.tokenizer is not None
        config = _config(recipe, text.tokenizer)
        plain = None if config is None else json.dumps(config.to_dict(), sort_keys=True, default=str)
        model = files_of(recipe.model) if plain is None else {"config": hashlib.sha256(plain.encode()).hexdigest()}
        data = {
            "train": SplitOf(rows=len(text.shards), sha256=text.shards.digest),
            task.validation_name: SplitOf(rows=len(text.validation), sha256=text.held.digest),
        }
        return made_from(recipe, model, data)


def _config(recipe: PretrainRecipe, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig | None:
    padding: Any = tokenizer.pad_token_id
    return new_config(recipe, len(tokenizer), padding)


def _about_loss(model: ModelResult) -> list[str]:
    return [
        f"{model.name}: loss {one.value:.3f} nats a hidden token of {one.split}, perplexity "
        f"{math.exp(one.value):,.1f}; naming tokens by their frequency alone {one.baseline:.3f} nats"
        for one in model.scores
        if one.metric == LOSS and one.baseline is not None
    ]


def _about_speed(model: ModelResult) -> list[str]:
    """Arithmetic is of a step's own products, forward and back; pruned weights are counted too."""
    runs = {"": model.training, **model.phases} if model.training else model.phases
    found = []
    for name, run in runs.items():
        if run is None or run.tokens is None or run.tokens_per_second is None:
            continue
        part = "" if run.utilisation is None else f", {run.utilisation:.1%} of what square products reach here"
        found.append(
            f"{model.name}{f', phase {name}' if name else ''}: {run.tokens:,} tokens, "
            f"{run.tokens_per_second:,.0f} a second{part}"
        )
    return found

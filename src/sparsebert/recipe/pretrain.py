"""The recipe of `pretrain`: a masked language model from text, dense or under the rules of phases."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from sparsebert.recipe.schema import Columns, Distill, Evaluate, Phase, Training
from sparsebert.recipe.train import TrainRecipe

NAME = "text"


class Pretraining(Training, frozen=True):
    """A training on text. `hours`, where given, is its length in place of steps and epochs, and of its schedule."""

    epochs: float = Field(default=1.0, gt=0, description="passes over the text")
    hours: float | None = Field(
        default=None, gt=0, description="of wall clock; learning rate and end follow it, over all starts of the run"
    )
    batch_size: int = Field(default=128, ge=1, description="rows a step")
    micro_batch_size: int | None = Field(
        default=None, ge=1, description="rows at once, whose gradients are added up for a step; null = all of them"
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="highest rate of AdamW, after warm-up")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="of AdamW")
    beta2: float = Field(default=0.98, ge=0, lt=1, description="of AdamW")
    epsilon: float = Field(default=1e-12, gt=0, description="of AdamW")
    max_gradient_norm: float = Field(default=0.5, gt=0, description="to which gradients are clipped")
    dropout: float | None = Field(
        default=0.0, ge=0, lt=1, description="rate of every dropout while training; null = the model's own rates"
    )
    compiled: bool = Field(
        default=False, description="true = steps are compiled by torch.compile, which needs a compiler and a minute"
    )
    evaluate: Evaluate | None = Field(
        default=None, description="scores on held-out text while training; of `split` only validation; null = no scores"
    )

    @model_validator(mode="after")
    def _sound_length(self) -> Pretraining:
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size must be a multiple of micro_batch_size, got {self.batch_size} and {self.micro_batch_size}"
            )
        if self.hours is not None and self.max_steps > 0:
            raise ValueError("give hours or max_steps, not both")
        if self.hours is not None and self.lr_schedule == "one_cycle":
            raise ValueError("one_cycle counts steps; a training of hours takes triangular in its place")
        if self.hours is not None and self.evaluate is not None and self.evaluate.every.steps is None:
            raise ValueError("a training of hours has no other measure of when to be scored: give evaluate.every steps")
        if self.evaluate is not None and self.evaluate.split != "validation":
            raise ValueError("text that is held out is the validation split: set evaluate.split to validation")
        return self

    @property
    def accumulated(self) -> int:
        """Micro-batches a step."""
        return self.batch_size // (self.micro_batch_size or self.batch_size)


class PretrainPhase(Phase, frozen=True):
    """One stretch of pretraining; see Phase."""

    name: str = Field(default="pretrain", description="of its own in the recipe; also a folder's name")
    training: Pretraining = Field(default=Pretraining(), description="how long, and at which rate")
    distill: Distill = Field(
        default=Distill(hidden=0.0), description="what is learned from the teacher, where there is one"
    )

    @model_validator(mode="after")
    def _only_logits(self) -> PretrainPhase:
        if self.teacher is not None and (self.distill.hidden > 0 or self.distill.attention > 0):
            raise ValueError(
                "a pretraining learns from its teacher's logits alone: set distill.hidden and .attention to 0"
            )
        if self.training.hours is not None and self.rules:
            raise ValueError("rules follow the steps of a training: give it max_steps or epochs in place of hours")
        return self


class PretrainRecipe(TrainRecipe, frozen=True):
    """A masked language model, from fresh weights of a `config` or on from a `model`, on text that is packed into rows.

    `max_length` is that of the rows. With rules in its phases it becomes sparse on the way.
    """

    kind: Literal["pretrain"] = Field(default="pretrain", description="the type of run")  # type: ignore[assignment]
    task: Literal["text"] = Field(default=NAME, description="masked language modelling")  # type: ignore[assignment]
    text: tuple[str, ...] = Field(
        default=(), description="files and folders of text, or hub:NAME for a set of the hub; .txt, .jsonl, .parquet"
    )
    column: str = Field(default="text", description="of .jsonl and .parquet: where the text is")
    config: str | None = Field(
        default=None, description="fresh weights in this size, such as bert-mini; null = go on from `model`"
    )
    feedforward: str | None = Field(
        default=None, description="of a crammed config: fast feedforward layers KxD in place of dense ones, as 512x2"
    )
    neurons: int | None = Field(
        default=None, ge=0, description="of a crammed config: width of its dense feedforward layers; 0 = no such layers"
    )
    vocabulary: str | None = Field(
        default=None, description="a vocabulary file, or a model whose tokenizer is taken; null = that of `model`"
    )
    train_tokenizer: int | None = Field(
        default=None, ge=32, description="in place of it: entries of a WordPiece vocabulary that is trained on the text"
    )
    validation: float = Field(
        default=0.005, gt=0, lt=0.5, description="part of the documents that is held out and scored on"
    )
    validation_rows: int = Field(default=1024, ge=1, description="at most so many rows of these are scored on")
    processes: int = Field(default=1, ge=1, le=1024, description="that turn text into tokens")
    hold_out: float | None = Field(
        default=None,
        gt=0,
        lt=0.9,
        description="any number = scored on the half of the text held out that is for choosing, as in a search; null = "
        "on the other half",
    )
    hold_zeros: bool = Field(
        default=True, description="false = weights of a given model's encoder that are zero are trained like all others"
    )
    phases: tuple[PretrainPhase, ...] = Field(  # type: ignore[assignment]
        default=(PretrainPhase(),), description="stretches of training, one after the other"
    )
    dense: Pretraining = Field(  # type: ignore[assignment]
        default=Pretraining(), description="of the dense model, where there is one to compare with or to learn from"
    )

    @model_validator(mode="before")
    @classmethod
    def _named_after_config(cls, values: Any) -> Any:
        """A new model has no name but its configuration's, with its trees."""
        if not isinstance(values, dict):
            return values
        if not isinstance(values.get("config"), str):
            if values.get("model") is None:
                raise ValueError("give config, such as bert-mini, for new weights, or a model to go on from")
            return values
        name = "-".join(str(one) for one in (values["config"], values.get("feedforward")) if one is not None)
        if values.get("model") not in (None, name):
            raise ValueError(
                f"give a model to go on from or a config for new weights, not both, got {values['model']} and "
                f"{values['config']}; config=null leaves out the one of a recipe"
            )
        return {**values, "model": name}

    @model_validator(mode="after")
    def _one_source(self) -> PretrainRecipe:
        if not self.text:
            raise ValueError("there is nothing to train on: give text (files, folders, or hub:NAME)")
        if self.data is not None or self.columns != Columns() or self.train_examples is not None:
            raise ValueError("data, columns and train_examples are of tasks with labels: leave them out")
        if self.pooling is not None:
            raise ValueError("pooling is of embeddings: leave it out")
        if self.train_tokenizer is not None and self.vocabulary is not None:
            raise ValueError("give vocabulary or train_tokenizer, not both")
        new = (self.train_tokenizer, self.vocabulary, self.feedforward, self.neurons)
        if self.score_train:
            raise ValueError("text is too much to be scored as a whole: leave score_train out")
        if self.config is not None and self.train_tokenizer is None and self.vocabulary is None:
            raise ValueError("a new model needs a vocabulary: give train_tokenizer, such as 8192, or vocabulary")
        if self.config is None and any(value is not None for value in new):
            raise ValueError("a model that goes on keeps its tokenizer and blocks: give a config, or leave these out")
        return self

"""The recipe of `multitask`: one encoder with the three heads of CS224N's default project."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sparsebert.recipe.base import Recipe
from sparsebert.recipe.schema import Columns, Evaluate, Training

NAME = "cs224n"


class Rounds(Training, frozen=True):
    """A training in rounds: a step of sst5, one of quora, one of sts; an epoch is as many rounds as `epoch_of` says."""

    epochs: float = Field(default=10.0, gt=0, description="as many rounds as `epoch_of` says are one")
    batch_size: int = Field(default=8, ge=1, description="examples a step of sst5, and of sts")
    learning_rate: float = Field(default=1e-5, gt=0, description="highest rate of AdamW, after warm-up")
    evaluate: Evaluate | None = Field(default=None, description="null: several tasks have no score while training")

    @model_validator(mode="after")
    def _without_scores(self) -> Rounds:
        if self.evaluate is not None:
            raise ValueError("several tasks have no score by which training could end early: leave `evaluate` out")
        return self


class MultitaskRecipe(Recipe, frozen=True):
    """One encoder with heads for sentiment, paraphrase and similarity, trained in turns.

    Oscanoa, "Improving BERT computational efficiency" (Stanford CS224N), section 4.1, and the table of section 5.3 for
    the defaults. `data` is the folder of the course's files.
    """

    kind: Literal["multitask"] = Field(default="multitask", description="the type of run")
    task: Literal["cs224n"] = Field(default=NAME, description="sst5, quora, sts")  # type: ignore[assignment]
    training: Rounds = Field(default=Rounds(), description="how long, and at which rate")
    paraphrase_batch_size: int = Field(default=40, ge=1, description="examples a step of quora")
    epoch_of: Literal["longest", "shortest"] = Field(
        default="longest",
        description="an epoch has as many rounds as the longest of the three sets has batches, so that all rows are "
        "seen and the others begin anew meanwhile; or as the shortest has",
    )
    head_dropout: float = Field(
        default=0.3, ge=0, lt=1, description="rate of the dropout in the heads; training.dropout, where given, wins"
    )
    hold_zeros: bool = Field(
        default=True, description="false = weights of the encoder that are exactly zero are trained like all others"
    )

    @model_validator(mode="after")
    def _fixed_columns(self) -> MultitaskRecipe:
        if self.columns != Columns():
            raise ValueError("the columns of the three tasks are fixed: leave `columns` out")
        if self.pooling is not None:
            raise ValueError("pooling is of embeddings: leave it out")
        return self

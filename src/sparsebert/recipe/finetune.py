"""The recipe of `finetune`: training for a task without a change of shape."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sparsebert.recipe.base import Recipe
from sparsebert.recipe.schema import Distill, Training


class FinetuneRecipe(Recipe, frozen=True):
    """A model fine-tuned for a task, from labels or a teacher; its shape stays, and zeros that it has are held."""

    kind: Literal["finetune"] = Field(default="finetune", description="the type of run")
    training: Training = Field(default=Training(), description="how long, and at which rate")
    teacher: str | None = Field(
        default=None, description="folder or hub name of a model that is fine-tuned for the task; none = labels only"
    )
    distill: Distill = Field(default=Distill(), description="what is learned from the teacher, where there is one")
    hold_zeros: bool = Field(
        default=True, description="false = weights of the encoder that are exactly zero are trained like all others"
    )
    packed: bool = Field(
        default=True, description="save zeros as bits where that makes the file smaller; false = plain files"
    )

    @model_validator(mode="after")
    def _given_teacher(self) -> FinetuneRecipe:
        if self.teacher == "dense":
            raise ValueError("a run of finetune has no dense model of its own: give the teacher's folder or hub name")
        return self

    @property
    def given_teachers(self) -> list[str]:
        """The teacher, if there is one."""
        return [] if self.teacher is None else [self.teacher]

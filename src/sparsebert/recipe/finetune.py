"""The recipe of `finetune`: training for a task without a change of shape."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sparsebert.recipe.schema import Distill, Evaluate, Training
from sparsebert.recipe.storing import StoringRecipe

# Upper bounds of train rows, and the passes over so many: small tasks need more of them to see as many steps.
EPOCHS = ((5_000, 10.0), (20_000, 6.0), (80_000, 3.0))
EPOCHS_BEYOND = 2.0


class BySize(Training, frozen=True):
    """A training whose length fits the task, and that keeps the best of the models it passes by."""

    epochs: float | None = Field(  # type: ignore[assignment]
        default=None,
        gt=0,
        description="passes over the training examples; null = 10 of up to 5,000, 6 of up to 20,000, 3 of up to 80,000 "
        "rows, 2 of more",
    )
    evaluate: Evaluate | None = Field(
        default=Evaluate(patience=3), description="scores while training; null = only in the end"
    )

    def of_rows(self, rows: int) -> Training:
        """The training of a task with so many train rows."""
        fitting = next((epochs for most, epochs in EPOCHS if rows <= most), EPOCHS_BEYOND)
        chosen = fitting if self.epochs is None else self.epochs
        return Training(**{**dict(self), "epochs": chosen})


class FinetuneRecipe(StoringRecipe, frozen=True):
    """A model fine-tuned for a task, from labels or a teacher; its shape stays, and zeros that it has are held."""

    kind: Literal["finetune"] = Field(default="finetune", description="the type of run")
    training: BySize = Field(default=BySize(), description="how long, and at which rate")
    teacher: str | None = Field(
        default=None, description="folder or hub name of a model that is fine-tuned for the task; null = labels only"
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
        if not self.packed:
            self.check_plain("`packed: false`")
        if self.teacher == "dense":
            raise ValueError("a run of finetune has no dense model of its own: give the teacher's folder or hub name")
        return self

    @property
    def given_teachers(self) -> list[str]:
        """The teacher, if there is one."""
        return [] if self.teacher is None else [self.teacher]

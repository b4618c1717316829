"""The recipe of `fff`: fast feedforward layers in place of feedforward blocks."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from sparsebert.recipe.schema import Distill, Recovery, Search, Training, Trees, UnitCriterionName, check_held_out
from sparsebert.recipe.storing import StoringRecipe


class FffRecipe(StoringRecipe, frozen=True):
    """A model with fast feedforward layers: distilled block by block, trained together, compared with controls."""

    kind: Literal["fff"] = Field(default="fff", description="the type of run")
    trees: Trees = Field(description="what takes the place of feedforward blocks")
    criterion: UnitCriterionName = Field(default="obs", description="which neurons the dense control keeps")
    dense: Training = Field(
        default=Training(), description="fine-tuning of the dense model, if it is not fine-tuned for the task yet"
    )
    finetune: Recovery | None = Field(default=Recovery(), description="training of what was made; null = no training")
    distill: Distill = Field(default=Distill(), description="what is learned from the dense model")
    search: Search = Field(default=Search(), description="calibration examples of the dense control")

    @model_validator(mode="before")
    @classmethod
    def _has_trees(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("trees") is None:
            raise ValueError("The recipe has no trees, so there is nothing to convert to; give --trees or --depth")
        return values

    @model_validator(mode="after")
    def _no_maps(self) -> FffRecipe:
        check_held_out(("dense", self.dense), ("finetune", self.finetune))
        if self.distill.attention > 0:
            raise ValueError("distill.attention is for phases of `train`")
        return self

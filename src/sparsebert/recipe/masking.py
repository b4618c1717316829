"""The part of a recipe that says which tokens of a text are hidden from a masked language model."""

from __future__ import annotations

from pydantic import Field, model_validator

from sparsebert.recipe.schema import Plain


class Hidden(Plain, frozen=True):
    """What is hidden from the model, and what stands in its place.

    The defaults are those of BERT (Devlin et al. 2019, arXiv:1810.04805, section 3.1); crammed BERT hides 25 % and
    always shows the mask (Geiping & Goldstein 2022, arXiv:2212.14034, section 4.3).
    """

    rate: float = Field(default=0.15, gt=0, lt=1, description="part of a row's tokens that is predicted")
    masked: float = Field(default=0.8, ge=0, le=1, description="part of these that is shown as [MASK]")
    random: float = Field(default=0.1, ge=0, le=1, description="part of these that is shown as any other token")

    @model_validator(mode="after")
    def _within_one(self) -> Hidden:
        if self.masked + self.random > 1:
            raise ValueError(f"masked and random are parts of the same tokens, got {self.masked} and {self.random}")
        return self

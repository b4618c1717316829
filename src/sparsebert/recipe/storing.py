"""What recipes have whose models are saved: to what weights are rounded in the file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sparsebert.recipe.base import Recipe

Weights = Literal["bf16", "int8", "int4"]
LEVELLED: tuple[Weights, ...] = ("int8", "int4")
"""Those that only a packed file holds."""


class StoringRecipe(Recipe, frozen=True):
    """A recipe whose models may be rounded where they are saved; the model that is scored is the one that loads."""

    weights: Weights | None = Field(
        default=None, description="to what the weights of made models are rounded in the file; null = as trained"
    )
    embedding_weights: Weights | None = Field(
        default=None, description="to what tables of embeddings are rounded; null = as `weights` says"
    )

    def check_plain(self, plain: str) -> None:
        """Raise ValueError for numbers that need a packed file, where `plain` asks for one that everything reads."""
        if self.weights in LEVELLED or self.embedding_weights in LEVELLED:
            raise ValueError(
                f"weights in int8 or int4 need a packed file, which {plain} forbids; plain transformers reads bf16"
            )

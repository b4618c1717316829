"""The recipe of `compress`: a family of smaller models, by pruning after training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sparsebert.recipe.base import Recipe
from sparsebert.recipe.schema import (
    Distill,
    Plain,
    Recovery,
    Search,
    Target,
    Training,
    UnitCriterionName,
    check_held_out,
)
from sparsebert.recipe.storing import StoringRecipe


class FewerEntries(Plain, frozen=True):
    """Entries of the tokenizer that stay: those that the texts of the train rows use, and what cannot go.

    Texts of these entries are read as before; others are read in smaller pieces.
    """

    most: int | None = Field(default=None, ge=1, description="so many at most, the commonest; null = all that are used")
    texts: tuple[str, ...] = Field(default=(), description="files with a text a line, which are counted too")
    entries: str | None = Field(default=None, description="instead of counting: a file with an entry a line")

    @model_validator(mode="after")
    def _one_choice(self) -> FewerEntries:
        if self.entries is not None and (self.most is not None or self.texts):
            raise ValueError("entries says what stays, so leave most and texts out")
        return self


class CompressRecipe(StoringRecipe, frozen=True):
    """A family of smaller, faster models: heads, neurons and layers are cut out, and what is left is fine-tuned."""

    kind: Literal["compress"] = Field(default="compress", description="the type of run")
    targets: tuple[Target, ...] = Field(default=(), description="the models to make")
    max_drop: float | None = Field(
        default=None,
        ge=0,
        description="instead of targets: points of the task's main metric, 0-100, that may be lost",
    )
    max_size: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="part of the dense model's bytes on disk, 0-1, that a member with a target has at the most: "
        "where needed it is stored in fewer bits, then cut further; `weights` and `embedding_weights` stay as given",
    )
    vocabulary: FewerEntries | None = Field(
        default=None, description="entries of the tokenizer and rows of its embeddings go first; null = all stay"
    )
    hidden_size: int | None = Field(
        default=None,
        ge=1,
        description="dimensions of the hidden states that stay, of embeddings and all layers; they are cut first, and "
        "all members start from what is left; null = all stay",
    )
    criterion: UnitCriterionName = Field(default="obs", description="which heads and neurons go first")
    shape: Literal["search", "layers"] = Field(default="search", description="any shape, or whole layers only")
    even: bool = Field(default=False, description="one width for all layers, so that plain transformers loads it")
    dense: Training = Field(
        default=Training(), description="fine-tuning of the dense model, if it is not fine-tuned for the task yet"
    )
    finetune: Recovery | None = Field(default=Recovery(), description="training of what was made; null = no training")
    distill: Distill = Field(default=Distill(), description="what is learned from the dense model")
    search: Search = Field(default=Search(), description="how long to look for the best shape")

    @model_validator(mode="after")
    def _one_goal(self) -> CompressRecipe:
        if self.targets and self.max_drop is not None:
            raise ValueError("give targets or max_drop, not both")
        if self.max_size is not None and self.vocabulary is not None and not self.targets and self.max_drop is None:
            raise ValueError("max_size is of models with a target: give one, such as size, or max_drop")
        check_held_out(("dense", self.dense), ("finetune", self.finetune))
        if self.even:
            self.check_plain("`even`")
        if self.even and self.hidden_size is not None:
            raise ValueError("plain transformers derives the size of heads from hidden_size, so leave out even or that")
        if self.distill.attention > 0:
            raise ValueError("distill.attention is for phases: `compress` cuts heads out, and their maps with them")
        if self.shape == "layers" and not self.search.drop_layers:
            raise ValueError("shape layers leaves out whole layers, which search.drop_layers=false forbids")
        labels = [t.label for t in self.targets]
        if len(set(labels)) != len(labels):
            raise ValueError(f"the same target is given twice: {', '.join(labels)}")
        return self

    @property
    def given_files(self) -> list[str]:
        """What the vocabulary is chosen by."""
        chosen = self.vocabulary
        return [] if chosen is None else [*chosen.texts, *([] if chosen.entries is None else [chosen.entries])]

    def extends(self, before: Recipe) -> bool:
        """Whether it differs by further targets alone."""
        if not isinstance(before, CompressRecipe) or not before.targets:
            return False
        more = set(before.targets) < set(self.targets)
        return more and before.model_copy(update={"targets": self.targets, "name": self.name}) == self

"""The recipe of `prune-curve`: what one trained network loses as more and more of it is removed, without retraining."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from sparsebert.recipe.base import Recipe

PruneMethod = Literal["unstructured", "layers"]
PruneCriterion = Literal["l1", "loss"]
# What the field ranks each by: Han et al. 2015, arXiv:1506.02626, and Michel et al. 2019, arXiv:1905.10650.
USUAL: dict[PruneMethod, PruneCriterion] = {"unstructured": "l1", "layers": "loss"}


class PruneCurveRecipe(Recipe, frozen=True):
    """One fine-tuned network, of which single weights and whole layers go one after another; nothing is trained."""

    kind: Literal["prune-curve"] = Field(default="prune-curve", description="the type of run")
    train_examples: int | None = Field(
        default=2000,
        ge=8,
        description="rows of the train split that every point is scored on too, drawn with data_seed; null = all",
    )
    methods: tuple[PruneMethod, ...] = Field(
        default=("unstructured", "layers"),
        min_length=1,
        description="unstructured: single weights, the lowest of all together; layers: whole layers are skipped",
    )
    criteria: tuple[PruneCriterion, ...] | None = Field(
        default=None,
        min_length=1,
        description="one curve for each method with each of these: l1 = |w|, of a layer its mean; loss = how much the "
        "training loss rises without it, of a single weight |w dL/dw|; null = l1 for weights and loss for layers",
    )
    steps: tuple[float, ...] = Field(
        default=tuple(round(0.05 * number, 2) for number in range(20)),
        min_length=1,
        description="parts of the weights in scope to remove, 0-1, rising; 0 is always a point",
    )
    scope: tuple[Literal["encoder", "embeddings", "all"], ...] = Field(
        default=("encoder",),
        min_length=1,
        description="which single weights may go: encoder = its linear layers, all = every matrix of the network",
    )
    greedy: bool = Field(
        default=False,
        description="true = layers are ranked by the loss anew after each removal; false = once, each on its own",
    )
    loss_examples: int = Field(
        default=1024, ge=8, description="of the train rows, on which the loss is measured that weights are ranked by"
    )
    within: float = Field(
        default=1.0, ge=0, le=100, description="points (0-100) below the whole network that count as no drop"
    )

    keep_models: bool = Field(default=False, description="true = the network of every point is saved in a folder too")

    @field_validator("steps")
    @classmethod
    def _rising(cls, steps: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 <= step < 1 for step in steps):
            raise ValueError(f"each is a part of the weights, from 0 to below 1, got {_listed(steps)}")
        if list(steps) != sorted(set(steps)):
            raise ValueError(f"they must rise, got {_listed(steps)}")
        return steps if steps[0] == 0 else (0.0, *steps)

    @field_validator("methods", "criteria", "scope")
    @classmethod
    def _once_each(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and len(set(names)) < len(names):
            raise ValueError(f"each may stand there once, got {', '.join(names)}")
        return names

    @model_validator(mode="after")
    def _greedy_by_loss(self) -> PruneCurveRecipe:
        if self.greedy and ("layers", "loss") not in self.curves:
            raise ValueError("greedy ranks layers by the loss, and no curve of this recipe does")
        return self

    @property
    def curves(self) -> list[tuple[PruneMethod, PruneCriterion]]:
        """Method and criterion of each curve."""
        return [(method, one) for method in self.methods for one in self.criteria or (USUAL[method],)]


def _listed(steps: tuple[float, ...]) -> str:
    return ", ".join(f"{step:g}" for step in steps)

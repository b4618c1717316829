"""The recipe of `train`: sparse training in phases."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sparsebert.recipe.schema import Phase, Training, check_held_out, registered
from sparsebert.recipe.storing import StoringRecipe


class TrainRecipe(StoringRecipe, frozen=True):
    """A sparse model: weights become zero while the model learns, by the rules of phases that follow each other."""

    kind: Literal["train"] = Field(default="train", description="the type of run")
    phases: tuple[Phase, ...] = Field(default=(), description="stretches of training, one after the other")
    baseline: bool = Field(
        default=False,
        description="also fine-tune the model without rules, as `dense` says, to compare with; one that is fine-tuned "
        "already is always compared with",
    )
    sparsity: float | None = Field(default=None, ge=0, lt=1, description="target of every rule that names none")
    packed: bool = Field(
        default=True, description="save zeros as bits where that makes the file smaller; false = plain files"
    )
    hold_zeros: bool = Field(
        default=False, description="true = weights of the encoder that are zero at the start stay so"
    )
    dense: Training = Field(
        default=Training(), description="fine-tuning of the dense model, if it is not fine-tuned for the task yet"
    )

    @model_validator(mode="after")
    def _sound_phases(self) -> TrainRecipe:
        if not self.phases:
            raise ValueError(
                "The recipe has no phases, so there is nothing to train; give --recipe with a file that has phases, or "
                "use `sparsebert compress`"
            )
        if not self.packed:
            self.check_plain("`packed: false`")
        names = [phase.name for phase in self.phases]
        if len(set(names)) != len(names):
            raise ValueError(f"two phases have the same name: {', '.join(names)}")
        check_held_out(*((f"phase '{phase.name}'", phase.training) for phase in self.phases))
        if self.phases[0].cuts:
            raise ValueError(f"phase '{self.phases[0].name}' cuts, but no phase before it has pruned anything")
        for phase in self.phases:
            if phase.cuts and phase.teacher is not None and phase.distill.attention > 0:
                raise ValueError(f"phase '{phase.name}' cuts heads, so it cannot learn from a teacher's attention maps")
        for rule in (rule for phase in self.phases for rule in phase.rules):
            if rule.sparsity is None and self.sparsity is None:
                raise ValueError("a rule has no target: give it, or the recipe, a sparsity")
            for kind, part in rule.components():
                registered(kind, part.kind)
        return self

    @property
    def given_teachers(self) -> list[str]:
        """Folders and hub names of the phases' teachers, without the dense model of the run itself."""
        return sorted({phase.teacher for phase in self.phases if phase.teacher not in (None, "dense")})

"""The moments of a Trainer at which a Sparsifier works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sparsebert.sparse.sparsifier import Sparsifier

if TYPE_CHECKING:
    from sparsebert.training.trainer import SparseTrainer

CHECK_EVERY = 50
# Some zeros are in any model, as padding's row of an embedding.
LOOSE = 0.05


class SparsityCallback(TrainerCallback):
    """Calls the Sparsifier at its moments, and checks now and then that what is pruned is zero."""

    def __init__(self, trainer: SparseTrainer) -> None:
        self._trainer = trainer

    @property
    def _sparsifier(self) -> Sparsifier:
        assert self._trainer.sparsifier is not None
        return self._trainer.sparsifier

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Schedules start."""
        self._trainer.begin_sparsity()
        if self._sparsifier.loose > LOOSE:
            share = f"{self._sparsifier.loose:.1%} of the weights under rules"
            self._trainer.progress.say(f"{share} are zero at the start and in no mask, so that training fills them in")

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Before the optimiser moves: gradients are whole, unscaled and clipped."""
        self._sparsifier.before_step(state.global_step, kwargs["optimizer"])

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """After the optimiser moved."""
        self._sparsifier.after_step()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Check, and keep the sparsity for the bar."""
        if state.global_step % CHECK_EVERY == 0:
            self._sparsifier.check()
            self._trainer.running_sparsity = self._sparsifier.sparsity

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave a plain model with exact zeros."""
        self._trainer.finish_sparsity()

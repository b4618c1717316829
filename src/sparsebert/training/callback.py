"""SparsityCallback: the owner of a training's masks, and the moments of a Trainer at which they change."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sparsebert.errors import UserError
from sparsebert.models.layout import encoder_linear_names, layout_of, scope_names
from sparsebert.recipe.schema import Rule
from sparsebert.sparse.film import MaskFilm, steps_apart
from sparsebert.sparse.schedules import Times
from sparsebert.sparse.sites import Masks
from sparsebert.sparse.sparsifier import Sparsifier
from sparsebert.sparse.views import part_of
from sparsebert.sparse.zeros import zero_masks
from sparsebert.training.probe import length_of
from sparsebert.training.progress import ProgressBar

CHECK_EVERY = 50
STATE_FILE = "sparsity.safetensors"
FILM = "film/"
# Some zeros are in any model, as padding's row of an embedding.
LOOSE = 0.05


class SparsityCallback(TrainerCallback):
    """Owns the Sparsifier of a training, calls it at its moments, and keeps its state in checkpoints.

    `rules`, `sparsity`, `held` and `hold_zeros` are as SparseTrainer takes them; `probe` is the loss on fixed examples,
    for criteria that want it. `sparsifier` is that of the model that was last given to `start`; `active` says whether
    it has rules or masks. `masks` are those of a training once it is `finished`; `film` is how they moved.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        sparsity: float | None,
        held: Mapping[str, torch.Tensor] | None,
        hold_zeros: bool,
        seed: int,
        probe: Callable[[], float],
        progress: ProgressBar,
    ) -> None:
        self._rules, self._sparsity, self._held = tuple(rules), sparsity, dict(held or {})
        self._hold_zeros = hold_zeros
        self._seed, self._probe, self._progress = seed, probe, progress
        self.active = bool(rules or held)

    def start(self, model: PreTrainedModel) -> None:
        """Make the rules ready for a model, on which none has been carried out."""
        self.masks: Masks = {}
        self.film = MaskFilm()
        self.finished, self._best_loaded = False, False
        zeros = zero_masks(model, encoder_linear_names(model)) if self._hold_zeros else {}
        held = {**zeros, **_both(self._held, zeros)}
        self.active = self.active or bool(held)
        self.sparsifier = Sparsifier(
            model,
            self._rules,
            scope_names(model) if self.active else {},
            layout_of(model).groups if self.active else (),
            seed=self._seed,
            sparsity=self._sparsity,
            held=held,
            loss=self._probe,
        )

    def hold_masks(self) -> None:
        """Keep the masks of the finished training from the next `start` on, with no rules left to carry out."""
        self._rules, self._held = (), self.masks

    @property
    def left_dense(self) -> tuple[str, ...]:
        """The matrices that no rule and no earlier mask covers; `*` stands for the numbers of layers."""
        if not self.active:
            return ()
        names = [re.sub(r"\.\d+\.", ".*.", name) for name in self.sparsifier.left_dense]
        return tuple(dict.fromkeys(names))

    def save(self, folder: str) -> None:
        """Write masks and all that belongs to them into a checkpoint."""
        if self.active:
            state = self.sparsifier.state_dict() | {f"{FILM}{key}": value for key, value in self.film.state().items()}
            save_file(state, Path(folder) / STATE_FILE, metadata=self.sparsifier.made_with)

    def load(self, folder: str) -> None:
        """Read them back. Raises UserError if the checkpoint has none, or was made with other rules."""
        file = Path(folder) / STATE_FILE
        if file.is_file() and not self.active:
            raise UserError(
                "The checkpoint was made with sparsity rules", got=folder, fix="give them, or start in another folder"
            )
        if self.active and not file.is_file():
            raise UserError("The checkpoint has no masks, so it is of a training without sparsity rules", got=folder)
        if not self.active:
            return
        try:
            with safe_open(file, framework="pt") as content:
                state = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118
                self.sparsifier.load_state_dict(state, content.metadata() or {})
            self.film.go_on(part_of(state, FILM), self.sparsifier.covered)
        except (SafetensorError, KeyError, ValueError) as error:
            what = "The masks of the checkpoint are damaged"
            raise UserError(what, got=f"{file}: {error}", fix="delete this checkpoint") from None

    def load_best(self, folder: str) -> None:
        """Read the masks of the best model, which are final."""
        self.load(folder)
        self._best_loaded = True

    def check(self) -> None:
        """Raise LeakError if a pruned weight is not zero."""
        if not self.finished:
            self.sparsifier.check()

    def begin(self, args: TrainingArguments, state: TrainerState, batches: Any) -> None:
        """Turn percentages and epochs of the rules into steps; after a resume, check that weights and masks agree.

        `batches` is the data loader of training.
        """
        batches_per_epoch = length_of(batches)
        steps = None if batches_per_epoch is None else math.ceil(batches_per_epoch / args.gradient_accumulation_steps)
        self.sparsifier.begin(Times(state.max_steps, steps))
        self._look_every = steps_apart(state.max_steps)
        self.sparsifier.check()
        if self._recomputes_noise(args):
            raise UserError(
                "Reentrant gradient checkpointing would compute with other noise than the forward pass did",
                fix="set its use_reentrant to False, or use a gate without noise",
            )
        if args.load_best_model_at_end and not self.sparsifier.settled(state.max_steps):
            raise UserError(
                "Masks change until the end, so no checkpoint has the final ones and none can be the best",
                fix="set the rules' stop earlier, or load_best_model_at_end=False",
            )
        if self._rules and self.left_dense:
            self._progress.say(f"left dense: {', '.join(self.left_dense)}")
        if self.sparsifier.loose > LOOSE:
            share = f"{self.sparsifier.loose:.1%} of the weights under rules"
            self._progress.say(f"{share} are zero at the start and in no mask, so that training fills them in")

    def finish(self, state: TrainerState) -> None:
        """Make the changes due after the last step, check, and leave a plain model.

        Nothing is changed any more where training stopped early, and where the best model has been loaded.
        """
        done = state.global_step
        if done >= state.max_steps and not self._best_loaded:
            self.sparsifier.finish(done)
        elif not self.sparsifier.settled(done):
            reached = self.sparsifier.sparsity or 0.0
            self._progress.say(f"stopped at step {done}, before the masks were final; sparsity {reached:.1%}")
        self.sparsifier.check()
        self.film.end(done, self.sparsifier.covered)
        self.masks, self.finished = self.sparsifier.bake(), True

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Schedules start."""
        self.begin(args, state, kwargs["train_dataloader"])

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Before the optimiser moves: gradients are whole, unscaled and clipped."""
        self.sparsifier.before_step(state.global_step, kwargs["optimizer"])

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """After the optimiser moved."""
        self.sparsifier.after_step()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Check now and then, show the sparsity, and look at the masks."""
        if state.global_step % self._look_every == 0:
            self.film.look(state.global_step, lambda: self.sparsifier.covered)
        if state.global_step % CHECK_EVERY == 0:
            self.sparsifier.check()
            self._progress.sparsity = self.sparsifier.sparsity

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave a plain model with exact zeros."""
        self.finish(state)

    def _recomputes_noise(self, args: TrainingArguments) -> bool:
        """Its first pass is without gradients, and so with settled gates."""
        how: Any = args.gradient_checkpointing_kwargs or {}
        reentrant = bool(args.gradient_checkpointing and how.get("use_reentrant"))
        return reentrant and any(gated.noisy for gated in self.sparsifier.gated)


def _both(held: Mapping[str, torch.Tensor], zeros: Masks) -> Masks:
    """The held masks, closed also where there are zeros."""
    return {name: mask & zeros[name].to(mask) if name in zeros else mask for name, mask in held.items()}

"""SparseTrainer: transformers' Trainer with sparsity rules, distillation and exact resume."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import Sampler
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainingArguments,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.trainer_utils import has_length

from sparsebert.errors import DivergedError, UserError
from sparsebert.fast_feedforward.layer import FastFeedForward
from sparsebert.models.layout import layout_of, scope_names
from sparsebert.models.wrapped import refuse_wrapped
from sparsebert.modes import evaluating
from sparsebert.recipe.schema import Rule
from sparsebert.sparse.schedules import Times
from sparsebert.sparse.sites import Masks
from sparsebert.sparse.sparsifier import Sparsifier
from sparsebert.training.callback import SparsityCallback
from sparsebert.training.collate import inputs_of
from sparsebert.training.distill import Distiller
from sparsebert.training.progress import ProgressBar
from sparsebert.training.rates import add_gates, one_cycle
from sparsebert.training.teacher import layer_outputs

SMOOTHING = 0.98
PROBE_EXAMPLES = 256
STATE_FILE = "sparsity.safetensors"


class SparseTrainer(Trainer):
    """A Trainer that carries out sparsity rules; two lines change in a script that works with `Trainer`.

    `rules` say what becomes sparse, how and when; `sparsity` is the target of rules that name none; `held` are masks
    that stay as they are. After `train()` the model is plain again, its pruned weights are exactly zero, and `masks`
    tells which; a second `train()` keeps them. `distiller` adds what a teacher says to the loss of training, whose rows
    the collator gives as `rows`; `dropout=False` trains without dropout, `order` replaces the sampler, `one_cycle` the
    learning rate's schedule (warm-up as in `args`). The best model is looked for among those whose masks are final, and
    has the masks of its checkpoint. Raises DivergedError at the first loss that is not a number, LeakError if a pruned
    weight is not zero.
    """

    def __init__(
        self,
        model: PreTrainedModel | None = None,
        args: TrainingArguments | None = None,
        *more: Any,
        rules: Sequence[Rule] = (),
        sparsity: float | None = None,
        held: Mapping[str, torch.Tensor] | None = None,
        distiller: Distiller | None = None,
        dropout: bool = True,
        order: Sampler[int] | None = None,
        one_cycle: bool = False,
        title: str = "Training",
        **kwargs: Any,
    ) -> None:
        self.rules, self.target, self.held = tuple(rules), sparsity, held
        self._sparse = bool(rules or held)
        self.is_in_train = False
        if self._sparse and model is not None:
            refuse_wrapped(model)
        super().__init__(model, args, *more, **kwargs)
        if self.args.n_gpu > 1:
            raise UserError(
                "One process trains on one GPU",
                got=self.args.n_gpu,
                fix="start one process a GPU with torchrun, or set CUDA_VISIBLE_DEVICES=0",
            )
        # Most models take the number of items and ignore it: their mean over a micro-batch would count in full, as many
        # times as gradients are accumulated.
        self.model_accepts_loss_kwargs = False
        if distiller is not None and (self.args.label_smoothing_factor or self.compute_loss_func is not None):
            raise UserError(
                "A distiller weighs the labels' own loss itself",
                got="label_smoothing_factor" if self.args.label_smoothing_factor else "compute_loss_func",
                fix="train without a distiller, or without that",
            )
        self.distiller = distiller
        self.dropout = dropout
        self.order = order
        self.one_cycle = one_cycle
        self.running_loss: float | None = None
        self.running_sparsity: float | None = None
        self.progress = ProgressBar(title, self)
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        self.add_callback(self.progress)
        assert self.model is not None
        self._take(self.model)
        if self.sparsifier is not None:
            self.add_callback(SparsityCallback(self))
            if self.sparsifier.gated and self.lr_scheduler is not None:
                raise UserError(
                    "A scheduler of your own does not know the gates, whose rates it would have to change too",
                    got="optimizers=(optimizer, scheduler)",
                    fix="give optimizers=(optimizer, None), or use a rule without a gate",
                )

    def call_model_init(self, trial: Any = None) -> Any:
        """A model of `model_init`; each training starts with a new one, and with the rules anew."""
        model = super().call_model_init(trial)
        if self.is_in_train:
            if self.place_model_on_device:
                self._move_model_to_device(model, self.args.device)
            self._take(model)
        return model

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; where the teacher's attention maps are wanted, with attention that makes them.

        After a finished training there are no rules left to carry out: its masks are held.
        """
        if self._baked and self.model_init is None:
            self.rules, self.held = (), self.masks
            self._take(self.student)
        with nullcontext() if self.distiller is None else self.distiller.at_work(self.student):
            return super().train(*args, **kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Task loss, and in training what the teacher, rules and trees' routing add.

        Raises DivergedError if that is no number.
        """
        learns = torch.is_grad_enabled()
        if not self.dropout:
            self._without_dropout(model)
        for tree in self._trees if learns else ():
            tree.train()
            tree.counted = inputs.get("attention_mask")
        if self.distiller is None:
            loss, output = super().compute_loss(model, inputs, True, num_items_in_batch)
        else:
            loss, output = self._distilled(model, inputs) if learns else self._alone(model, inputs)
        if learns:
            loss = self._with_penalties(loss)
        if not torch.isfinite(loss):
            raise DivergedError(self.state.global_step + 1, float(loss.detach()))
        if learns:
            value = float(loss.detach())
            before = value if self.running_loss is None else self.running_loss
            self.running_loss = SMOOTHING * before + (1 - SMOOTHING) * value
        return (loss, output) if return_outputs else loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The usual optimiser; scores and multipliers get their own learning rates and no weight decay."""
        optimizer = super().create_optimizer(model)
        if self.sparsifier is None:
            return optimizer
        add_gates(optimizer, self.sparsifier.gated)
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The usual schedule, or one cycle (Smith & Topin 2018, arXiv:1708.07120): up to the rate, then to zero."""
        if not self.one_cycle or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        chosen = optimizer or self.optimizer
        assert isinstance(chosen, torch.optim.Optimizer)
        self.lr_scheduler = one_cycle(chosen, self.args.get_warmup_steps(num_training_steps), num_training_steps)
        return self.lr_scheduler

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log with the sparsity of every matrix."""
        if self.sparsifier is not None and "loss" in logs:
            logs = logs | self.sparsifier.log()
        super().log(logs, *args, **kwargs)

    def probe_loss(self) -> float:
        """Mean loss on the first training examples, with the weights as they are."""
        assert self.train_dataset is not None
        data: Any = self.train_dataset
        sized = has_length(self.train_dataset)
        rows = [data[i] for i in range(min(PROBE_EXAMPLES, len(data)))] if sized else list(islice(data, PROBE_EXAMPLES))
        collate = self._get_collator_with_removed_columns(self.data_collator, "probing")
        total, size = 0.0, self.args.train_batch_size
        with evaluating(self.student), torch.no_grad():
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                batch = collate(part)
                loss = self.student(**self._prepare_inputs(self._taken(batch))).loss
                if loss is None:
                    raise UserError("The model gives no loss for the training examples", fix="give them labels")
                total += len(part) * float(loss)
        return total / len(rows)

    def _taken(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What the model takes of a batch."""
        self._set_signature_columns_if_needed()
        return {key: batch[key] for key in self._signature_columns or () if key in batch}

    def _set_signature_columns_if_needed(self) -> None:
        """The model's own columns, and that by which a teacher's outputs are found."""
        super()._set_signature_columns_if_needed()
        if self.distiller is not None and self._signature_columns is not None and "row" not in self._signature_columns:
            self._signature_columns.append("row")

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The usual files; a checkpoint also has the masks, which the best model needs too. None is left that leaks."""
        if self.sparsifier is not None and not self._baked:
            self.sparsifier.check()
        super().save_model(output_dir, _internal_call)
        if _internal_call and output_dir is not None:
            self.save_state_of_masks(output_dir)

    def save_state_of_masks(self, folder: str) -> None:
        """Write masks and all that belongs to them into a checkpoint."""
        if self.sparsifier is not None and self.args.should_save:
            state = self.sparsifier.state_dict()
            save_file(state, Path(folder) / STATE_FILE, metadata=self.sparsifier.made_with)

    def load_state_of_masks(self, folder: str) -> None:
        """Read them back. Raises UserError if the checkpoint has none, or was made with other rules."""
        file = Path(folder) / STATE_FILE
        if self.sparsifier is None:
            if file.is_file():
                raise UserError(
                    "The checkpoint was made with sparsity rules",
                    got=folder,
                    fix="give them, or start in another folder",
                )
            return
        if not file.is_file():
            raise UserError("The checkpoint has no masks, so it is of a training without sparsity rules", got=folder)
        try:
            with safe_open(file, framework="pt") as content:
                state = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118
                self.sparsifier.load_state_dict(state, content.metadata() or {})
        except (SafetensorError, KeyError, ValueError) as error:
            what = "The masks of the checkpoint are damaged"
            raise UserError(what, got=f"{file}: {error}", fix="delete this checkpoint") from None

    def begin_sparsity(self) -> None:
        """Turn percentages and epochs of the rules into steps; after a resume, check that weights and masks agree."""
        if self.sparsifier is None:
            return
        total = self.state.max_steps
        self.sparsifier.begin(Times(total, self._steps_an_epoch()))
        self.sparsifier.check()
        if self._recomputes_noise():
            raise UserError(
                "Reentrant gradient checkpointing would compute with other noise than the forward pass did",
                fix="set its use_reentrant to False, or use a gate without noise",
            )
        if self.args.load_best_model_at_end and not self.sparsifier.settled(total):
            raise UserError(
                "Masks change until the end, so no checkpoint has the final ones and none can be the best",
                fix="set the rules' stop earlier, or load_best_model_at_end=False",
            )
        if self.rules and self.left_dense:
            self.progress.say(f"left dense: {', '.join(self.left_dense)}")

    def finish_sparsity(self) -> None:
        """Make the changes due after the last step, check, and leave a plain model.

        Nothing is changed any more where training stopped early, and where the best model has been loaded.
        """
        if self.sparsifier is None:
            return
        done = self.state.global_step
        if done >= self.state.max_steps and not self._best_loaded:
            self.sparsifier.finish(done)
        elif not self.sparsifier.settled(done):
            reached = self.sparsifier.sparsity or 0.0
            self.progress.say(f"stopped at step {done}, before the masks were final; sparsity {reached:.1%}")
        self.sparsifier.check()
        self.masks, self._baked = self.sparsifier.bake(), True

    @property
    def left_dense(self) -> tuple[str, ...]:
        """The matrices that no rule and no earlier mask covers; `*` stands for the numbers of layers."""
        if self.sparsifier is None:
            return ()
        names = [re.sub(r"\.\d+\.", ".*.", name) for name in self.sparsifier.left_dense]
        return tuple(dict.fromkeys(names))

    def _take(self, model: Any) -> None:
        """Make the rules ready for a model, on which none has been carried out."""
        self.student: PreTrainedModel = model
        if self.distiller is not None:
            data: Any = self.train_dataset
            self.distiller.check(model, len(data) if has_length(data) else None)
        self.masks: Masks = {}
        self._baked, self._best_loaded = False, False
        self._trees = [module for module in model.modules() if isinstance(module, FastFeedForward)]
        self.sparsifier: Sparsifier | None = None
        if self._sparse:
            self.sparsifier = Sparsifier(
                model,
                self.rules,
                scope_names(model),
                layout_of(model).groups,
                seed=self.args.seed,
                sparsity=self.target,
                held=self.held,
                loss=self.probe_loss,
            )

    def _recomputes_noise(self) -> bool:
        """Its first pass is without gradients, and so with settled gates."""
        how: Any = self.args.gradient_checkpointing_kwargs or {}
        if self.sparsifier is None or not self.args.gradient_checkpointing or not how.get("use_reentrant"):
            return False
        return any(gated.noisy for gated in self.sparsifier.gated)

    def _steps_an_epoch(self) -> int | None:
        """Optimiser steps; None for data without a length."""
        loader = self.get_train_dataloader()
        return math.ceil(len(loader) / self.args.gradient_accumulation_steps) if has_length(loader) else None

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        final = self.sparsifier is None or self.sparsifier.settled(self.state.global_step)
        return final and super()._determine_best_metric(metrics, trial)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        assert self.state.best_model_checkpoint is not None
        self.load_state_of_masks(self.state.best_model_checkpoint)
        self._best_loaded = True

    def _alone(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """The labels' loss: the teacher was asked about the training rows only."""
        output = model(**inputs_of(inputs, "labels"))
        return output.loss, output

    def _without_dropout(self, model: nn.Module) -> None:
        """Evaluation mode, since not every model keeps its dropout in modules (ModernBERT).

        Layers that are checkpointed stay in training mode themselves, else they would keep all activations.
        """
        model.eval()
        if self.args.gradient_checkpointing and torch.is_grad_enabled():
            for module in model.modules():
                if isinstance(module, GradientCheckpointingLayer):
                    module.training = True

    def _with_penalties(self, loss: Any) -> Any:
        penalty = None if self.sparsifier is None else self.sparsifier.penalty(self.state.global_step)
        # Trainer divides what is accumulated, but not where the user's own function does.
        share = 1 if self.compute_loss_func is None else self.current_gradient_accumulation_steps
        for part in (penalty, *(tree.penalty for tree in self._trees)):
            loss = loss if part is None else loss + part / share
        return loss

    def _distilled(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[Any, Any]:
        assert self.distiller is not None
        given = inputs_of(inputs, "labels")
        if self.distiller.wants_maps:
            given["output_attentions"] = True
        with layer_outputs(self.student) if self.distiller.wants_hidden else nullcontext([]) as layers:
            output = model(**given)
        return self.distiller.loss(output, layers, inputs), output

    def get_train_dataloader(self) -> Any:
        """Batches of training carry what the teacher says."""
        plain: Any = self.data_collator
        if self.distiller is not None:
            self.data_collator = self.distiller.collator(plain)
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = plain

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        return super()._get_train_sampler(train_dataset) if self.order is None else self.order

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.load_state_of_masks(checkpoint)

"""SparseTrainer: transformers' Trainer with sparsity rules, distillation and exact resume."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import Sampler
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerState,
    TrainingArguments,
)

from sparsebert.errors import DivergedError, UserError
from sparsebert.fast_feedforward.layer import FastFeedForward
from sparsebert.models.wrapped import refuse_wrapped
from sparsebert.recipe.schema import Rule
from sparsebert.sparse.film import MaskFilm
from sparsebert.sparse.sites import Masks
from sparsebert.sparse.sparsifier import Sparsifier
from sparsebert.training.callback import SparsityCallback
from sparsebert.training.dropout import set_dropout, switch_off_dropout
from sparsebert.training.live_distill import Teaching
from sparsebert.training.losses import (
    ForwardPass,
    LossTerm,
    RoutingPenalty,
    SparsityPenalty,
    TaskLoss,
    TeacherLoss,
    total_loss,
)
from sparsebert.training.probe import first_examples, length_of, mean_loss
from sparsebert.training.progress import ProgressBar
from sparsebert.training.rates import Cycle, add_gates
from sparsebert.training.watch import LOSS, Watch


class SparseTrainer(Trainer):
    """A Trainer that carries out sparsity rules; two lines change in a script that works with `Trainer`.

    `rules` say what becomes sparse, how and when; `sparsity` is the target of rules that name none; `held` are masks
    that stay as they are, and `hold_zeros` adds those of the zeros that the encoder's linear weights have at the start
    (of weights with more than 1 % of them). After `train()` the model is plain again, its pruned weights are exactly
    zero, and `masks` tells which; a second `train()` keeps them. `distiller` adds what a teacher says to the loss of
    training, whose rows the collator gives as `rows`; `watch` scores the model meanwhile. `dropout` is the rate of
    every dropout, 0 = none, None = the model's own; `order` replaces the sampler, `cycle` the learning rate's
    schedule (one of training.rates, warm-up as in `args`). The best model is looked for among those whose masks are
    final, and has the masks of its checkpoint. Raises DivergedError at the first loss that is not a number, LeakError
    if a pruned weight is not zero.
    """

    def __init__(
        self,
        model: PreTrainedModel | None = None,
        args: TrainingArguments | None = None,
        *more: Any,
        rules: Sequence[Rule] = (),
        sparsity: float | None = None,
        held: Mapping[str, torch.Tensor] | None = None,
        hold_zeros: bool = False,
        distiller: Teaching | None = None,
        watch: Watch | None = None,
        dropout: float | None = None,
        order: Sampler[int] | None = None,
        cycle: Cycle | None = None,
        title: str = "Training",
        **kwargs: Any,
    ) -> None:
        self.is_in_train = False
        if model is not None and (rules or held or hold_zeros):
            refuse_wrapped(model)
        if watch is not None:
            kwargs["eval_dataset"] = watch.rows
        super().__init__(model, args, *more, **kwargs)
        self._refuse(distiller, dropout)
        # Most models take the number of items and ignore it: their mean over a micro-batch would count in full, as many
        # times as gradients are accumulated.
        self.model_accepts_loss_kwargs = False
        self.distiller = distiller
        self.watch = watch
        self.dropout = dropout
        self.order = order
        self.cycle = cycle
        self._model_columns: tuple[str, ...] = ()
        self.progress = ProgressBar(title)
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        self.add_callback(self.progress)
        self.sparsity_callback = SparsityCallback(
            rules,
            sparsity=sparsity,
            held=held,
            hold_zeros=hold_zeros,
            seed=self.args.seed,
            probe=self.probe_loss,
            progress=self.progress,
        )
        assert self.model is not None
        self._start(self.model)
        if self.sparsity_callback.active:
            self.add_callback(self.sparsity_callback)
        if self.sparsifier.gated and self.lr_scheduler is not None:
            raise UserError(
                "A scheduler of your own does not know the gates, whose rates it would have to change too",
                got="optimizers=(optimizer, scheduler)",
                fix="give optimizers=(optimizer, None), or use a rule without a gate",
            )

    @property
    def sparsifier(self) -> Sparsifier:
        """What carries out the rules on the model that is trained."""
        return self.sparsity_callback.sparsifier

    @property
    def masks(self) -> Masks:
        """The masks of the finished training (True = keep), by parameter."""
        return self.sparsity_callback.masks

    @property
    def film(self) -> MaskFilm:
        """How the masks moved."""
        return self.sparsity_callback.film

    @property
    def left_dense(self) -> tuple[str, ...]:
        """The matrices that no rule and no earlier mask covers; `*` stands for the numbers of layers."""
        return self.sparsity_callback.left_dense

    def call_model_init(self, trial: Any = None) -> Any:
        """A model of `model_init`; each training starts with a new one, and with the rules anew."""
        model = super().call_model_init(trial)
        if self.is_in_train:
            if self.place_model_on_device:
                self._move_model_to_device(model, self.args.device)
            self._start(model)
        return model

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; where the teacher's attention maps are wanted, with attention that makes them.

        After a finished training there are no rules left to carry out: its masks are held.
        """
        if self.sparsity_callback.finished and self.model_init is None:
            self.sparsity_callback.hold_masks()
            self._start(self.student)
        with nullcontext() if self.distiller is None else self.distiller.at_work(self.student):
            return super().train(*args, **kwargs)

    def restore(self, checkpoint: str, state: TrainerState) -> None:
        """Take model and masks from a checkpoint of the last step, and end as the training that wrote it would have.

        Trainer would take one more step from such a checkpoint where it lies in the middle of an epoch.
        """
        self._load_from_checkpoint(checkpoint)
        self.state = state
        self.sparsity_callback.load(checkpoint)
        self.sparsity_callback.begin(self.args, state, self.get_train_dataloader())
        if self.args.load_best_model_at_end and state.best_global_step is not None:
            # Where the folder has moved since, the path of before leads nowhere.
            state.best_model_checkpoint = str(Path(checkpoint).with_name(f"checkpoint-{state.best_global_step}"))
            self._load_best_model()
        self.sparsity_callback.finish(state)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The sum of the loss terms in training, else the task loss. Raises DivergedError if that is no number."""
        learns = torch.is_grad_enabled()
        if self.dropout == 0:
            switch_off_dropout(model, checkpointed=learns and bool(self.args.gradient_checkpointing))
        terms = self.loss_terms if learns else ()
        # What the collator adds for a distiller is not for the model.
        given = {**(inputs if self.distiller is None else self._for_model(inputs))}
        with ExitStack() as stack:
            for term in terms:
                stack.enter_context(term.watching(inputs))
                given.update(term.arguments)
            loss, output = super().compute_loss(model, given, True, num_items_in_batch)
        if learns:
            loss = total_loss(terms, ForwardPass(inputs, output, loss, self.state.global_step, self._summed))
        value = self._mean_of_processes(loss) if learns else float(loss.detach())
        if not math.isfinite(value):
            raise DivergedError(self.state.global_step + 1, value)
        if learns:
            self.progress.note_loss(value)
        return (loss, output) if return_outputs else loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The usual optimiser; scores and multipliers get their own learning rates and no weight decay."""
        optimizer = super().create_optimizer(model)
        add_gates(optimizer, self.sparsifier.gated)
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The usual schedule, or the cycle that was given: up to the rate, then to zero."""
        if self.cycle is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        chosen = optimizer or self.optimizer
        assert isinstance(chosen, torch.optim.Optimizer)
        self.lr_scheduler = self.cycle(chosen, self.args.get_warmup_steps(num_training_steps), num_training_steps)
        return self.lr_scheduler

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log with the sparsity of every matrix."""
        if "loss" in logs:
            logs = logs | self.sparsifier.log()
        super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The scores of what is watched; without that, as Trainer evaluates."""
        if self.watch is None:
            return super().evaluate(*args, **kwargs)
        metrics = self.watch.scores(self.student, self.data_collator)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def probe_loss(self) -> float:
        """Mean loss on the first training examples, with the weights as they are."""
        assert self.train_dataset is not None
        collate = self._get_collator_with_removed_columns(self.data_collator, "probing")

        def inputs_of_rows(rows: Sequence[Any]) -> dict[str, Any]:
            return self._prepare_inputs(self._for_model(collate(rows)))

        return mean_loss(self.student, first_examples(self.train_dataset), self.args.train_batch_size, inputs_of_rows)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The usual files; a checkpoint also has the masks, which the best model needs too. None is left that leaks."""
        self.sparsity_callback.check()
        super().save_model(output_dir, _internal_call)
        if _internal_call and output_dir is not None and self.args.should_save:
            self.sparsity_callback.save(output_dir)

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

    def _start(self, model: Any) -> None:
        """Make rules and loss terms ready for a model, on which nothing has been carried out."""
        self.student: PreTrainedModel = model
        if self.distiller is not None:
            rows = length_of(self.train_dataset)
            self.distiller.check(model, rows and rows + (self.watch.left_out if self.watch else 0))
        if self.dropout:
            set_dropout(model, self.dropout)
        self.sparsity_callback.start(model)
        task = TaskLoss() if self.distiller is None else TeacherLoss(self.distiller, model)
        fast = [module for module in model.modules() if isinstance(module, FastFeedForward)]
        self.loss_terms: tuple[LossTerm, ...] = (task, SparsityPenalty(self.sparsifier), *map(RoutingPenalty, fast))

    def _mean_of_processes(self, loss: torch.Tensor) -> float:
        """One that is no number in one process ends the training in all: alone it would leave the others waiting."""
        mean = loss.detach().clone()
        if self.args.world_size > 1:
            dist.all_reduce(mean)
            mean /= self.args.world_size
        return float(mean)

    @property
    def _summed(self) -> int:
        """Trainer divides what is accumulated, but not where the user's own function does."""
        return 1 if self.compute_loss_func is None else self.current_gradient_accumulation_steps

    def _refuse(self, distiller: Teaching | None, dropout: float | None) -> None:
        if dropout is not None and not 0 <= dropout < 1:
            raise UserError("The rate of dropout must lie from 0 to below 1", got=dropout, fix="None = the model's own")
        if self.args.n_gpu > 1:
            raise UserError(
                "One process trains on one GPU",
                got=self.args.n_gpu,
                fix="start one process a GPU with torchrun, or set CUDA_VISIBLE_DEVICES=0",
            )
        if distiller is not None and (self.args.label_smoothing_factor or self.compute_loss_func is not None):
            raise UserError(
                "A distiller weighs the labels' own loss itself",
                got="label_smoothing_factor" if self.args.label_smoothing_factor else "compute_loss_func",
                fix="train without a distiller, or without that",
            )

    def _for_model(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What the model takes of a batch."""
        self._set_signature_columns_if_needed()
        return {key: batch[key] for key in self._model_columns if key in batch}

    def _set_signature_columns_if_needed(self) -> None:
        """The model's own columns, and those that loss terms need."""
        if self._signature_columns is None:
            super()._set_signature_columns_if_needed()
            own = tuple(self._signature_columns or ())
            wanted = [column for term in self.loss_terms for column in term.columns]
            self._model_columns, self._signature_columns = own, list(dict.fromkeys((*own, *wanted)))

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """A metric without a value makes no model the best; of two that are as good the smaller loss decides."""
        if self.watch is not None and self.args.metric_for_best_model not in metrics:
            return False
        if not self.sparsifier.settled(self.state.global_step):
            return False
        return super()._determine_best_metric(metrics, trial) or self._breaks_a_tie(metrics)

    def _breaks_a_tie(self, metrics: dict[str, float]) -> bool:
        """Whether a model as good as the best has a smaller loss; it is the best then."""
        best = self.state.best_global_step
        if self.watch is None or best is None or metrics[self.watch.main] != self.state.best_metric:
            return False
        if not metrics.get(LOSS, math.inf) < self.watch.loss_at(best, self.state):
            return False
        self.state.best_global_step = self.state.global_step
        return True

    def _load_best_model(self) -> None:
        super()._load_best_model()
        assert self.state.best_model_checkpoint is not None
        self.sparsity_callback.load_best(self.state.best_model_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.sparsity_callback.load(checkpoint)

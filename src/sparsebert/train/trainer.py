"""The training loop: transformers' Trainer, with distillation, exact resume and a progress bar."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from torch.utils.data import Sampler
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from sparsebert.environment import supports_bf16_training
from sparsebert.errors import DivergedError
from sparsebert.recipe import Training
from sparsebert.records import TrainingRun
from sparsebert.train.collate import MODEL_INPUTS, Collator, EpochOrder
from sparsebert.train.distill import Distiller, layer_outputs

SMOOTHING = 0.98


class SparseTrainer(Trainer):
    """Trainer that adds a distillation loss and stops at the first loss that is not a number."""

    def __init__(
        self, *args: Any, model: PreTrainedModel, dropout: bool, distiller: Distiller | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, model=model, **kwargs)
        self.dropout = dropout
        self.student = model
        self.distiller = distiller
        self.running_loss: float | None = None

    def _get_train_sampler(self, train_dataset: torch.utils.data.Dataset[Any] | None = None) -> Sampler[int]:
        rows = self.train_dataset if train_dataset is None else train_dataset
        assert isinstance(rows, Dataset)
        return EpochOrder(rows["length"], self.args.train_batch_size, self.args.seed)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Task loss, and what the teacher adds. Raises DivergedError when it is NaN or infinite."""
        wants_hidden = self.distiller is not None and self.distiller.wants_hidden
        given = {key: inputs[key] for key in (*MODEL_INPUTS, "labels") if key in inputs}
        if not self.dropout:
            # Not every model keeps its dropout in modules (ModernBERT), and nothing else depends on the mode.
            model.eval()
        with layer_outputs(self.student) if wants_hidden else nullcontext([]) as layers:
            output = model(**given)
        loss = output.loss if self.distiller is None else self.distiller.loss(output, layers, inputs)
        value = float(loss.detach())
        if not torch.isfinite(loss):
            raise DivergedError(self.state.global_step + 1, value)
        before = value if self.running_loss is None else self.running_loss
        self.running_loss = SMOOTHING * before + (1 - SMOOTHING) * value
        return (loss, output) if return_outputs else loss


class ProgressBar(TrainerCallback):
    """A rich bar with step, loss and time left."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeRemainingColumn(),
            transient=True,
        )

    def attach(self, trainer: SparseTrainer) -> None:
        """Show this trainer's loss."""
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar at the step that training starts or resumes from."""
        self._progress.start()
        self._task = self._progress.add_task(self._title, total=state.max_steps, completed=state.global_step, loss="-")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        loss = self._trainer.running_loss
        self._progress.update(self._task, completed=state.global_step, loss="-" if loss is None else f"{loss:.3f}")

    def close(self) -> None:
        """Take the bar off the screen, also after an error."""
        self._progress.stop()


def fine_tune(
    model: PreTrainedModel,
    encoded: Dataset,
    collate: Collator,
    training: Training,
    folder: Path,
    seed: int,
    title: str,
    distiller: Distiller | None = None,
) -> TrainingRun:
    """Train `model` in place. Checkpoints go to `folder`; a call that finds one goes on from it, bit for bit on CPU.

    Raises DivergedError when the loss stops being a number.
    """
    bf16 = supports_bf16_training()
    if training.freeze_embeddings:
        _freeze_embeddings(model)
    progress = ProgressBar(title)
    trainer = SparseTrainer(
        model=model,
        args=_arguments(training, folder, seed, bf16),
        train_dataset=encoded,
        data_collator=collate if distiller is None else distiller.collator(collate),
        callbacks=[progress],
        distiller=distiller,
        dropout=training.dropout,
    )
    progress.attach(trainer)
    trainer.remove_callback(PrinterCallback)
    start = time.perf_counter()
    try:
        _train_or_resume(trainer, _last_whole_checkpoint(folder))
    finally:
        progress.close()
        model.requires_grad_(True)
    model.eval()
    return TrainingRun(
        steps=trainer.state.global_step,
        epochs=round(float(trainer.state.epoch or 0.0), 4),
        examples=len(encoded),
        seconds=round(time.perf_counter() - start, 1),
        final_loss=_last_logged_loss(trainer.state),
        dtype="bfloat16 autocast" if bf16 else "float32",
        teacher=distiller is not None,
    )


def _freeze_embeddings(model: PreTrainedModel) -> None:
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.requires_grad_(False)


def _train_or_resume(trainer: SparseTrainer, checkpoint: str | None) -> None:
    state = None if checkpoint is None else TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
    if checkpoint is None or state is None or state.global_step < state.max_steps:
        trainer.train(resume_from_checkpoint=checkpoint)
        return
    # Trainer would take one more step from a checkpoint of the last step in the middle of an epoch.
    trainer._load_from_checkpoint(checkpoint)
    trainer.state = state


def _arguments(training: Training, folder: Path, seed: int, bf16: bool) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=training.epochs,
        max_steps=training.max_steps,
        per_device_train_batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        warmup_steps=training.warmup,
        weight_decay=training.weight_decay,
        lr_scheduler_type="linear",
        save_strategy="steps",
        save_steps=training.save_steps,
        save_total_limit=1,
        logging_strategy="steps",
        logging_steps=training.save_steps,
        report_to=[],
        disable_tqdm=True,
        seed=seed,
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def _last_logged_loss(state: TrainerState) -> float | None:
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    return losses[-1] if losses else None


def _last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint whose last-written file is there; half-written ones are removed."""
    while folder.is_dir() and (found := get_last_checkpoint(str(folder))):
        if _is_whole(Path(found) / TRAINER_STATE_NAME):
            return found
        shutil.rmtree(found)
    return None


def _is_whole(state_file: Path) -> bool:
    try:
        TrainerState.load_from_json(str(state_file))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return True

"""From a recipe's training to the arguments of transformers' Trainer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from sparsebert.recipe.pretrain import Pretraining
from sparsebert.recipe.schema import Training
from sparsebert.training.clock import NEVER, WallClock
from sparsebert.training.rates import CYCLES
from sparsebert.training.together import team_size
from sparsebert.training.watch import Watch


def rows_at_once(training: Training) -> int:
    """Rows whose gradients are computed together, by all processes."""
    return training.batch_size // (training.accumulated if isinstance(training, Pretraining) else 1)


def clock_of(training: Training, folder: Path) -> WallClock | None:
    """What ends a training of so many hours; None for one of so many steps."""
    if not isinstance(training, Pretraining) or training.hours is None:
        return None
    return WallClock(folder, training.hours, training.lr_schedule)


def training_arguments(
    training: Training, folder: Path, seed: int, bf16: bool, rows: int, watch: Watch | None
) -> TrainingArguments:
    """What transformers' Trainer is told of a training on so many rows."""
    per_epoch = math.ceil(rows / training.batch_size)
    steps = training.max_steps if training.max_steps > 0 else math.ceil(training.epochs * per_epoch)
    often: dict[str, Any] = {"save_steps": training.save_steps}
    if isinstance(training, Pretraining):
        often |= _of_pretraining(training)
    if watch is not None:
        often |= watch.arguments(steps, per_epoch)
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=training.epochs,
        max_steps=_most_steps(training),
        per_device_train_batch_size=rows_at_once(training) // team_size(),
        learning_rate=training.learning_rate,
        warmup_steps=training.warmup,
        weight_decay=training.weight_decay,
        # Of no effect for cycles, which the trainer makes itself.
        lr_scheduler_type="linear" if training.lr_schedule in CYCLES else training.lr_schedule,
        save_strategy="steps",
        **often,
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
    # The first GPU of several, as Trainer itself does where a model has its own plan for them.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def _most_steps(training: Training) -> int:
    return NEVER if isinstance(training, Pretraining) and training.hours is not None else training.max_steps


def _of_pretraining(training: Pretraining) -> dict[str, Any]:
    return {
        "adam_beta1": training.beta1,
        "adam_beta2": training.beta2,
        "adam_epsilon": training.epsilon,
        "max_grad_norm": training.max_gradient_norm,
        "gradient_accumulation_steps": training.accumulated,
        "include_num_input_tokens_seen": "all",
        "torch_compile": training.compiled,
    }

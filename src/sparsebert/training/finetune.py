"""One call trains a model: arguments, checkpoints, resume, and what it did as a TrainingRun."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import Sampler
from transformers import PreTrainedModel, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from sparsebert.environment import supports_bf16_training
from sparsebert.errors import UserError
from sparsebert.recipe.pretrain import Pretraining
from sparsebert.recipe.schema import Rule, Training
from sparsebert.records import TrainingRun
from sparsebert.sparse.film import MaskFilm
from sparsebert.sparse.sites import Masks
from sparsebert.training.arguments import clock_of, rows_at_once, training_arguments
from sparsebert.training.checkpoints import Checkpoints
from sparsebert.training.collate import Collator, EpochOrder
from sparsebert.training.energy import TrainingEnergy
from sparsebert.training.fingerprint import digest_of
from sparsebert.training.live_distill import Teaching
from sparsebert.training.rates import CYCLES
from sparsebert.training.throughput import Throughput, flops_per_token
from sparsebert.training.together import same, team_size, together
from sparsebert.training.trainer import SparseTrainer
from sparsebert.training.watch import Watch

# A row costs what the others do.
COUNTED_ROWS = 4


@dataclass(frozen=True)
class FineTuned:
    """What a training did: the run, the masks that hold (by parameter, True = keep), the log by step, and the film."""

    run: TrainingRun
    masks: Masks
    log: tuple[dict[str, float], ...]
    film: MaskFilm


def fine_tune(
    model: PreTrainedModel,
    encoded: Dataset,
    collate: Collator,
    training: Training,
    folder: Path,
    seed: int,
    title: str,
    *,
    order: Sampler[Any] | None = None,
    distiller: Teaching | None = None,
    rules: Sequence[Rule] = (),
    sparsity: float | None = None,
    held: Mapping[str, torch.Tensor] | None = None,
    hold_zeros: bool = False,
    watch: Watch | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> FineTuned:
    """Train `model` in place, and make it sparse by `rules`. `held` are masks of earlier training that stay.

    With `hold_zeros` the zeros of a model that is sparse already stay too, see SparseTrainer. `watch` is what it is
    scored on meanwhile; where that keeps the best of the models, it is the one in the end. `callbacks` are the user's
    own. `order` says which items of `encoded` come when, none = rows of like length together.

    Checkpoints go to `folder`; a call that finds one goes on from it, bit for bit on CPU. Where other processes have
    joined this one (training/together.py), each takes its share of every batch. Raises DivergedError when the loss
    stops being a number, and UserError for rules that cannot be carried out, and for batches that cannot be shared.
    """
    _check_shares(training)
    shared = {
        "model": model,
        "encoded": encoded,
        "collate": collate,
        "training": training,
        "folder": folder,
        "seed": seed,
        "title": title,
        "order": order,
        "distiller": distiller,
        "rules": tuple(rules),
        "sparsity": sparsity,
        "held": held,
        "hold_zeros": hold_zeros,
        "watch": watch,
    }
    return together(_fine_tune, shared, {"callbacks": tuple(callbacks)})


def _check_shares(training: Training) -> None:
    processes, rows = team_size(), rows_at_once(training)
    if rows % processes:
        raise UserError(
            "The rows of a step cannot be shared among the processes",
            got=f"{rows} rows and {processes} processes",
            fix="set the training's batch_size, or micro_batch_size where it has one, to a multiple of the processes",
        )


def _fine_tune(
    model: PreTrainedModel,
    encoded: Dataset,
    collate: Collator,
    training: Training,
    folder: Path,
    seed: int,
    title: str,
    order: Sampler[Any] | None,
    distiller: Teaching | None,
    rules: Sequence[Rule],
    sparsity: float | None,
    held: Mapping[str, torch.Tensor] | None,
    hold_zeros: bool,
    watch: Watch | None,
    callbacks: Sequence[TrainerCallback] = (),
) -> FineTuned:
    """What `fine_tune` does, in one of the processes."""
    bf16 = supports_bf16_training()
    if training.freeze_embeddings:
        _freeze_embeddings(model)
    checkpoints = Checkpoints(folder, _start_of(model, training, seed, rules, sparsity, held, hold_zeros, distiller))
    energy, clock = TrainingEnergy(folder), clock_of(training, folder)
    arguments = training_arguments(training, folder, seed, bf16, len(encoded), watch)
    throughput = _throughput(model, encoded, collate, training, arguments)
    trainer = SparseTrainer(
        model=model,
        args=arguments,
        train_dataset=encoded,
        data_collator=collate,
        rules=rules,
        sparsity=sparsity,
        held=held,
        hold_zeros=hold_zeros,
        distiller=distiller,
        watch=watch,
        dropout=training.dropout,
        cycle=CYCLES.get(training.lr_schedule) if clock is None else clock.cycle,
        order=order or EpochOrder(encoded["length"], training.batch_size, seed),
        title=title,
        callbacks=[
            energy,
            *([clock] if clock else []),
            checkpoints,
            *(watch.callbacks(training.save_steps) if watch else ()),
            *([throughput] if throughput else []),
            *callbacks,
        ],
    )
    start = time.perf_counter()
    try:
        checkpoint = same(checkpoints.last)
        state = None if checkpoint is None else _state_of(checkpoint)
        if clock is not None:
            clock.begin(checkpoint)
        with energy.measured(trainer.args, checkpoint):
            _train_or_resume(trainer, checkpoint, state, watch)
    finally:
        trainer.progress.close()
        model.requires_grad_(True)
        _in_float32_again(model)
    model.eval()
    run = TrainingRun(
        examples=len(encoded),
        seconds=round(time.perf_counter() - start, 1),
        dtype="bfloat16 autocast" if bf16 else "float32",
        processes=team_size(),
        **_facts(trainer),
        **({} if throughput is None else throughput.facts(trainer.state)),
        **energy.facts(),
    )
    log = tuple(entry for entry in trainer.state.log_history if "loss" in entry)
    return FineTuned(run, trainer.masks, log, trainer.film)


def _facts(trainer: SparseTrainer) -> dict[str, Any]:
    """What a TrainingRun says that the trainer knows."""
    state, watch = trainer.state, trainer.watch
    return {
        "steps": state.global_step,
        "epochs": round(float(state.epoch or 0.0), 4),
        "final_loss": _last_logged_loss(state),
        "teacher": trainer.distiller is not None,
        "evaluations": watch.evaluations(state.log_history) if watch else (),
        "best_step": state.best_global_step if watch and watch.keeps_best else None,
        "left_dense": trainer.left_dense,
    }


def _start_of(
    model: PreTrainedModel,
    training: Training,
    seed: int,
    rules: Sequence[Rule],
    sparsity: float | None,
    held: Mapping[str, torch.Tensor] | None,
    hold_zeros: bool,
    distiller: Teaching | None,
) -> str:
    """A digest of what decides a training, besides its rows: a checkpoint of another start is of another training."""
    weights = digest_of((*model.state_dict().items(), *(held or {}).items()))
    plain = [part.model_dump(mode="json") for part in (training, *rules)]
    distilled = None if distiller is None else distiller.weights.model_dump(mode="json")
    return hashlib.sha256(json.dumps([weights, plain, seed, sparsity, hold_zeros, distilled]).encode()).hexdigest()


def _in_float32_again(model: PreTrainedModel) -> None:
    """Without accelerate's autocast, which stays: a model is scored and timed in the type that it is saved in.

    accelerate's own `unwrap_model` takes the decorators of transformers along.
    """
    for name in ("forward", "_original_forward"):
        vars(model).pop(name, None)


def _freeze_embeddings(model: PreTrainedModel) -> None:
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.requires_grad_(False)


def _train_or_resume(
    trainer: SparseTrainer, checkpoint: str | None, state: TrainerState | None, watch: Watch | None
) -> None:
    ended = state is not None and watch is not None and watch.has_ended(state)
    if checkpoint is None or state is None or (state.global_step < state.max_steps and not ended):
        trainer.train(resume_from_checkpoint=checkpoint)
        return
    trainer.restore(checkpoint, state)


def _throughput(
    model: PreTrainedModel, encoded: Dataset, collate: Collator, training: Training, arguments: TrainingArguments
) -> Throughput | None:
    """What counts the tokens of a training on text; other rows are padded, so that their tokens say little."""
    if not isinstance(training, Pretraining):
        return None
    batch = collate([encoded[row] for row in range(min(len(encoded), COUNTED_ROWS))])
    return Throughput(flops_per_token(model, batch), arguments.bf16, arguments.device, team_size())


def _state_of(checkpoint: str) -> TrainerState:
    return TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))


def _last_logged_loss(state: TrainerState) -> float | None:
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    return losses[-1] if losses else None

"""A training of a run: on the run's rows, with its seed, scored on rows that are not trained on if a recipe asks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, TrainerCallback

from sparsebert.data.hold_out import held_rows
from sparsebert.errors import UserError
from sparsebert.recipe.schema import Evaluate, Training
from sparsebert.runs.context import RunContext
from sparsebert.training.finetune import FineTuned, fine_tune
from sparsebert.training.loggers import NAME_OF_FOLDER, logging_callbacks
from sparsebert.training.watch import HELD_OUT_OF_TRAINING, Watch


def train_model(
    context: RunContext, model: PreTrainedModel, training: Training, folder: Path, title: str, **more: Any
) -> FineTuned:
    """Train a model in place on the run's rows, as `fine_tune` does, which is given `more`."""
    own, watch = rows_of(context, training.evaluate)
    rows, order = context.drawn(own, training)
    return fine_tune(
        model,
        rows,
        context.collate,
        training,
        folder,
        context.recipe.seed,
        title,
        order=order,
        watch=watch,
        callbacks=(*context.callbacks, *logged(context, folder, title)),
        **more,
    )


def logged(context: RunContext, folder: Path, title: str) -> list[TrainerCallback]:
    """What logs a training in `folder` to where the run reports; logs lie as the trainings do, but outlast them."""
    own = folder.relative_to(context.work) if folder.is_relative_to(context.work) else folder.name
    place = context.folder / NAME_OF_FOLDER / own
    return logging_callbacks(context.report_to, place, f"{context.folder.name}: {title}")


def rows_of(context: RunContext, evaluate: Evaluate | None) -> tuple[Dataset, Watch | None]:
    """The rows to train on, and those to score on meanwhile. Raises UserError where too few can be held out."""
    if evaluate is None:
        return context.train, None
    watch = Watch(
        evaluate,
        context.validations[context.task.validation_name],
        context.task.validation_name,
        context.kind,
        context.spec.labels,
        context.spec.metrics,
    )
    if evaluate.split == "validation":
        return context.train, watch
    held = _held(context, evaluate.hold_out)
    parts = [context.train.select(np.flatnonzero(part)) for part in (~held, held)]
    return parts[0], replace(watch, rows=parts[1], split=HELD_OUT_OF_TRAINING, left_out=len(parts[1]))


def _held(context: RunContext, share: float) -> np.ndarray:
    try:
        return held_rows(context.task.train, context.recipe.data_seed, context.kind, share)
    except UserError as error:
        raise UserError(
            f"No train rows can be held out to score a training on: {error}", fix="give more rows, or no `evaluate`"
        ) from None

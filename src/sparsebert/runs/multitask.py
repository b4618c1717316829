"""`multitask`: one encoder with heads for sentiment, paraphrase and similarity, trained in turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, TrainerCallback, set_seed

from sparsebert.data.load import Task
from sparsebert.errors import UserError
from sparsebert.models.layout import layout_of
from sparsebert.models.load import save_model
from sparsebert.models.pair_classes import PARAPHRASE
from sparsebert.pruning.shapes import shape_of
from sparsebert.recipe.multitask import MultitaskRecipe
from sparsebert.recipe.schema import Training
from sparsebert.records import TrainingRun
from sparsebert.runs.context import RunContext, task_of
from sparsebert.runs.dense import Trained
from sparsebert.runs.heads import HEADS, HeadsContext, set_up_heads, together
from sparsebert.runs.run_type import Entry, Made, RunType
from sparsebert.runs.sparse_model import start_of, zeros_by_tensor
from sparsebert.runs.stages import Stage, once
from sparsebert.runs.training import logged
from sparsebert.training.finetune import fine_tune
from sparsebert.training.rounds import HeadRows, RoundCollator, RoundRobin, RoundRows

NAME = "multitask"
Context = RunContext[MultitaskRecipe]


class Multitask(RunType[MultitaskRecipe]):
    """Three heads on one encoder; `sparsebert split` takes it apart."""

    recipe = MultitaskRecipe

    def set_up(self, recipe: MultitaskRecipe, folder: Path, callbacks: Sequence[TrainerCallback]) -> Context:
        """The data of all three tasks."""
        return set_up_heads(recipe, folder, callbacks)

    def task(self, recipe: MultitaskRecipe) -> Task:
        """The rows of all three."""
        return together([task_of(recipe.model_copy(update={"task": name})) for name in HEADS.values()])

    def check(self, context: Context) -> int:
        """One training."""
        context.start()
        return 1

    def make(self, context: Context) -> Made:
        """The model with all heads."""
        context.steps.begin("Training three heads in turns")
        start, folder = context.fresh(), context.folder / NAME
        stage = Stage(context.work / "trained.json", (folder,), context.work / "training")
        run = once(stage, Trained, lambda: Trained(run=_train(context, folder))).result.run
        model = context.load(folder)
        predictions = context.predict(model)
        context.say(NAME, predictions)
        facts = {
            "shape": shape_of(model, range(len(layout_of(start).layers)), start),
            "training": run,
            "sparsity_by_tensor": zeros_by_tensor(model),
        }
        return Made([Entry(NAME, folder, model, predictions, facts)], (), start_of(start), has_dense=False)


def _train(context: Context, folder: Path) -> TrainingRun:
    recipe, sets = context.recipe, _sets(context)
    model: PreTrainedModel = context.fresh()
    set_seed(recipe.seed)
    order = RoundRobin(sets, recipe.seed, recipe.epoch_of)
    # In the types of rows one by one, which the trainer hands from the one to the other.
    rows: Any = RoundRows(sets, order)
    collate: Any = RoundCollator(context.collate)
    # An item is a whole batch.
    training = Training(**{**dict(recipe.training), "batch_size": 1})
    place, title = context.work / "training", "Training"
    done = fine_tune(
        model,
        rows,
        collate,
        training,
        place,
        recipe.seed,
        title,
        order=order,
        hold_zeros=recipe.hold_zeros,
        callbacks=(*context.callbacks, *logged(context, place, title)),
    )
    save_model(model, context.tokenizer, folder)
    return done.run.model_copy(update={"examples": sum(len(one.rows) for one in sets)})


def _sets(context: Context) -> list[HeadRows]:
    if not isinstance(context, HeadsContext):
        raise UserError("Several heads need the context of several tasks", got=type(context).__name__)
    recipe = context.recipe
    sizes = {PARAPHRASE: recipe.paraphrase_batch_size}
    return [
        HeadRows(head, part.train, sizes.get(head, recipe.training.batch_size)) for head, part in context.parts.items()
    ]

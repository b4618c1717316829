"""`finetune`: a model and a task, no change of shape; zeros that the model has are held."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel, set_seed

from sparsebert.models.layout import layout_of
from sparsebert.models.load import save_model
from sparsebert.pruning.shapes import shape_of
from sparsebert.recipe.finetune import FinetuneRecipe
from sparsebert.runs.context import RunContext
from sparsebert.runs.dense import Trained
from sparsebert.runs.run_type import Entry, Made, RunType
from sparsebert.runs.sparse_model import packing_of, save_sparse, start_of, zeros_by_tensor
from sparsebert.runs.stages import Stage, once
from sparsebert.runs.teachers import check_teacher, distiller_of, given_teacher, teacher_doubts
from sparsebert.runs.thresholds import choose_own
from sparsebert.runs.training import train_model
from sparsebert.training.live_distill import Teaching

NAME = "finetuned"
FinetuneContext = RunContext[FinetuneRecipe]


class Finetune(RunType[FinetuneRecipe]):
    """Fine-tuning from labels or a teacher, with the zeros of a sparse model in their places."""

    recipe = FinetuneRecipe

    def check(self, context: FinetuneContext) -> int:
        """One training."""
        check_teacher(context, context.recipe, context.start())
        return 1

    def make(self, context: FinetuneContext) -> Made:
        """The fine-tuned model; where it had the task's head, its scores before training stand beside those after."""
        context.steps.begin("Fine-tuning")
        start, folder, work = context.fresh(), context.folder / NAME, context.work / "model"
        before = context.score(context.predict(start)) if context.is_tuned else ()
        stage = Stage(context.work / "trained.json", (work,), context.work / "training")
        run = once(stage, Trained, lambda: _train(context, work)).result.run
        trained = context.load(work)
        save_sparse(trained, context.tokenizer, folder, packing_of(context.recipe), packed=context.recipe.packed)
        model = context.load(folder)
        predictions = context.predict(model)
        context.say(NAME, predictions)
        facts = {
            "shape": shape_of(model, range(len(layout_of(start).layers)), start),
            "one_shot_scores": before,
            "training": run,
            "sparsity_by_tensor": zeros_by_tensor(model),
        }
        notes = teacher_doubts(context, context.recipe.given_teachers)
        return Made([Entry(NAME, folder, model, predictions, facts)], notes, start_of(start), has_dense=False)


def _train(context: FinetuneContext, folder: Path) -> Trained:
    recipe = context.recipe
    # A model of its own: the one that is compared with stays as it was.
    model = context.fresh()
    set_seed(recipe.seed)
    run = train_model(
        context,
        model,
        recipe.training.of_rows(len(context.train)),
        context.work / "training",
        "Fine-tuning",
        distiller=_distiller(context, model),
        hold_zeros=recipe.hold_zeros,
    ).run
    choose_own(context, model)
    save_model(model, context.tokenizer, folder)
    return Trained(run=run)


def _distiller(context: FinetuneContext, model: PreTrainedModel) -> Teaching | None:
    recipe = context.recipe
    if recipe.teacher is None:
        return None
    return distiller_of(context, recipe, given_teacher(context, recipe), context.work / "teacher-0", model)

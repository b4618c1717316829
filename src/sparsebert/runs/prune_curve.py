"""`prune-curve`: one trained network, of which more and more is removed; nothing is trained.

The whole network is copied first, and each ranking, each point and each group of times is a stage, so that a run that
was stopped goes on where it was. The network that was given stays as it was.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel
from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.models.layout import layout_of, plain_layout
from sparsebert.models.load import load_config
from sparsebert.models.source import resolve
from sparsebert.models.storage import Packing
from sparsebert.progress import tracked
from sparsebert.pruning.histogram import weight_histograms
from sparsebert.pruning.shapes import shape_of
from sparsebert.recipe.prune_curve import PruneCurveRecipe
from sparsebert.records import PruneCurve, PrunePoint, PruneStudy, Timing
from sparsebert.runs.curve_points import AT_ONCE, WHOLE, CurveContext, PointScorer, Timed, time_points
from sparsebert.runs.remarks import collapse
from sparsebert.runs.removals import Step, Way, loss_rows, way, weights_in_scope
from sparsebert.runs.run_type import Entry, Made, RunType
from sparsebert.runs.sparse_model import save_sparse, zeros_by_tensor
from sparsebert.runs.stages import Stage, once


class Kept(BaseModel):
    """That the whole network lies in its folder."""


class PruneCurves(RunType[PruneCurveRecipe]):
    """Scores, sizes and times of one network against how much of it was removed."""

    recipe = PruneCurveRecipe

    def check(self, context: CurveContext) -> int:
        """The network, each curve, and the times. Raises UserError for a network without the task's head or layers."""
        recipe, model = context.recipe, context.start()
        _check_head(context)
        layers = len(plain_layout(model).layers)
        if "layers" in recipe.methods and layers < 2:
            raise UserError(
                "The network has one layer, so there is none to remove", got=recipe.model, fix="--methods unstructured"
            )
        if "unstructured" in recipe.methods and not weights_in_scope(model, recipe.scope):
            raise UserError("The scope holds no weights that could be removed", got=", ".join(recipe.scope))
        return 1 + len(recipe.curves) + recipe.measure.timed

    def make(self, context: CurveContext) -> Made:
        """A copy of the whole network, with its curves."""
        context.steps.begin("The whole network")
        folder = context.folder / WHOLE

        def copied() -> Kept:
            save_sparse(context.fresh(), context.tokenizer, folder, Packing(), packed=True)
            return Kept()

        digest = once(Stage(context.work / "whole.json", (folder,)), Kept, copied).digest
        model = context.load(folder)
        scorer = PointScorer(context, model)
        predictions = {split: scorer.before[split] for split in context.validations}
        context.say(WHOLE, predictions)
        ways, points = [], {}
        for method, criterion in context.recipe.curves:
            context.steps.begin(f"{method} by {criterion}")
            ways.append(way(context, model, digest, method, criterion))
            points[ways[-1].name] = _points(scorer, ways[-1], digest)
        times = _times(context, model, ways, digest) if context.recipe.measure.timed else {}
        study = PruneStudy(
            within=context.recipe.within,
            loss_examples=loss_rows(context),
            curves=tuple(_curve(context, one, points[one.name], times) for one in ways),
            weights=weight_histograms(model),
        )
        facts = {
            "shape": shape_of(model, range(len(layout_of(model).layers)), model),
            "sparsity_by_tensor": zeros_by_tensor(model),
            "prune_study": study,
        }
        doubt = collapse(context, "The whole network", context.score(predictions), context.decide(predictions))
        return Made([Entry(WHOLE, folder, model, predictions, facts)], (doubt,) if doubt else ())


def _check_head(context: CurveContext) -> None:
    name = context.recipe.model
    if not context.has_head(load_config(resolve(name))):
        raise UserError(
            f"The model is not fine-tuned for the task {context.spec.name}, so nothing can be lost by removal",
            got=name,
            fix=f"sparsebert finetune {name} --task {context.spec.name}, then give the folder finetuned of that run",
        )


def _points(scorer: PointScorer, one: Way, digest: str) -> list[PrunePoint]:
    context = scorer.context

    def point(number: int, step: Step) -> PrunePoint:
        name = f"{one.name}-{number}"
        folder = context.folder / name if context.recipe.keep_models and number else None

        def work() -> PrunePoint:
            model = step.make()
            if folder is not None:
                save_sparse(model, context.tokenizer, folder, Packing(), packed=True)
            found = scorer.point(model, step.asked, step.skipped)
            return found.model_copy(update={"folder": folder and folder.name})

        stage = Stage(context.work / f"{name}.json", (folder,) if folder is not None else ())
        return once(stage, PrunePoint, work, after=digest).result

    return [point(number, step) for number, step in enumerate(tracked(one.steps, one.name))]


def _times(
    context: CurveContext, model: PreTrainedModel, ways: Sequence[Way], digest: str
) -> dict[str, tuple[Timing, ...]]:
    """Of every point; a few in the same rounds as the whole network, so that not all must be in memory at once."""
    context.steps.begin("Times of all points, each in the same rounds as the whole network")
    steps = {_named(one, place): step for one in ways for place, step in enumerate(one.steps) if place}
    names, found = list(steps), {}
    for number, start in enumerate(tracked(range(0, len(names), AT_ONCE), "Timing")):
        chosen = {name: steps[name].make for name in names[start : start + AT_ONCE]}
        stage = Stage(context.work / f"times-{number}.json")
        timed = once(stage, Timed, lambda makes=chosen: Timed(timings=time_points(context, model, makes)), after=digest)
        found = timed.result.timings | found
    return found


def _named(one: Way, place: int) -> str:
    return f"{one.name}-{place}" if place else WHOLE


def _curve(
    context: CurveContext, one: Way, points: Sequence[PrunePoint], times: dict[str, tuple[Timing, ...]]
) -> PruneCurve:
    return PruneCurve(
        method=one.method,
        criterion=one.criterion,
        greedy=context.recipe.greedy and (one.method, one.criterion) == ("layers", "loss"),
        ranking=one.ranking,
        points=tuple(
            point.model_copy(update={"timings": times.get(_named(one, place), ())})
            for place, point in enumerate(points)
        ),
    )

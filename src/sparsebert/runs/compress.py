"""The family: dense model first, then one smaller model a target, each from the last."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedModel, set_seed

from sparsebert import registry
from sparsebert.counts import zero_share
from sparsebert.environment import cpu_name
from sparsebert.errors import UserError
from sparsebert.models.layout import encoder_linear_names, layout_of
from sparsebert.models.load import has_task_head, load_config, save_model
from sparsebert.models.source import resolve
from sparsebert.models.surgeon import Keep, mask_model, shrink
from sparsebert.pruning.assemble import masked_model
from sparsebert.pruning.calibration import Calibrated, calibrate
from sparsebert.pruning.costs import measured_table
from sparsebert.pruning.knapsack import CostTable
from sparsebert.pruning.search import Found, scorer
from sparsebert.pruning.shapes import head_importance, heads_left, shape_of
from sparsebert.pruning.targets import Goal, meet
from sparsebert.recipe.schema import Target
from sparsebert.records import Score, Shape, TrainingRun
from sparsebert.runs.context import RunContext
from sparsebert.runs.stages import Stage, once
from sparsebert.timing import torch_threads
from sparsebert.training.distill import Distiller
from sparsebert.training.finetune import fine_tune
from sparsebert.training.teacher import TeacherCache, cache_teacher

# A trained model has none, but for a few weights that half precision rounded to zero.
MOST_ZEROS = 0.01


class Trained(BaseModel):
    """What training a model left on disk besides the model; `run` is absent when nothing was trained."""

    run: TrainingRun | None = None


class Member(BaseModel):
    """One model of the family before fine-tuning: its shape, and how it was found.

    `origin` holds for each of its layers the number of the dense model's layer that it was.
    """

    model_config = ConfigDict(frozen=True)

    target: Target
    shape: Shape
    origin: tuple[int, ...]
    divergence: float
    tried: int
    achieved: float
    one_shot_scores: tuple[Score, ...]
    output_difference: float


class LatencyTable(BaseModel):
    """The measured table, as it is kept on disk."""

    table: CostTable


def check_blocks(model: PreTrainedModel) -> None:
    """Raises UserError for a model whose heads and neurons cannot be searched: tables of costs are of layers alike.

    And for one with many zeros, which the updates of weights and the fine-tuning would not keep.
    """
    layers = layout_of(model).layers
    missing = [layer.index for layer in layers if layer.attention is None or layer.ffn is None]
    if missing or not layers:
        what = f"layers without a head or a neuron: {', '.join(map(str, missing))}" if layers else "no layers"
        fix = "give the model that it was made from, or use `sparsebert train`"
        raise UserError("Only a model with heads and neurons in every layer can be compressed", got=what, fix=fix)
    shapes = sorted({(layer.attention.units, layer.ffn.units) for layer in layers if layer.attention and layer.ffn})
    if len(shapes) > 1:
        raise UserError(
            "Only a model whose layers are alike can be compressed",
            got=", ".join(f"{heads} heads and {neurons} neurons" for heads, neurons in shapes),
            fix="give the model that it was made from, with all targets at once",
        )
    zeros = zero_share(model, encoder_linear_names(model))
    if zeros > MOST_ZEROS:
        raise UserError(
            "Compressing a model that is sparse itself would fill in its zeros",
            got=f"{zeros:.1%} of the encoder's weights are zero",
            allowed=f"up to {MOST_ZEROS:.0%}",
            fix="give the model that it was made from, or use `sparsebert train`",
        )


@dataclass(frozen=True)
class Dense:
    """The baseline and teacher; `digest` changes with its files."""

    model: PreTrainedModel
    trained: Trained
    shape: Shape
    digest: str

    @property
    def origin(self) -> tuple[int, ...]:
        """Its layers, counted."""
        return tuple(range(len(self.shape.heads)))


def dense_model(context: RunContext) -> Dense:
    """The model handed in, fine-tuned first if it has no head for the task; kept in `dense/`."""
    folder, done = context.folder / "dense", context.work / "dense.json"
    source = resolve(context.recipe.model)
    labels = len(context.spec.labels) or 1

    def work() -> Trained:
        model, run = context.fresh(), None
        if not has_task_head(load_config(source), labels, context.spec.labels):
            run = fine_tune(
                model,
                context.train,
                context.collate,
                context.recipe.dense,
                context.work / "dense-training",
                context.recipe.seed,
                "Fine-tuning dense",
            ).run
        save_model(model, context.tokenizer, folder)
        return Trained(run=run)

    context.steps.begin("The dense model")
    made = once(Stage(done, (folder,), context.work / "dense-training"), Trained, work)
    model = context.load(folder)
    layers = layout_of(model).layers
    return Dense(model, made.result, shape_of(model, tuple(range(len(layers))), model), made.digest)


def teacher_cache(context: RunContext, dense: Dense) -> TeacherCache:
    """The dense model's outputs on the train split, computed once a run."""
    hidden = context.recipe.distill.hidden > 0
    return cache_teacher(dense.model, context.train, context.collate, context.work / "teacher", hidden)


def trained_stage(work: Path, folder: Path) -> Stage:
    """The stage in which `recover` makes the finished model."""
    return Stage(work / "trained.json", (folder,), work / "training")


def recover(context: RunContext, dense: Dense, work: Path, folder: Path, origin: tuple[int, ...]) -> Trained:
    """Train the model in `work`/one-shot from its teacher, if the recipe says so, and save it in `folder`.

    `origin` holds for each of its layers the layer of the dense model that it was.
    """
    model, training, run = context.load(work / "one-shot"), context.recipe.finetune, None
    if training is not None:
        seed, title = context.recipe.seed, f"Fine-tuning {folder.name}"
        set_seed(seed)
        distiller = Distiller(teacher_cache(context, dense), context.recipe.distill, origin)
        run = fine_tune(
            model, context.train, context.collate, training, work / "training", seed, title, distiller=distiller
        ).run
    save_model(model, context.tokenizer, folder)
    return Trained(run=run)


class FamilyMaker:
    """Makes members one after the other; holds the latency table and the model that the next one starts from."""

    def __init__(self, context: RunContext, dense: Dense) -> None:
        self._context = context
        self._dense = dense
        self._last, self._origin, self._shape = dense.model, dense.origin, dense.shape
        self._last_digest = dense.digest
        self._calibrated: Calibrated | None = None

    def make(self, target: Target) -> tuple[Member, Trained, Path]:
        """Find, cut and fine-tune the model for one target; its folder holds the finished model."""
        work, folder = self._context.work / target.label, self._context.folder / target.label
        cut = work / "one-shot"
        last = trained_stage(work, folder)
        self._context.steps.begin(f"{target.label}: searching what to remove")
        found = once(
            Stage(work / "member.json", (cut,)),
            Member,
            lambda: self._find(target, cut),
            after=self._last_digest,
            later=[last],
        )
        member = found.result
        if self._context.recipe.finetune is not None:
            self._context.steps.begin(f"{target.label}: training what is left")
        trained = once(
            last,
            Trained,
            lambda: recover(self._context, self._dense, work, folder, member.origin),
            after=found.digest,
        )
        if self._context.recipe.finetune is not None:
            self._last, self._origin, self._shape = self._context.load(folder), member.origin, member.shape
            self._calibrated, self._last_digest = None, trained.digest
        return member, trained.result, folder

    def _find(self, target: Target, folder: Path) -> Member:
        calibrated = self._calibrate()
        by_loss = self._context.recipe.criterion == "loss_increase"
        score = scorer(self._last, calibrated, self._context.collate, by_loss)
        goal = Goal(target, self._context.recipe, self._context.setting, self._dense.model, self._last)
        found, achieved = meet(goal, self._table, calibrated, score)
        origin = tuple(place for place, choice in zip(self._origin, found.choices, strict=True) if not choice.dropped)
        small, difference, keep = self._assemble(calibrated, found)
        save_model(small, self._context.tokenizer, folder)
        return Member(
            target=target,
            shape=self._shape_of(small, origin, calibrated, keep),
            origin=origin,
            divergence=found.divergence,
            tried=found.tried,
            achieved=achieved,
            one_shot_scores=self._context.score(self._context.predict(small)),
            output_difference=difference,
        )

    def _shape_of(self, small: PreTrainedModel, origin: tuple[int, ...], calibrated: Calibrated, keep: Keep) -> Shape:
        """With the dense model's numbers of the heads, which are those of the last model composed with its masks."""
        dense = self._dense.model
        # A member that an older version left on disk does not say which heads it has.
        if not self._shape.kept_heads:
            return shape_of(small, origin, dense)
        numbers = tuple(self._shape.kept_heads[place] for place in self._origin)
        dropped = [index for index, place in enumerate(self._origin) if place not in origin]
        importance = head_importance(calibrated.layout, calibrated.candidates, numbers, self._origin, self._dense.shape)
        return shape_of(small, origin, dense, heads_left(self._last, keep, dropped, numbers), importance)

    def _assemble(self, calibrated: Calibrated, found: Found) -> tuple[PreTrainedModel, float, Keep]:
        """The smaller model, its largest |logit| difference from the masked one over the largest, and the masks."""
        masked, keep, dropped = masked_model(self._last, calibrated.candidates, found.choices)
        small = shrink(masked, keep, dropped, even=self._context.recipe.even)
        mask_model(masked, {}, dropped)
        return small, self._context.checked_difference(masked, small), keep

    def _calibrate(self) -> Calibrated:
        if self._calibrated is None:
            recipe = self._context.recipe
            self._calibrated = calibrate(
                copy.deepcopy(self._last),
                self._dense.model,
                self._context.train,
                self._context.collate,
                recipe.criterion,
                recipe.search.examples,
                recipe.search.score_examples,
                recipe.seed,
            )
        return self._calibrated

    def _table(self) -> CostTable:
        setting, name = self._context.setting, self._context.recipe.measure.runtime
        file = self._context.work / f"latency-{setting.batch}x{setting.length}.json"

        def work() -> LatencyTable:
            with torch_threads(self._context.recipe.measure.threads):
                runtime = registry.get("runtime", name)
                return LatencyTable(table=measured_table(self._dense.model, setting.batch, setting.length, runtime))

        return once(Stage(file), LatencyTable, work, after=f"{self._dense.digest} {cpu_name()} {name}").result.table

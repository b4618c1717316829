"""The dense model of a run, and the training of what was made of it, with the dense model as teacher."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel
from transformers import PreTrainedModel, set_seed

from sparsebert.models.layout import layout_of
from sparsebert.models.load import save_model
from sparsebert.models.storage import Packing
from sparsebert.models.thresholds import thresholds_of
from sparsebert.progress import line
from sparsebert.pruning.shapes import shape_of
from sparsebert.recipe.schema import Distill, Recovery, Training
from sparsebert.records import Shape, TrainingRun
from sparsebert.runs.context import RunContext
from sparsebert.runs.remarks import doubt
from sparsebert.runs.run_type import Entry
from sparsebert.runs.sparse_model import save_made
from sparsebert.runs.stages import Stage, once
from sparsebert.runs.thresholds import choose_own
from sparsebert.runs.training import train_model
from sparsebert.training.distill import Distiller, dimensions_taught_by
from sparsebert.training.live_distill import LiveDistiller, Teaching
from sparsebert.training.teacher import TeacherCache, cache_teacher

EXACT = "exact"


class Trained(BaseModel):
    """What training a model left on disk besides the model; `run` is absent when nothing was trained."""

    run: TrainingRun | None = None


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


def dense_model(context: RunContext, training: Training) -> Dense:
    """The model handed in, fine-tuned first if it has no head for the task; kept in `dense/`."""
    folder, done = context.folder / "dense", context.work / "dense.json"

    def work() -> Trained:
        model, run = context.fresh(), None
        if not context.is_tuned:
            run = train_model(context, model, training, context.work / "dense-training", "Fine-tuning dense").run
        if run is not None or not thresholds_of(model.config):
            choose_own(context, model)
        save_model(model, context.tokenizer, folder)
        return Trained(run=run)

    context.steps.begin("The dense model")
    with context.share():
        made = once(Stage(done, (folder,), context.work / "dense-training"), Trained, work)
    model = context.load(folder)
    layers = layout_of(model).layers
    return Dense(model, made.result, shape_of(model, tuple(range(len(layers))), model), made.digest)


def dense_entry(context: RunContext, dense: Dense) -> Entry:
    """The dense model as the first entry of a run; says how good it is, and what is doubtful about it."""
    predictions = context.predict(dense.model)
    facts = {"shape": dense.shape, "training": dense.trained.run}
    entry = Entry("dense", context.folder / "dense", dense.model, predictions, facts)
    context.say(entry.name, predictions)
    found = doubt(context, context.score(predictions), context.decide(predictions))
    if found:
        line(f"Note: {found}")
    return entry


def teacher_cache(context: RunContext, dense: Dense, distill: Distill) -> TeacherCache:
    """The dense model's outputs on the train split, computed once a run."""
    folder, hidden = context.work / "teacher", distill.hidden > 0
    return cache_teacher(dense.model, context.train, context.collate, folder, hidden, context.kind)


@dataclass(frozen=True)
class Recovering:
    """How cut or converted models of one run are trained: from which teacher, by what, and not at all for none.

    `packing` says how they are stored. Where that rounds, what was trained is kept besides.
    """

    dense: Dense
    training: Recovery | None
    distill: Distill
    packing: Packing

    def stage(self, work: Path, folder: Path) -> Stage:
        """The stage in which `train` makes the finished model."""
        return Stage(work / "trained.json", tuple(dict.fromkeys((folder, self.exact(work, folder)))), work / "training")

    def exact(self, work: Path, folder: Path) -> Path:
        """Where the model is that was trained for `folder`, before anything was rounded."""
        return work / EXACT if self.packing.rounds else folder

    def train(self, context: RunContext, work: Path, folder: Path, origin: tuple[int, ...]) -> Trained:
        """Train the model in `work`/one-shot from its teacher, if the recipe says so, and save it in `folder`.

        `origin` holds for each of its layers the layer of the dense model that it was.
        """
        model, run = context.load(work / "one-shot"), None
        if self.training is not None:
            set_seed(context.recipe.seed)
            distiller = self._distiller(context, model, origin)
            title = f"Fine-tuning {folder.name}"
            run = train_model(context, model, self.training, work / "training", title, distiller=distiller).run
        choose_own(context, model)
        save_model(model, context.tokenizer, self.exact(work, folder))
        if self.packing.rounds:
            save_made(model, context.tokenizer, folder, self.packing)
        return Trained(run=run)

    def _distiller(self, context: RunContext, student: PreTrainedModel, origin: tuple[int, ...]) -> Teaching:
        dimensions = dimensions_taught_by(student, self.dense.model)
        if not context.kind.kept:
            return LiveDistiller(self.dense.model, self.distill, origin, dimensions)
        cache = teacher_cache(context, self.dense, self.distill)
        return Distiller(cache, self.distill, origin, dimensions=dimensions)

"""The cut of `compress` that all layers share, where it is asked for: dimensions of the hidden states."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.models.hidden import check_size
from sparsebert.models.load import save_model
from sparsebert.progress import line
from sparsebert.pruning.calibration import CALIBRATION_BATCH, sample_rows
from sparsebert.pruning.hidden import narrow_by_calibration
from sparsebert.pruning.shapes import shape_of
from sparsebert.recipe.compress import CompressRecipe
from sparsebert.records import Score
from sparsebert.runs.context import RunContext
from sparsebert.runs.dense import Dense, Recovering, Trained
from sparsebert.runs.run_type import Entry
from sparsebert.runs.stages import Stage, once
from sparsebert.training.collate import batches_by_length

NAME = "narrow"


class CutDimensions(BaseModel):
    """What is kept on disk of the cut: the scores before training."""

    model_config = ConfigDict(frozen=True)

    one_shot_scores: tuple[Score, ...]


@dataclass(frozen=True)
class Narrow:
    """The model with fewer dimensions, as trained, its entry, and a digest of its files."""

    model: PreTrainedModel
    entry: Entry
    digest: str


def check_hidden(context: RunContext[CompressRecipe], size: int) -> None:
    """Raise UserError for a hidden size that the model cannot be cut to."""
    model = context.start()
    own = model.config.hidden_size
    if context.kind.head == "embeddings":
        raise UserError(
            "A smaller hidden size gives embeddings of another length, which cannot be compared with the old ones",
            fix="leave --hidden-size out",
        )
    if not 1 <= size < own:
        raise UserError("The hidden size is out of range", got=size, allowed=f"1 to {own - 1}")
    check_size(model, size)


def narrow_model(context: RunContext[CompressRecipe], dense: Dense, recovery: Recovering, size: int) -> Narrow:
    """The dense model with `size` dimensions in its hidden states, trained, in `narrow/`: others start from it."""
    work, folder = context.work / NAME, context.folder / NAME
    cut, last = work / "one-shot", recovery.stage(work, folder)
    context.steps.begin(f"{NAME}: cutting the hidden size to {size}")

    def find() -> CutDimensions:
        recipe = context.recipe
        rows = sample_rows(context.train, recipe.search.examples, recipe.seed)
        batches = [batch for _, batch in batches_by_length(rows, context.collate, CALIBRATION_BATCH)]
        small = narrow_by_calibration(dense.model, size, batches, context.kind, recipe.seed)
        save_model(small, context.tokenizer, cut)
        return CutDimensions(one_shot_scores=context.score(context.predict(small)))

    found = once(Stage(work / "cut.json", (cut,)), CutDimensions, find, after=dense.digest, later=[last])
    if recovery.training is not None:
        context.steps.begin(f"{NAME}: training what is left")
    trained = once(last, Trained, lambda: recovery.train(context, work, folder, dense.origin), after=found.digest)
    model, home = context.load(folder), recovery.exact(work, folder)
    exact = model if home == folder else context.load(home)
    line(f"{NAME}: {size} of {dense.model.config.hidden_size} dimensions stay")
    predictions = context.predict(model)
    context.say(NAME, predictions)
    facts = {
        "shape": shape_of(exact, dense.origin, dense.model),
        "one_shot_scores": found.result.one_shot_scores if trained.result.run else (),
        "training": trained.result.run,
    }
    return Narrow(exact, Entry(NAME, folder, model, predictions, facts, context), trained.digest)

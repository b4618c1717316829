"""From a recipe to models: what `compress`, `train` and `fff` make, one entry a model, the dense one first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from sparsebert.errors import UnreachableError, UserError
from sparsebert.models.load import load_model
from sparsebert.progress import line
from sparsebert.recipe.recipe import Recipe
from sparsebert.recipe.schema import Target
from sparsebert.records import (
    TrainingRun,
)
from sparsebert.reports import values as v
from sparsebert.runs.compress import Dense, FamilyMaker, Member, dense_model
from sparsebert.runs.context import Predictions, RunContext
from sparsebert.runs.fff import ConvertedModel, convert_and_train
from sparsebert.runs.remarks import doubt, fell_too_far, least_drop, too_far, too_few_examples
from sparsebert.runs.train import SparseModel, has_dense, train_phases, unused_targets

LADDER = (0.3, 0.5, 0.65, 0.75, 0.82, 0.88, 0.92, 0.95)
_NO_DENSE = (
    "No dense model was trained, so what the zeros cost in score is not measured, and speeds are against the model "
    "that training started from; to train one as well give --set baseline=true"
)


@dataclass(frozen=True)
class Entry:
    """One finished model of the run: what is known of it before the final measurement."""

    name: str
    folder: Path
    model: PreTrainedModel
    predictions: Predictions
    member: Member | None = None
    training: TrainingRun | None = None
    sparse: SparseModel | None = None
    converted: ConvertedModel | None = None


def maker_of(recipe: Recipe) -> Callable[[RunContext], tuple[list[Entry], tuple[str, ...]]]:
    """What makes the models of a recipe, and notes about them."""
    if recipe.phases:
        return train_sparse
    return make_family if recipe.trees is None else make_forest


def make_forest(context: RunContext) -> tuple[list[Entry], tuple[str, ...]]:
    """The dense model, the same with fast feedforward layers, and the controls."""
    dense = dense_model(context)
    entries = [_dense_entry(context, dense)]
    for converted in convert_and_train(context, dense):
        predictions = context.predict(converted.model)
        entry = Entry(
            converted.name,
            converted.folder,
            converted.model,
            predictions,
            training=converted.trained.run,
            converted=converted,
        )
        line(f"{entry.name}: {_main(context, entry)}")
        entries.append(entry)
    return entries, ()


def make_family(context: RunContext) -> tuple[list[Entry], tuple[str, ...]]:
    """The dense model and one member a target (or, for `max_drop`, members until one falls too far)."""
    early = too_few_examples(context, least_drop(context))
    if early:
        line(f"Note: {early}")
    dense = dense_model(context)
    entries = [_dense_entry(context, dense)]
    dense_value = context.main_value(entries[0].predictions)
    if context.recipe.max_drop is not None and dense_value is None:
        raise UserError(f"The dense model has no {context.spec.main_metric}, so no drop", fix="give targets instead")
    maker = FamilyMaker(context, dense)
    for target in wanted_targets(context.recipe):
        try:
            entry = _member(context, maker, target)
        except UnreachableError as error:
            if context.recipe.targets:
                raise
            # The ladder of `max_drop` ends where models cannot get smaller.
            return entries, (str(error),)
        value = context.main_value(entry.predictions)
        if fell_too_far(context, dense_value, value):
            return entries, (too_far(context, entry.name, dense_value, value),)
        entries.append(entry)
    return entries, ()


def train_sparse(context: RunContext) -> tuple[list[Entry], tuple[str, ...]]:
    """The sparse model that the recipe's phases give, after the dense model if there is one."""
    notes = unused_targets(context.recipe)
    for note in notes:
        line(note)
    sparse, dense = train_phases(context)
    if dense is None:
        notes = (*notes, _NO_DENSE)
    entries = [] if dense is None else [_dense_entry(context, dense)]
    entry = Entry(sparse.folder.name, sparse.folder, sparse.model, context.predict(sparse.model), sparse=sparse)
    line(f"{entry.name}: {_main(context, entry)}")
    return [*entries, entry], notes


def wanted_targets(recipe: Recipe) -> tuple[Target, ...]:
    """The recipe's targets, or for `max_drop` a ladder of sparsities. Raises UserError where neither is given."""
    if recipe.targets:
        return _mildest_first(recipe.targets)
    if recipe.max_drop is None:
        raise UserError("Nothing to do: no target", fix="give --speedup, --latency, --size, --sparsity or --max-drop")
    return tuple(Target(kind="sparsity", value=value) for value in LADDER)


def _mildest_first(targets: Sequence[Target]) -> tuple[Target, ...]:
    """Each member starts from the one before. Of one kind: which of two kinds asks for more only a search can say."""
    queues = {
        kind: iter(sorted((one for one in targets if one.kind == kind), key=lambda one: one.value, reverse=falls))
        for kind, falls in (("speedup", False), ("latency_ms", True), ("size", True), ("sparsity", False))
    }
    return tuple(next(queues[target.kind]) for target in targets)


def count_steps(context: RunContext) -> int:
    """How many steps a run says: the dense model, what is made of it (at most), measuring, report."""
    recipe = context.recipe
    trained = 1 if recipe.finetune is None else 2
    if recipe.phases:
        made = len(recipe.phases) + has_dense(context)
    elif recipe.trees is None:
        made = 1 + len(wanted_targets(recipe)) * trained
    else:
        made = 1 + (3 if recipe.trees.controls else 1) * trained
    return made + 2


def _member(context: RunContext, maker: FamilyMaker, target: Target) -> Entry:
    member, trained, folder = maker.make(target)
    model = load_model(folder, num_labels=len(context.spec.labels) or None, kind=context.spec.kind)
    entry = Entry(target.label, folder, model, context.predict(model), member, trained.run)
    line(f"{entry.name}: {_main(context, entry)}")
    return entry


def _dense_entry(context: RunContext, dense: Dense) -> Entry:
    folder, predictions = context.folder / "dense", context.predict(dense.model)
    entry = Entry("dense", folder, dense.model, predictions, training=dense.trained.run)
    line(f"dense: {_main(context, entry)}")
    found = doubt(context, context.score(predictions), context.decide(predictions))
    if found:
        line(f"Note: {found}")
    return entry


def _main(context: RunContext, entry: Entry) -> str:
    value = context.main_value(entry.predictions)
    return f"{context.spec.main_metric} " + ("undefined" if value is None else v.fraction(value))

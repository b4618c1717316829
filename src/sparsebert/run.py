"""`run(recipe, folder)`: one straight read from a recipe to a Record, a family of models and a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from safetensors.numpy import save
from transformers import PreTrainedModel

from sparsebert.bench import BenchRow, bench
from sparsebert.compress.common import leave, take
from sparsebert.compress.family import Dense, FamilyMaker, Member, check_blocks, dense_model, shape_of
from sparsebert.compress.forest import Grown, grow, layers_to_change
from sparsebert.compress.phases import SparseModel, check_phases, train_phases, unused_targets
from sparsebert.compress.stages import alone, claim
from sparsebert.compress.workbench import Predictions, Workbench, set_up
from sparsebert.counts import footprint, sizes, sparsity
from sparsebert.environment import environment
from sparsebert.errors import DivergedError, UnreachableError, UserError
from sparsebert.models.layout import encoder_linear_names, layout_of
from sparsebert.models.load import load_model
from sparsebert.parts import Target
from sparsebert.recipe import Recipe
from sparsebert.records import (
    FILE_NAME,
    PREDICTIONS,
    ModelResult,
    Record,
    Score,
    TrainingRun,
    read_record,
    write_bytes_atomically,
    write_record,
    write_text_atomically,
)
from sparsebert.report.card import model_card
from sparsebert.report.page import write_report

LADDER = (0.3, 0.5, 0.65, 0.75, 0.82, 0.88, 0.92, 0.95)
console = Console(stderr=True)


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
    grown: Grown | None = None


def run(recipe: Recipe, folder: Path, command: str, common: Path | None = None) -> Record:
    """Compress a model: dense baseline, one smaller model a target, measurement, record, report.

    A recipe with phases is a sparse training instead: its record has the sparse model, after the dense one where a
    teacher was trained. One with trees gives a model with fast feedforward layers, and its controls. Everything that
    is finished is kept in `folder` and found again when the same recipe runs there again. `common` holds what other
    runs have made of the same dense model and teachers (see compress/common.py). Raises UserError for what the user
    can mend; once the folder is claimed, that also leaves a Record with `status: failed`, unless one that is finished
    is there.
    """
    started = time.perf_counter()
    compresses = _maker(recipe) is make_family
    if compresses:
        wanted_targets(recipe)
    workbench = set_up(recipe, folder)
    check_phases(workbench)
    if compresses:
        check_blocks(workbench.fresh())
    if recipe.trees is not None:
        layers_to_change(recipe.trees, workbench.fresh())
    claim(folder, recipe)
    with alone(folder):
        if common is None:
            return _finish(workbench, command, started)
        taken = take(recipe, folder, common)
        try:
            return _finish(replace(workbench, notes=(*workbench.notes, *_taken_note(taken))), command, started)
        finally:
            leave(recipe, folder, common)


def _taken_note(taken: Sequence[str]) -> list[str]:
    return [f"Made by another run of the sweep, with the same settings: {', '.join(taken)}"] if taken else []


def _finish(workbench: Workbench, command: str, started: float) -> Record:
    recipe, folder = workbench.recipe, workbench.folder
    try:
        entries, notes = _maker(recipe)(workbench)
        models = measure_family(workbench, entries)
        write_predictions(workbench, entries)
    except UserError as error:
        step = error.step if isinstance(error, DivergedError) else None
        failed = _record(workbench, command, started, (), (), failure=str(error), failed_step=step)
        if not _has_finished(folder):
            write_record(failed, folder)
        raise
    record = _record(workbench, command, started, models, notes)
    write_record(record, folder)
    for result in models:
        write_text_atomically(folder / result.folder / "README.md", model_card(record, result.name))
    write_report([record], folder / "report.html", folder / "plots", runs=[folder])
    return record


def _has_finished(folder: Path) -> bool:
    return (folder / FILE_NAME).is_file() and read_record(folder).status == "finished"


def _maker(recipe: Recipe) -> Callable[[Workbench], tuple[list[Entry], tuple[str, ...]]]:
    if recipe.phases:
        return train_sparse
    return make_family if recipe.trees is None else make_forest


def make_forest(workbench: Workbench) -> tuple[list[Entry], tuple[str, ...]]:
    """The dense model, the same with fast feedforward layers, and the controls."""
    dense = dense_model(workbench)
    entries = [_dense_entry(workbench, dense)]
    for grown in grow(workbench, dense):
        predictions = workbench.predict(grown.model)
        entry = Entry(grown.name, grown.folder, grown.model, predictions, training=grown.trained.run, grown=grown)
        _say(f"{entry.name}: {_main(workbench, entry)}")
        entries.append(entry)
    return entries, ()


def make_family(workbench: Workbench) -> tuple[list[Entry], tuple[str, ...]]:
    """The dense model and one member a target (or, for `max_drop`, members until one falls too far)."""
    dense = dense_model(workbench)
    entries = [_dense_entry(workbench, dense)]
    scores = workbench.score(entries[0].predictions)
    if workbench.recipe.max_drop is not None and _main_value(workbench, scores) is None:
        raise UserError(f"The dense model has no {workbench.spec.main_metric}, so no drop", fix="give targets instead")
    maker = FamilyMaker(workbench, dense)
    for target in wanted_targets(workbench.recipe):
        try:
            entry = _member(workbench, maker, target)
        except UnreachableError as error:
            if workbench.recipe.targets:
                raise
            # The ladder of `max_drop` ends where models cannot get smaller.
            return entries, (str(error),)
        if _fell_too_far(workbench, scores, workbench.score(entry.predictions)):
            return entries, (_max_drop_note(workbench, entries, entry),)
        entries.append(entry)
    return entries, ()


def train_sparse(workbench: Workbench) -> tuple[list[Entry], tuple[str, ...]]:
    """The sparse model that the recipe's phases give, after the dense teacher if one was trained."""
    notes = unused_targets(workbench.recipe)
    for note in notes:
        _say(note)
    sparse, dense = train_phases(workbench)
    entries = [] if dense is None else [_dense_entry(workbench, dense)]
    entry = Entry(sparse.folder.name, sparse.folder, sparse.model, workbench.predict(sparse.model), sparse=sparse)
    _say(f"{entry.name}: {_main(workbench, entry)}")
    return [*entries, entry], notes


def write_predictions(workbench: Workbench, entries: Sequence[Entry]) -> None:
    """Logits and labels of every model on every validation split, so that runs can be compared example by example."""
    tensors = {f"{split}/labels": workbench.labels(split) for split in workbench.validations}
    for entry in entries:
        tensors |= {f"{entry.name}/{split}/logits": logits for split, logits in entry.predictions.items()}
    write_bytes_atomically(workbench.folder / PREDICTIONS, save({k: v.copy(order="C") for k, v in tensors.items()}))


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


def measure_family(workbench: Workbench, entries: Sequence[Entry]) -> tuple[ModelResult, ...]:
    """Sizes, sparsities and interleaved times of all models together, against the dense model.

    A sparse training without a teacher has made none: it is timed against the model that it started from.
    """
    first = entries[0].sparse
    models = {"dense": first.start} if first else {}
    models |= {entry.name: entry.model for entry in entries}
    measure = workbench.recipe.measure
    if not measure.timed:
        return tuple(_result(workbench, entry, entries[0], ()) for entry in entries)
    with console.status("Measuring the family") as status:
        rows = bench(models, workbench.settings, rounds=measure.rounds, threads=measure.threads, progress=status.update)
        return tuple(_result(workbench, entry, entries[0], rows) for entry in entries)


def _member(workbench: Workbench, maker: FamilyMaker, target: Target) -> Entry:
    member, trained, folder = maker.make(target)
    model = load_model(folder, num_labels=len(workbench.spec.labels) or 1, kind=workbench.spec.kind)
    entry = Entry(target.label, folder, model, workbench.predict(model), member, trained.run)
    _say(f"{entry.name}: {_main(workbench, entry)}")
    return entry


def _dense_entry(workbench: Workbench, dense: Dense) -> Entry:
    folder, predictions = workbench.folder / "dense", workbench.predict(dense.model)
    entry = Entry("dense", folder, dense.model, predictions, training=dense.trained.run)
    _say(f"dense: {_main(workbench, entry)}")
    return entry


def _result(workbench: Workbench, entry: Entry, dense: Entry, rows: Iterable[BenchRow]) -> ModelResult:
    setting, member, sparse, grown = workbench.setting, entry.member, entry.sparse, entry.grown
    before_training = member or grown
    linear, baseline = encoder_linear_names(entry.model), sparse.start if sparse else dense.model
    known, everything = member or sparse, range(len(layout_of(baseline).layers))
    before = sparse.start_footprint if sparse else footprint(baseline, encoder_linear_names(baseline), dense.folder)
    after = footprint(entry.model, linear, entry.folder)
    return ModelResult(
        name=entry.name,
        folder=entry.folder.name,
        model_type=entry.model.config.model_type,
        target_kind=member.target.kind if member else None,
        target_value=member.target.value if member else None,
        shape=known.shape if known else shape_of(entry.model, everything, baseline),
        scores=workbench.score(entry.predictions),
        one_shot_scores=before_training.one_shot_scores if before_training and entry.training else (),
        sparsity=sparsity(before, after),
        size=sizes(entry.model, linear, (setting.batch, setting.length), after.bytes_on_disk),
        timings=tuple(timing for row in rows if row.model == entry.name for timing in row.timings),
        output_difference=member.output_difference if member else sparse.output_difference if sparse else None,
        training=entry.training,
        phases=sparse.phases if sparse else {},
        timeline=sparse.timeline if sparse else (),
        trees=grown.trees if grown else (),
        sparsity_by_tensor=sparse.sparsity_by_tensor if sparse else {},
    )


def _record(
    workbench: Workbench,
    command: str,
    started: float,
    models: tuple[ModelResult, ...],
    notes: tuple[str, ...],
    failure: str | None = None,
    failed_step: int | None = None,
) -> Record:
    recipe = workbench.recipe
    return Record(
        kind="train" if recipe.phases else "compress" if recipe.trees is None else "fff",
        status="failed" if failure else "finished",
        message=failure,
        failed_step=failed_step,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - started, 1),
        seed=recipe.seed,
        # Paths may hold bytes that are no letters.
        command=command.encode(errors="replace").decode(),
        recipe_hash=recipe.hash,
        recipe=recipe.plain(),
        environment=environment(),
        task=workbench.spec.name,
        main_metric=workbench.spec.main_metric,
        models=models,
        notes=(*workbench.notes, *notes),
    )


def _fell_too_far(workbench: Workbench, dense: Sequence[Score], scores: Sequence[Score]) -> bool:
    limit = workbench.recipe.max_drop
    if limit is None:
        return False
    before, after = _main_value(workbench, dense), _main_value(workbench, scores)
    return before is None or after is None or 100 * (before - after) > limit


def _max_drop_note(workbench: Workbench, entries: Sequence[Entry], failed: Entry) -> str:
    undefined = _main_value(workbench, workbench.score(failed.predictions)) is None
    why = f"has no {workbench.spec.main_metric}" if undefined else "lost more"
    return (
        f"{entries[-1].name} is the smallest model found that lost at most {workbench.recipe.max_drop:g} points; "
        f"{failed.name} {why}. It was chosen on the validation split that its score is of."
    )


def _main_value(workbench: Workbench, scores: Sequence[Score]) -> float | None:
    return next((score.value for score in scores if score.metric == workbench.spec.main_metric), None)


def _main(workbench: Workbench, entry: Entry) -> str:
    value = _main_value(workbench, workbench.score(entry.predictions))
    return f"{workbench.spec.main_metric} " + ("undefined" if value is None else f"{value:.4f}")


def _say(text: str) -> None:
    console.print(text, highlight=False)

"""`run(recipe, folder)`: one straight read from a recipe to a Record, a family of models and a report."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from safetensors.numpy import save
from transformers import PreTrainedModel

from sparsebert.counts import Footprint, footprint, sizes, sparsity
from sparsebert.environment import environment
from sparsebert.errors import DivergedError, UserError
from sparsebert.files import digests, remove_folder, write_bytes_atomically, write_text_atomically
from sparsebert.measurement.bench import BenchRow, bench
from sparsebert.models.layout import encoder_linear_names, layout_of
from sparsebert.models.source import disk_bytes
from sparsebert.progress import Steps, busy, line
from sparsebert.recipe.recipe import Recipe
from sparsebert.records import (
    PREDICTIONS,
    Inputs,
    ModelResult,
    Record,
    write_record,
)
from sparsebert.reports.card import model_card
from sparsebert.reports.page import write_report
from sparsebert.runs.cache import add_to_cache, shared_parts, take_from_cache
from sparsebert.runs.claim import claimed, finished, finished_record, mark_finished
from sparsebert.runs.compress import check_blocks, shape_of
from sparsebert.runs.context import RunContext, set_up
from sparsebert.runs.fff import layers_to_change
from sparsebert.runs.inputs import inputs_of
from sparsebert.runs.makers import Entry, count_steps, make_family, maker_of, wanted_targets
from sparsebert.runs.remarks import remarks
from sparsebert.runs.train import check_phases
from sparsebert.timing import torch_threads

CARD, REPORT = "README.md", "report.html"


def run(
    recipe: Recipe,
    folder: Path,
    command: str,
    cache: Path | None = None,
    *,
    restart: bool = False,
    keep_models: bool = True,
) -> Record:
    """Compress a model: dense baseline, one smaller model a target, measurement, record, report.

    A recipe with phases is a sparse training instead: its record has the sparse model, after the dense one where a
    teacher was trained. One with trees gives a model with fast feedforward layers, and its controls. Everything that
    is finished is kept in `folder` and found again when the same recipe runs there again on the same data and models;
    with other ones it is refused, unless `restart` lets it begin anew. A run that has finished is only read. `common`
    holds what other runs have made of the same dense model and teachers (see runs/cache.py). Without
    `keep_models` only record, predictions and report stay. Raises UserError for what the user can mend; once the
    folder is claimed, that also leaves a Record with `status: failed`, unless one that is finished is there.
    """
    started = time.perf_counter()
    compresses = maker_of(recipe) is make_family
    if compresses:
        wanted_targets(recipe)
    with busy("Reading the model and the data"):
        context = set_up(recipe, folder)
        check_phases(context)
        if compresses:
            check_blocks(context.fresh())
        if recipe.trees is not None:
            layers_to_change(recipe.trees, context.fresh())
        inputs = inputs_of(recipe, context.task)
    with claimed(folder, recipe, inputs, restart) as begun, torch_threads(begun.threads):
        if (record := finished(folder, recipe)) is not None:
            line("This run has finished before, and its models are as it left them; nothing is measured anew")
            if not (folder / REPORT).is_file():
                write_report([record], folder / REPORT, folder / "plots", runs=[folder])
            return record
        shared = [] if cache is None else shared_parts(recipe, begun)
        taken = [] if cache is None else take_from_cache(shared, folder, cache)
        notes = (*context.notes, *_notes_about(begun, inputs), *_taken_note(taken))
        context = replace(context, notes=notes, inputs=begun, steps=Steps(count_steps(context)))
        for note in notes:
            line(f"Note: {note}")
        try:
            return _finish(context, command, started, keep_models)
        finally:
            if cache is not None:
                add_to_cache(shared, folder, cache)


def _notes_about(begun: Inputs, now: Inputs) -> list[str]:
    notes = []
    if begun.threads != now.threads:
        notes.append(f"Computed with {begun.threads} threads, as it was begun; this process would take {now.threads}")
    if begun.cpu != now.cpu:
        notes.append(f"Begun on another processor ({begun.cpu}): what was found there is kept, times are of this one")
    return notes


def _taken_note(taken: Sequence[str]) -> list[str]:
    return [f"Made by another run of the sweep, with the same settings: {', '.join(taken)}"] if taken else []


def _finish(context: RunContext, command: str, started: float, keep_models: bool) -> Record:
    recipe, folder = context.recipe, context.folder
    try:
        entries, notes = maker_of(recipe)(context)
        context.steps.begin("Measuring all models together")
        models = measure_family(context, entries)
        notes = (*notes, *remarks(context, models))
        write_predictions(context, entries)
    except UserError as error:
        step = error.step if isinstance(error, DivergedError) else None
        failed = _record(context, command, started, (), (), failure=str(error), failed_step=step)
        if finished_record(folder) is None:
            write_record(failed, folder)
        raise
    context.steps.begin("Writing the report")
    record = _record(context, command, started, models, notes)
    if not keep_models:
        _remove_models(folder, record)
    for result in models if keep_models else ():
        write_text_atomically(folder / result.folder / CARD, model_card(record, result.name))
    write_report([record], folder / REPORT, folder / "plots", runs=[folder])
    write_record(record, folder)
    mark_finished(folder)
    return record


def _remove_models(folder: Path, record: Record) -> None:
    for name in (*(model.folder for model in record.models), "work"):
        remove_folder(folder / name)


def write_predictions(context: RunContext, entries: Sequence[Entry]) -> None:
    """Logits and labels of every model on every validation split, so that runs can be compared example by example."""
    tensors = {f"{split}/labels": context.labels(split) for split in context.validations}
    for entry in entries:
        tensors |= {f"{entry.name}/{split}/logits": logits for split, logits in entry.predictions.items()}
    write_bytes_atomically(context.folder / PREDICTIONS, save({k: v.copy(order="C") for k, v in tensors.items()}))


def measure_family(context: RunContext, entries: Sequence[Entry]) -> tuple[ModelResult, ...]:
    """Sizes, sparsities and interleaved times of all models together, against the dense model.

    A sparse training without a teacher has made none: it is timed against the model that it started from.
    """
    first = entries[0].sparse
    models = {"dense": first.start} if first else {}
    models |= {entry.name: entry.model for entry in entries}
    measure = context.recipe.measure
    if not measure.timed:
        return tuple(_result(context, entry, entries[0], ()) for entry in entries)
    with busy("Measuring the family") as update:
        runtimes = list(dict.fromkeys(["eager", measure.runtime]))
        rows = bench(
            models, context.settings, runtimes, rounds=measure.rounds, threads=measure.threads, progress=update
        )
        return tuple(_result(context, entry, entries[0], rows) for entry in entries)


def _result(context: RunContext, entry: Entry, dense: Entry, rows: Iterable[BenchRow]) -> ModelResult:
    setting, member, sparse, converted = context.setting, entry.member, entry.sparse, entry.converted
    before_training = member or converted
    compared = None if entry is dense else dense.predictions
    linear, baseline = encoder_linear_names(entry.model), sparse.start if sparse else dense.model
    known, everything = member or sparse, range(len(layout_of(baseline).layers))
    before = sparse.start_footprint if sparse else _footprint(baseline, dense.folder)
    after = _footprint(entry.model, entry.folder)
    return ModelResult(
        name=entry.name,
        folder=entry.folder.name,
        model_type=entry.model.config.model_type,
        target_kind=member.target.kind if member else None,
        target_value=member.target.value if member else None,
        shape=known.shape if known else shape_of(entry.model, everything, baseline),
        scores=context.score(entry.predictions, compared),
        decisions=context.decide(entry.predictions, compared),
        one_shot_scores=before_training.one_shot_scores if before_training and entry.training else (),
        sparsity=sparsity(before, after),
        size=sizes(entry.model, linear, (setting.batch, setting.length), after.bytes_on_disk),
        files={name: known for name, known in digests([entry.folder], entry.folder).items() if name != CARD},
        timings=tuple(timing for row in rows if row.model == entry.name for timing in row.timings),
        output_difference=member.output_difference if member else sparse.output_difference if sparse else None,
        training=entry.training,
        phases=sparse.phases if sparse else {},
        timeline=sparse.timeline if sparse else (),
        trees=converted.trees if converted else (),
        sparsity_by_tensor=sparse.sparsity_by_tensor if sparse else {},
    )


def _footprint(model: PreTrainedModel, folder: Path) -> Footprint:
    return footprint(model, encoder_linear_names(model), disk_bytes(folder))


def _record(
    context: RunContext,
    command: str,
    started: float,
    models: tuple[ModelResult, ...],
    notes: tuple[str, ...],
    failure: str | None = None,
    failed_step: int | None = None,
) -> Record:
    recipe = context.recipe
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
        inputs=context.inputs,
        task=context.spec.name,
        main_metric=context.spec.main_metric,
        models=models,
        notes=(*context.notes, *notes),
    )

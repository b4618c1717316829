"""`run(recipe, folder)`: one straight read from a recipe to a Record, models and a report."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from transformers import TrainerCallback

from sparsebert import registry
from sparsebert.environment import WORLD_SIZE, environment, launched
from sparsebert.errors import DivergedError, UserError
from sparsebert.files import remove_folder, write_text_atomically
from sparsebert.progress import Steps, busy, line
from sparsebert.recipe.base import Recipe
from sparsebert.records import Inputs, ModelResult, Record, write_record
from sparsebert.reports.card import model_card
from sparsebert.reports.page import write_report
from sparsebert.runs.cache import add_to_cache, given_before, one_maker, shared_parts, take_from_cache
from sparsebert.runs.carried_heads import carry_heads
from sparsebert.runs.claim import claimed, finished, finished_record, mark_finished
from sparsebert.runs.context import RunContext
from sparsebert.runs.inputs import differences
from sparsebert.runs.remarks import remarks
from sparsebert.runs.results import CARD, measure_models, write_predictions
from sparsebert.runs.run_type import Made, RunType
from sparsebert.timing import torch_threads
from sparsebert.training.loggers import loggers
from sparsebert.training.together import team_size

REPORT = "report.html"
LAST_STEPS = ("Measuring all models together", "Writing the report")


def run(
    recipe: Recipe,
    folder: Path,
    command: str,
    cache: Path | None = None,
    *,
    restart: bool = False,
    keep_models: bool = True,
    callbacks: Sequence[TrainerCallback] = (),
    report_to: Sequence[str] = (),
    notes: Sequence[str] = (),
    expected: Inputs | None = None,
) -> Record:
    """Carry out a recipe: check it, make its models, measure them together, write record, cards and report.

    Everything that is finished is kept in `folder` and found again when the same recipe runs there again on the same
    data and models; with other ones it is refused, unless `restart` lets it begin anew. A run that has finished is only
    read. `cache` holds what other runs have made of the same dense model and teachers (see runs/cache.py). Without
    `keep_models` only record, predictions and report stay. `callbacks` are the user's own, of every training,
    which is also logged to `report_to` (registered loggers); `notes` go into the record. Raises UserError for what the
    user can mend, also where the data and models here are not those that are `expected`; once the folder is claimed,
    that also leaves a Record with `status: failed`, unless one that is finished is there.
    """
    started = time.perf_counter()
    _refuse_strangers()
    loggers(report_to)
    run_type: RunType = registry.get("run_type", recipe.kind)()
    with busy("Reading the model and the data"):
        context = run_type.set_up(recipe, folder, callbacks)
        steps = run_type.check(context) + len(LAST_STEPS)
        inputs = run_type.inputs(recipe, context.task)
        if expected is not None:
            _check_same(expected, inputs)
    with claimed(folder, recipe, inputs, restart) as begun, torch_threads(begun.threads):
        if (record := finished(folder, recipe)) is not None:
            line("This run has finished before, and its models are as it left them; nothing is measured anew")
            if not (folder / REPORT).is_file():
                write_report([record], folder / REPORT, folder / "plots", runs=[folder])
            return record
        shared = [] if cache is None else shared_parts(recipe, begun)
        taken = [] if cache is None else take_from_cache(shared, folder, cache)
        told = (*context.notes, *_notes_about(begun, inputs), *notes)
        for note in (*told, *_taken_note(taken)):
            line(f"Note: {note}")
        share = nullcontext if cache is None else partial(one_maker, shared[0], folder, cache)
        context = replace(
            context, notes=told, inputs=begun, steps=Steps(steps), share=share, report_to=tuple(report_to)
        )
        try:
            return _finish(run_type, context, command, started, keep_models)
        finally:
            if cache is not None:
                add_to_cache(shared, folder, cache)


def _refuse_strangers() -> None:
    """Raises UserError where a launcher started several processes that do not work as one, as those of the command."""
    if launched() > team_size():
        raise UserError(
            f"A run works in one process, and {launched()} were started for it ({WORLD_SIZE})",
            fix="start the command so (torchrun -m sparsebert …), a script of your own with SparseTrainer, or spread "
            "runs with `sparsebert sweep --on`",
        )


def _check_same(expected: Inputs, found: Inputs) -> None:
    if different := differences(expected, found):
        raise UserError(
            f"{platform.node()} has something else than the machine that gives out the runs; "
            f"different: {'; '.join(different)}",
            fix="let both see the same files, and install the same packages",
        )


def _notes_about(begun: Inputs, now: Inputs) -> list[str]:
    notes = []
    if begun.threads != now.threads:
        notes.append(f"Computed with {begun.threads} threads, as it was begun; this process would take {now.threads}")
    if begun.cpu != now.cpu:
        notes.append(f"Begun on another processor ({begun.cpu}): what was found there is kept, times are of this one")
    return notes


def _taken_note(taken: Sequence[str]) -> list[str]:
    return [f"Made by another run of the sweep, with the same settings: {', '.join(taken)}"] if taken else []


def _finish(run_type: RunType, context: RunContext, command: str, started: float, keep_models: bool) -> Record:
    folder = context.folder
    try:
        made = run_type.make(context)
        _check_made(made, recipe_kind=context.recipe.kind)
        context.steps.begin(LAST_STEPS[0])
        carried = carry_heads(context, made.entries)
        models = measure_models(context, made)
        notes = (*made.notes, *carried, *remarks(context, models), *run_type.conclude(context, models))
        write_predictions(context, made.entries)
    except UserError as error:
        step = error.step if isinstance(error, DivergedError) else None
        failed = _record(context, command, started, (), (), failure=str(error), failed_step=step)
        if finished_record(folder) is None:
            write_record(failed, folder)
        raise
    context.steps.begin(LAST_STEPS[1])
    record = _record(context, command, started, models, notes)
    if not keep_models:
        _remove_models(folder, record)
    for result in models if keep_models else ():
        write_text_atomically(folder / result.folder / CARD, model_card(record, result.name))
    write_report([record], folder / REPORT, folder / "plots", runs=[folder])
    write_record(record, folder)
    mark_finished(folder)
    return record


def _check_made(made: Made, recipe_kind: str) -> None:
    """Raises UserError for models that a record cannot hold: none, or two under one name or in one folder."""
    if not made.entries:
        raise UserError(f"The run type '{recipe_kind}' made no models", fix="give at least one entry")
    for each in ([entry.name for entry in made.entries], [entry.folder.name for entry in made.entries]):
        if len(set(each)) < len(each):
            raise UserError(f"The run type '{recipe_kind}' made two models of one name or folder", got=", ".join(each))


def _remove_models(folder: Path, record: Record) -> None:
    for name in (*(model.folder for model in record.models), "work"):
        remove_folder(folder / name)


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
        kind=recipe.kind,
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
        notes=(*context.notes, *_taken_note(given_before(context.folder)), *notes),
    )

"""What else is known of each model: its training, phase by phase, and the check of its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsebert.records import NOT_HERE, ModelResult, Record, TrainingRun
from sparsebert.reports import values as v
from sparsebert.reports.families import Family
from sparsebert.reports.methods import duration
from sparsebert.reports.tables import Cell, Section, Table

_COLUMNS = (
    Cell("Model"),
    Cell("Training", "steps"),
    Cell("Epochs"),
    Cell("Examples"),
    Cell("Time"),
    Cell("Final loss"),
    Cell("Precision"),
    Cell("Teacher"),
    Cell("Output difference"),
    Cell("Energy", "kWh"),
)


@dataclass(frozen=True)
class Stretch:
    """One training of a model: its phase and its teacher in words, both empty where there is none."""

    phase: str
    teacher: str
    run: TrainingRun


def stretches(record: Record, model: ModelResult) -> list[Stretch]:
    """The trainings of a model in their order: one, those of its phases, or none."""
    alone = [] if model.training is None else [Stretch("", _teacher("dense", model.training), model.training)]
    teachers = {phase["name"]: phase.get("teacher") for phase in record.recipe.get("phases") or ()}
    return alone + [Stretch(name, _teacher(teachers[name], run), run) for name, run in model.phases.items()]


def detail_table(groups: Sequence[Family]) -> Table:
    """Trainings and checks of each model; of several seeds, the first run's."""
    runs = [one.run for family in groups for name in family.names for one in stretches(*family.runs(name)[0])]
    columns = _COLUMNS if any(run.energy_kwh is not None for run in runs) else _COLUMNS[:-1]
    sections = [
        Section(
            f"{family.label} · seed {family.first.seed}" if len(groups) > 1 or len(family.records) > 1 else "",
            tuple(row[: len(columns)] for name in family.names for row in _rows(*family.runs(name)[0])),
        )
        for family in groups
    ]
    return Table("Training and checks", columns, tuple(sections), _energy_notes(runs))


def _energy_notes(runs: Sequence[TrainingRun]) -> tuple[str, ...]:
    """By which counters energies are, and the reasons why there are none."""
    notes = [f"Energy: {run.energy_source}." for run in runs if run.energy_source]
    notes += [f"Energy: {NOT_HERE}: {run.energy_missing}." for run in runs if run.energy_missing]
    return tuple(dict.fromkeys(notes))


def _teacher(name: str | None, run: TrainingRun) -> str:
    if not run.teacher:
        return ""
    return "the dense model" if name == "dense" else str(name)


def _rows(record: Record, model: ModelResult) -> list[tuple[Cell, ...]]:
    """A row a training; the check is of the finished model, so it stands in the last one."""
    done = stretches(record, model)
    if not done:
        return [(Cell(model.name), *(Cell(v.DASH),) * 7, _difference(model), Cell(v.DASH))]
    checks = [Cell(v.DASH)] * (len(done) - 1) + [_difference(model)]
    return [
        (Cell(model.name, one.phase and f"phase {one.phase}"), *_training(one), check, _energy(one.run))
        for one, check in zip(done, checks, strict=True)
    ]


def _energy(run: TrainingRun) -> Cell:
    return Cell(v.show(v.exact(run.energy_kwh), v.digits))


def _difference(model: ModelResult) -> Cell:
    return Cell(v.DASH if model.output_difference is None else f"{model.output_difference:.1e}")


def _training(done: Stretch) -> tuple[Cell, ...]:
    run = done.run
    texts = (
        f"{run.steps:,}",
        f"{run.epochs:g}",
        f"{run.examples:,}",
        duration(run.seconds),
        v.DASH if run.final_loss is None else f"{run.final_loss:.4g}",
        run.dtype,
        done.teacher.removeprefix("the ") or "none",
    )
    return tuple(map(Cell, texts))

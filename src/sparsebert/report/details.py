"""What else is known of each model: training, memory, the check of its outputs, notes."""

from __future__ import annotations

from collections.abc import Sequence

from sparsebert.records import ModelResult
from sparsebert.report import values as v
from sparsebert.report.families import Family
from sparsebert.report.methods import duration
from sparsebert.report.tables import Cell, Section, Table

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
    Cell("Peak memory", "MB"),
)


def detail_table(groups: Sequence[Family]) -> Table:
    """Training and checks of each model; of several seeds, the first run's."""
    sections = [
        Section(
            f"{family.label} · seed {family.first.seed}" if len(groups) > 1 or len(family.records) > 1 else "",
            tuple(_cells(family.runs(name)[0][1]) for name in family.names),
        )
        for family in groups
    ]
    return Table("Training and checks", _COLUMNS, tuple(sections))


def _cells(model: ModelResult) -> tuple[Cell, ...]:
    difference = v.DASH if model.output_difference is None else f"{model.output_difference:.1e}"
    memory = v.DASH if model.peak_memory_mb is None else f"{model.peak_memory_mb:,.0f}"
    return (Cell(model.name), *_training(model), Cell(difference), Cell(memory))


def _training(model: ModelResult) -> tuple[Cell, ...]:
    done = model.training
    if done is None:
        return (Cell(v.DASH),) * 7
    texts = (
        f"{done.steps:,}",
        f"{done.epochs:g}",
        f"{done.examples:,}",
        duration(done.seconds),
        v.DASH if done.final_loss is None else f"{done.final_loss:.4g}",
        done.dtype,
        "dense model" if done.teacher else "none",
    )
    return tuple(map(Cell, texts))

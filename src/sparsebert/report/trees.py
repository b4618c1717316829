"""Fast feedforward layers: how near each came to its block, and what tokens do in its trees."""

from __future__ import annotations

from collections.abc import Sequence

from sparsebert.records import Record, TreeFit
from sparsebert.report import values as v
from sparsebert.report.tables import Cell, Section, Table

_COLUMNS = (
    Cell("Layer"),
    Cell("Trees"),
    Cell("Error", "of the block's variance"),
    Cell("Unused", "of the nodes"),
    Cell("Evenness", "of the leaves"),
    Cell("Neighbours", "at the same leaf"),
    Cell("By chance"),
)


def tree_table(records: Sequence[Record]) -> Table:
    """One section a model that has trees; leaves are the nodes of the deepest level."""
    sections = [
        Section(
            model.name if len(records) == 1 else f"{model.name} · seed {record.seed}", tuple(map(_cells, model.trees))
        )
        for record in records
        for model in record.models
        if model.trees
    ]
    return Table("Fast feedforward layers", _COLUMNS, tuple(sections))


def _cells(fit: TreeFit) -> tuple[Cell, ...]:
    last = [values[-1] if values else None for values in (fit.agreement, fit.chance)]
    return (
        Cell(str(fit.layer + 1)),
        Cell(fit.name),
        Cell(f"{fit.error:.3f}"),
        Cell(f"{100 * fit.dead:.1f} %"),
        Cell(f"{fit.entropy[-1]:.2f}"),
        *(Cell(v.DASH if value is None else f"{100 * value:.1f} %") for value in last),
    )

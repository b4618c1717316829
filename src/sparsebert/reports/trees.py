"""Fast feedforward layers: how near each came to its block, and what tokens do in its trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sparsebert.records import Record, TreeFit
from sparsebert.reports import values as v
from sparsebert.reports.tables import Cell, Section, Table

_COLUMNS = (
    Cell("Layer"),
    Cell("Trees"),
    Cell("Error", "of the block's variance"),
    Cell("Unused", "of the nodes"),
    Cell("Dead subtrees", "of a tree"),
    Cell("Evenness", "of the leaves"),
    Cell("Neighbours", "at the same leaf"),
    Cell("By chance"),
)


_MEASURES: tuple[tuple[str, Callable[[TreeFit], tuple[float, ...]], Callable[[float], str]], ...] = (
    ("dead subtrees of a tree, by the level of their root", lambda fit: fit.dead_subtrees, lambda one: _count(one)),
    ("evenness", lambda fit: fit.entropy, lambda one: f"{one:.2f}"),
    ("neighbours at the same node", lambda fit: fit.agreement, lambda one: _percent(one)),
    ("the same by chance", lambda fit: fit.chance, lambda one: _percent(one)),
)


def tree_table(records: Sequence[Record]) -> Table:
    """One section a model that has trees; leaves are the nodes of the deepest level."""
    sections = [Section(name, tuple(map(_cells, fits))) for name, fits in _with_trees(records)]
    return Table("Fast feedforward layers", _COLUMNS, tuple(sections))


def level_table(records: Sequence[Record]) -> Table:
    """One section a measure of a model that has trees, one column a level, the root's first."""
    models = _with_trees(records)
    levels = max((len(fit.entropy) for _, fits in models for fit in fits), default=0)
    sections = [
        Section(f"{name}: {measure}", tuple(_level_cells(fit.layer, list(map(show, of(fit))), levels) for fit in fits))
        for name, fits in models
        for measure, of, show in _MEASURES
        if any(of(fit) for fit in fits)
    ]
    columns = (Cell("Layer"), *(Cell(f"Level {level}") for level in range(1, levels + 1)))
    return Table("Level by level", columns, tuple(sections))


def _with_trees(records: Sequence[Record]) -> list[tuple[str, tuple[TreeFit, ...]]]:
    return [
        (model.name if len(records) == 1 else f"{model.name} · seed {record.seed}", model.trees)
        for record in records
        for model in record.models
        if model.trees
    ]


def _level_cells(layer: int, shown: list[str], levels: int) -> tuple[Cell, ...]:
    return (Cell(str(layer + 1)), *(Cell(text) for text in shown + [v.DASH] * (levels - len(shown))))


def _count(number: float) -> str:
    """A mean of counts, whole where it is."""
    return f"{number:,.1f}".removesuffix(".0")


def _percent(part: float) -> str:
    return v.fraction(part)


def _cells(fit: TreeFit) -> tuple[Cell, ...]:
    last = [values[-1] if values else None for values in (fit.agreement, fit.chance)]
    return (
        Cell(str(fit.layer + 1)),
        Cell(fit.name),
        Cell(f"{fit.error:.3f}"),
        Cell(_percent(fit.dead)),
        Cell(_count(sum(fit.dead_subtrees)) if fit.dead_subtrees else v.DASH),
        Cell(f"{fit.entropy[-1]:.2f}"),
        *(Cell(v.DASH if value is None else _percent(value)) for value in last),
    )

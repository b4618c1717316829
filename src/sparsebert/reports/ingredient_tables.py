"""Arms as tables: what each ingredient costs and gains, and what is left of heads and neurons, layer by layer."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from sparsebert.records import Shape
from sparsebert.reports import values as v
from sparsebert.reports.families import Family
from sparsebert.reports.ingredients import MEGA, Arm
from sparsebert.reports.rows import family_rows
from sparsebert.reports.tables import Cell, Section, Table, metric_name, runs_text, score_notes, times_cell

_WORTH = (
    "Worth: points more than the base, which is the recipe that the others differ least from. Cost: points lost for "
    "each 10% of the encoder's linear weights removed; what costs least is most prunable."
)
_RANGES = "Ranges: minimum–maximum over seeds, each against the same seed; of one run 95% intervals where recorded."
# How far a sparsity may be from the target before it is said.
_OFF = 0.02


def ingredient_table(found: Sequence[Arm], ranges: str = _RANGES) -> Table:
    """The dense model of the base, then a row an arm, the base first: sizes, speed, memory, score, change, worth, cost.

    `ranges` says what the ranges beside change and worth are.
    """
    metrics = dict.fromkeys(metric_name(arm.row.metric) for arm in found if arm.row.metric)
    columns = (
        Cell("Recipe", "differs from the base in"),
        Cell("Sparsity", "encoder"),
        Cell("Parameters", "all; encoder"),
        Cell("Weights", "in memory"),
        Cell("Speedup", "model"),
        Cell(", ".join(metrics) or "Score"),
        Cell("Change", "from dense"),
        Cell("Worth", "against base"),
        Cell("Cost", "points per 10%"),
    )
    notes = (_WORTH, ranges, *score_notes([arm.row for arm in found]), *_missed(found))
    return Table("Ingredients", columns, (Section("", (_dense_cells(found[0].family), *map(_cells, found))),), notes)


def component_table(found: Sequence[Arm]) -> Table | None:
    """Heads, and below them neurons, left in each layer of the dense model; None where nothing was cut."""
    cut = [arm for arm in found if _is_cut(arm)]
    if not cut:
        return None
    layers = max(len(_shapes(arm)[0].heads) for arm in cut)
    columns = (Cell("Recipe"), Cell("All layers"), *(Cell(f"Layer {number}") for number in range(1, layers + 1)))
    rows = tuple((Cell(arm.label, runs_text(arm.family)), *_left(_shapes(arm), layers)) for arm in cut)
    note = "Heads left, below them neurons left, in per cent of the dense model's; medians over seeds."
    return Table("What is left of heads and neurons", columns, (Section("", rows),), (note,))


def _dense_cells(family: Family) -> tuple[Cell, ...]:
    row = next(row for row in family_rows([family]) if row.dense)
    size = family.runs(row.name)[0][1].size
    return (
        Cell(row.name, f"of the base; n = {row.runs}"),
        Cell(v.DASH),
        Cell(v.show(row.parameters, v.count), v.count(size.encoder_linear_parameters)),
        Cell(v.megabytes(size.weight_bytes / MEGA)),
        times_cell(row.model_speedup),
        _cell(row.score_points, v.percent),
        *(Cell(v.DASH),) * 3,
    )


def _cells(arm: Arm) -> tuple[Cell, ...]:
    row = arm.row
    told = "; ".join(arm.settings) if arm.settings else "the base"
    return (
        Cell(arm.label, f"{told}; n = {row.runs}"),
        _cell(row.encoder_sparsity, v.fraction),
        Cell(v.show(row.parameters, v.count), v.show(arm.encoder_parameters, v.count)),
        _cell(arm.weights_mb, v.megabytes),
        times_cell(row.model_speedup),
        _cell(row.score_points, v.percent),
        _cell(arm.change, v.signed),
        _cell(arm.worth, v.signed),
        _cell(arm.cost, v.signed),
    )


def _cell(value: v.Value | None, form: Callable[[float], str]) -> Cell:
    return Cell(v.show(value, form), v.show_spread(value, form))


def _missed(found: Sequence[Arm]) -> list[str]:
    """Arms whose sparsity is not the base's: their worth is of another size too."""
    base = found[0].row.encoder_sparsity
    off = [arm for arm in found if base and (own := arm.row.encoder_sparsity) and abs(own.mid - base.mid) > _OFF]
    if not off:
        return []
    names = ", ".join(arm.label for arm in off)
    return [f"Of another sparsity than the base, so that worth is of the size too, and cost compares: {names}."]


def _shapes(arm: Arm) -> list[Shape]:
    return [record.models[-1].shape for record in arm.family.records]


def _is_cut(arm: Arm) -> bool:
    shape = _shapes(arm)[0]
    return {*shape.heads} != {shape.full_heads} or {*shape.neurons} != {shape.full_neurons}


def _left(shapes: Sequence[Shape], layers: int) -> list[Cell]:
    def share(kept: Callable[[Shape], int], full: Callable[[Shape], int]) -> str:
        parts = [kept(shape) / full(shape) for shape in shapes if full(shape)]
        return v.percent(100 * statistics.median(parts)) if parts else v.DASH

    cells = [
        Cell(
            share(lambda s: sum(s.heads), lambda s: s.full_heads * len(s.heads)),
            share(lambda s: sum(s.neurons), lambda s: s.full_neurons * len(s.neurons)),
        )
    ]
    for layer in range(layers):
        heads = share(lambda s, at=layer: s.heads[at], lambda s: s.full_heads)
        cells.append(Cell(heads, share(lambda s, at=layer: s.neurons[at], lambda s: s.full_neurons)))
    return cells

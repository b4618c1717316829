"""Curves of a sweep: score against sparsity, the median over seeds with its spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsebert.records import ModelResult, Record
from sparsebert.reports import values as v
from sparsebert.reports.families import Family, families, main_score
from sparsebert.reports.rows import family_rows, score_in_points
from sparsebert.reports.tables import Cell, Section, Table, metric_name, score_notes
from sparsebert.reports.theme import LIGHT, MARKERS, Theme, legend_above, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import ErrorbarContainer
    from matplotlib.figure import Figure

_APART = ("seed", "sparsity")


@dataclass(frozen=True)
class CurvePoint:
    """One sparsity asked for: what came out in the encoder's linear weights (0-1), the score (0-100), and the runs.

    `empty_runs` are those whose score is not above what a constant answer would give.
    """

    asked: float
    sparsity: v.Value
    score: v.Value
    records: tuple[Record, ...]
    empty_runs: int


@dataclass(frozen=True)
class Curve:
    """One recipe over several sparsities."""

    label: str
    metric: str
    points: tuple[CurvePoint, ...]


def curves(records: Sequence[Record]) -> list[Curve]:
    """One curve a recipe that was trained at two sparsities or more."""
    trained = [record for record in records if record.kind == "train" and record.recipe.get("sparsity") is not None]
    found = [_curve(family) for family in families(trained, _APART)]
    return [curve for curve in found if len(curve.points) > 1]


def curve_table(found: Sequence[Curve]) -> Table:
    """A row a recipe, a column a sparsity: median score, and minimum to maximum over seeds."""
    asked = sorted({point.asked for curve in found for point in curve.points})
    rows = []
    for curve in found:
        cells = {point.asked: point for point in curve.points}
        rows.append((Cell(curve.label), *(_cell(cells.get(one)) for one in asked)))
    metrics = ", ".join(dict.fromkeys(metric_name(curve.metric) for curve in found))
    columns = (Cell("Recipe", metrics), *(Cell(v.fraction(one), "asked") for one in asked))
    note = "Median over seeds; below it its range, the sparsity reached where it is not the one asked, and n."
    behind = [record for curve in found for point in curve.points for record in point.records]
    notes = [note, *score_notes(family_rows(families(behind)))]
    if any(point.empty_runs for curve in found for point in curve.points):
        notes.append("Chance level: no better than that constant answer.")
    return Table("Score by sparsity", columns, (Section("", tuple(rows)),), tuple(notes))


def curve_plot(found: Sequence[Curve], theme: Theme = LIGHT) -> Figure | None:
    """Score against sparsity reached, one colour a recipe, with bars; None without curves.

    Bars are the 95 % interval of one run where it is recorded, and minimum to maximum of several. A line joins the
    points of a recipe only where each is the median of several runs: through single runs it would draw their noise.
    """
    if not found:
        return None
    with styled(theme):
        figure = new_figure(6.0, 4.2)
        axes = figure.add_subplot()
        entries = [(curve.label, _draw(axes, curve, index, theme)) for index, curve in enumerate(found)]
        axes.set_xlabel("Zeros in the encoder's linear weights, %")
        metrics = dict.fromkeys(metric_name(curve.metric) for curve in found)
        axes.set_ylabel(f"{', '.join(metrics)}, %")
        axes.grid(True)
        axes.tick_params(length=0)
        if len(found) > 1:
            legend_above(figure, axes, entries)
        return figure


def outside(groups: Sequence[Family], found: Sequence[Curve]) -> list[Family]:
    """The families whose first run is behind no point of a curve."""
    inside = {id(record) for curve in found for point in curve.points for record in point.records}
    return [family for family in groups if id(family.first) not in inside]


def _draw(axes: Axes, curve: Curve, index: int, theme: Theme) -> ErrorbarContainer:
    again, colour = divmod(index, len(theme.series))
    scores = [point.score for point in curve.points]
    return axes.errorbar(
        [100 * point.sparsity.mid for point in curve.points],
        [score.mid for score in scores],
        yerr=[[score.reach[side] for score in scores] for side in (0, 1)],
        color=theme.series[colour],
        marker=MARKERS[(index + again) % len(MARKERS)],
        linestyle=("-", "--", ":")[again % 3] if all(score.runs > 1 for score in scores) else "none",
        markeredgecolor=theme.paper,
        linewidth=1,
        elinewidth=1.2,
        capsize=2.5,
    )


def _curve(family: Family) -> Curve:
    by_asked: dict[float, list[tuple[Record, ModelResult]]] = {}
    for record in family.records:
        by_asked.setdefault(float(record.recipe["sparsity"]), []).append((record, record.models[-1]))
    points = [_point(asked, runs) for asked, runs in sorted(by_asked.items())]
    return Curve(family.label, str(family.first.main_metric), tuple(point for point in points if point is not None))


def _point(asked: float, runs: Sequence[tuple[Record, ModelResult]]) -> CurvePoint | None:
    scores = [main_score(record, model.scores) for record, model in runs]
    score = v.over_runs(score_in_points(one) for one in scores if one is not None)
    sparsity = v.over_runs(v.Value(model.sparsity.encoder_linear) for _, model in runs)
    if score is None or sparsity is None:
        return None
    empty = sum(one is not None and one.above_baseline is False for one in scores)
    return CurvePoint(asked, sparsity, score, tuple(record for record, _ in runs), empty)


def _cell(point: CurvePoint | None) -> Cell:
    if point is None:
        return Cell(v.DASH)
    reached = "" if abs(point.sparsity.mid - point.asked) < 0.005 else f"at {v.fraction(point.sparsity.mid)}"
    empty = f"chance level in {point.empty_runs}" if point.empty_runs else ""
    small = (v.show_spread(point.score, v.percent), reached, f"n = {point.score.runs}", empty)
    return Cell(v.percent(point.score.mid), "; ".join(filter(None, small)))

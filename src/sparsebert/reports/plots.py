"""Score against measured speedup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from sparsebert.reports import values as v
from sparsebert.reports.families import Family
from sparsebert.reports.rows import FamilyRow, family_rows
from sparsebert.reports.tables import constant_guess, metric_name
from sparsebert.reports.theme import LIGHT, MARKERS, Theme, legend_above, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import ErrorbarContainer
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

# Where a point's label goes, in points from it, with the side that it starts from: the first place that is free.
_Offset = tuple[float, float, str, str]
_BELOW: list[_Offset] = [(-7, -8, "right", "top"), (7, -8, "left", "top")]
_ABOVE: list[_Offset] = [(7, 6, "left", "bottom"), (-7, 6, "right", "bottom")]
_FURTHER: list[_Offset] = [(0, sign * away, "center", "center") for away in range(26, 120, 13) for sign in (-1, 1)]
TimingScope = Literal["model", "encoder"]
_FINE_TICKS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)


@dataclass(frozen=True)
class _Point:
    row: FamilyRow
    x: v.Value
    y: v.Value

    @property
    def change(self) -> v.Value | None:
        """Of the score, in points; the dense model is what changes are counted from."""
        return _exactly(0.0) if self.row.dense else self.row.change_points


def pareto_plot(groups: Sequence[Family], theme: Theme = LIGHT) -> Figure | None:
    """Score against the measured speedup of the whole model, or of the encoder where nothing else was measured.

    None where no model has both numbers. The dense model is a point at 1x, and a dashed line at its score where there
    is one; so is the score of always giving the majority class, where that is in view. Bars are as in FamilyRow. A line
    joins neighbours on the Pareto front of a `compress` family that differ by more than chance (see _segments).
    """
    rows, scope = family_rows(groups), speed_scope(groups)
    lines = [_points([row for row in rows if row.family == family.label], scope) for family in groups]
    shown = [(family.label, line) for family, line in zip(groups, lines, strict=True) if line]
    if all(point.row.dense for _, line in shown for point in line):
        return None
    compressed = {family.label for family in groups if family.first.kind == "compress"}
    with styled(theme):
        figure = new_figure(6.0, 4.0)
        axes = figure.add_subplot()
        entries = [(label, _draw_points(axes, line, index, theme)) for index, (label, line) in enumerate(shown)]
        for index, (label, line) in enumerate(shown):
            _join(axes, _segments(line) if label in compressed else [], theme.series[index % len(theme.series)])
        levels = _dense_lines(axes, shown, theme)
        _speed_axis(axes, [point.x for _, line in shown for point in line], scope)
        _score_axis(axes, [line for _, line in shown])
        _baseline(axes, [point.row for _, line in shown for point in line], theme)
        if len(shown) > 1:
            legend_above(figure, axes, entries)
        figure.draw_without_rendering()
        _label_points(axes, [line for _, line in shown], levels, theme)
        return figure


def speed_scope(groups: Sequence[Family]) -> TimingScope:
    """Whose speedup is shown: the whole model's, if it was measured of any that is not dense."""
    rows = [row for row in family_rows(groups) if not row.dense]
    encoder_only = all(row.model_speedup is None for row in rows) and any(row.encoder_speedup for row in rows)
    return "encoder" if encoder_only else "model"


def _front(line: Sequence[_Point]) -> list[_Point]:
    """The points, slowest first, that no other one matches in both speed and score while it beats them in one."""

    def beaten(point: _Point) -> bool:
        return any(
            other.x.mid >= point.x.mid
            and other.y.mid >= point.y.mid
            and (other.x.mid, other.y.mid) != (point.x.mid, point.y.mid)
            for other in line
        )

    return [point for point in line if not beaten(point)]


def _segments(line: Sequence[_Point]) -> list[tuple[_Point, _Point]]:
    """Neighbours on the front of which the faster one is surely faster and surely scores less.

    Scores are compared by their change from the same dense model: paired by example, its interval is the narrower one.
    Overlapping intervals, or none, mean that the slope between the two may be chance, and then no line is drawn.
    """
    return [
        (slower, faster)
        for slower, faster in pairwise(_front(line))
        if v.surely_apart(slower.x, faster.x) and v.surely_apart(slower.change, faster.change)
    ]


def _points(rows: Sequence[FamilyRow], scope: TimingScope) -> list[_Point]:
    points = []
    for row in rows:
        measured = row.model_speedup if scope == "model" else row.encoder_speedup
        speed = _exactly(1.0) if row.dense else measured
        if speed is not None and row.score_points is not None:
            points.append(_Point(row, speed, row.score_points))
    return sorted(points, key=lambda point: point.x.mid)


def _exactly(number: float) -> v.Value:
    return v.Value(number, number, number)


def _join(axes: Axes, segments: Sequence[tuple[_Point, _Point]], colour: str) -> None:
    for ends in segments:
        axes.plot([end.x.mid for end in ends], [end.y.mid for end in ends], color=colour, linewidth=2, zorder=2)


def _reach(points: Sequence[v.Value]) -> list[list[float]]:
    return [[value.reach[side] for value in points] for side in (0, 1)]


def _draw_points(axes: Axes, line: Sequence[_Point], index: int, theme: Theme) -> ErrorbarContainer:
    colour = theme.series[index % len(theme.series)]
    across, up = [point.x for point in line], [point.y for point in line]
    return axes.errorbar(
        [x.mid for x in across],
        [y.mid for y in up],
        xerr=_reach(across),
        yerr=_reach(up),
        color=colour,
        marker=MARKERS[index % len(MARKERS)],
        markersize=7.5,
        markeredgecolor=theme.paper,
        markeredgewidth=1.2,
        linestyle="none",
        elinewidth=1.2,
        capsize=2.5,
        zorder=3,
    )


def _dense_lines(axes: Axes, shown: Sequence[tuple[str, Sequence[_Point]]], theme: Theme) -> list[Line2D]:
    """A dashed line at the score of each dense model, with the score where there is only one."""
    drawn = []
    levels = {round(p.y.mid, 6): index for index, (_, line) in enumerate(shown) for p in line if p.row.dense}
    for level, index in levels.items():
        colour = theme.muted if len(levels) == 1 else theme.series[index % len(theme.series)]
        drawn.append(axes.axhline(level, color=colour, linestyle=(0, (5, 4)), linewidth=1.2, zorder=1))
    if len(levels) == 1:
        place = (1, next(iter(levels)))
        axes.annotate(
            f"dense {v.percent(place[1])}",
            place,
            (0, 4),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="bottom",
            color=theme.muted,
        )
    return drawn


def _label_points(axes: Axes, lines: Sequence[Sequence[_Point]], levels: Sequence[Line2D], theme: Theme) -> None:
    """Name the points below a single line; of several lines, name the highest point of each name, above it."""
    from matplotlib.patheffects import withStroke

    single = len(lines) == 1
    taken = [one.get_window_extent() for one in (*axes.texts, *levels)]
    highest: dict[str, _Point] = {}
    for point in (point for line in lines for point in line if not point.row.dense):
        known = highest.setdefault(point.row.name, point)
        highest[point.row.name] = max(known, point, key=lambda either: either.y.mid)
    for name, point in highest.items():
        label = axes.annotate(
            f"{name}  {v.percent(point.y.mid)}" if single else name,
            (point.x.mid, point.y.mid),
            (0, 0),
            textcoords="offset points",
            color=theme.ink,
            fontsize=10.5,
            path_effects=[withStroke(linewidth=3, foreground=theme.paper)],
            zorder=4,
        )
        near = [*_BELOW, *_ABOVE] if single else [*_ABOVE, *_BELOW]
        taken.append(_place(label, axes, taken, [*near, *_FURTHER]))


def _place(label: Annotation, axes: Axes, taken: Sequence[Bbox], places: Sequence[_Offset]) -> Bbox:
    """Move a label to the first place inside the axes that no other label has taken, else to the first place."""
    frame = axes.get_window_extent()
    for place in places:
        box = _moved(label, place)
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        if inside and not box.count_overlaps(taken):
            return box
    return _moved(label, places[0])


def _moved(label: Annotation, place: _Offset) -> Bbox:
    dx, dy, across, up = place
    label.set(position=(dx, dy), ha=across, va=up)
    return label.get_window_extent()


def _speed_axis(axes: Axes, points: Sequence[v.Value], scope: TimingScope) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    low = min(1.0, *(point.mid if point.low is None else point.low for point in points)) / 1.12
    high = max(1.2, *(point.mid if point.high is None else point.high for point in points)) * 1.16
    powers = [2.0**power for power in range(-4, 12)]
    ticks = [tick for tick in (powers if high > 3 else _FINE_TICKS) if low <= tick <= high]
    axes.set_xscale("log", base=2)
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{tick:g}×" for tick in ticks])
    axes.set_xlabel(f"Measured speedup of the {'whole model' if scope == 'model' else 'encoder'} over dense")


def _baseline(axes: Axes, rows: Sequence[FamilyRow], theme: Theme) -> None:
    bottom, top = axes.get_ylim()
    known = {row.baseline_points for row in rows if row.baseline_points is not None}
    metric = next((row.metric for row in rows if row.metric), "")
    for base in (base for base in known if bottom <= base <= top):
        axes.axhline(base, color=theme.neurons, linestyle=(0, (2, 3)), linewidth=1.3, zorder=1)
        axes.annotate(
            f"{constant_guess(metric)} {v.percent(base)}",
            (0, base),
            (4, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=theme.muted,
            fontsize=9.5,
            ha="left",
            va="bottom",
        )


def _score_axis(axes: Axes, lines: Sequence[Sequence[_Point]]) -> None:
    ends = [end for line in lines for p in line for end in (p.y.low, p.y.mid, p.y.high) if end is not None]
    room = max(0.14 * (max(ends) - min(ends)), 0.3)
    axes.set_ylim(min(ends) - 1.6 * room, max(ends) + room)
    names = {point.row.metric for line in lines for point in line}
    axes.set_ylabel(f"{metric_name(str(names.pop())) if len(names) == 1 else 'Score'}, %")
    axes.grid(True)
    axes.tick_params(length=0)

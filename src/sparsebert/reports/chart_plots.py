"""Charts drawn: panels side by side in the theme of all figures."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsebert.reports.charts import ChartLine, HeatPanel, LinePanel, Panel, RangePanel, StudyChart, written
from sparsebert.reports.escape import plain
from sparsebert.reports.theme import LIGHT, MARKERS, Theme, new_figure, short, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches.
CELL, ROW, LINE_PANEL, EDGE, LEGEND_LINE = 0.74, 0.3, (4.8, 3.2), 1.3, 0.24
LINES = ("-", "--", "-.", ":")
MARKED_POINTS = 40
# Cells of more columns than these are too small for numbers.
WRITTEN_COLUMNS = 13
TITLE_LETTERS, CELL_LETTERS = 46, 12
# From this part of the ramp on, a cell is dark enough for letters of the paper's colour.
_DARK = 0.6


def draw_chart(chart: StudyChart, theme: Theme = LIGHT) -> Figure:
    """All panels of a chart, in rows of `chart.columns`."""
    across = min(chart.columns, len(chart.panels))
    rows = [chart.panels[start : start + across] for start in range(0, len(chart.panels), across)]
    labels = list(dict.fromkeys(line.label for panel in chart.panels for line in _lines(panel)))
    with styled(theme):
        widths = [max(_width(row[place]) for row in rows if place < len(row)) for place in range(across)]
        heights = [max(map(_height, row)) for row in rows]
        legend = _legend_columns(labels, sum(widths))
        more = LEGEND_LINE * -(-len(labels) // legend) if len(labels) > 1 else 0.0
        figure = new_figure(max(5.0, sum(widths)), sum(heights) + more)
        ratios = {"width_ratios": widths, "height_ratios": heights}
        grid = figure.subplots(len(rows), across, squeeze=False, gridspec_kw=ratios)
        for axes in grid.flat:
            axes.set_axis_off()
        handles: dict[str, Any] = {}
        for panel, axes in zip(chart.panels, grid.flat, strict=False):
            axes.set_axis_on()
            # The first panel of a line says how it is marked.
            handles = _draw(axes, panel, labels, theme) | handles
        _share(chart, list(grid.flat))
        if len(labels) > 1:
            names = [plain(label) for label in handles]
            figure.legend(list(handles.values()), names, loc="outside upper left", ncols=legend, frameon=False)
        return figure


def _lines(panel: Panel) -> tuple[ChartLine, ...]:
    return panel.lines if isinstance(panel, LinePanel) else ()


def _legend_columns(labels: list[str], width: float) -> int:
    longest = max(map(len, labels), default=0) + 6
    return max(1, min(4, len(labels), int(width * 11 / longest)))


def _width(panel: Panel) -> float:
    if isinstance(panel, HeatPanel):
        return max(3.2, CELL * min(len(panel.columns), WRITTEN_COLUMNS) + EDGE)
    return LINE_PANEL[0]


def _height(panel: Panel) -> float:
    if isinstance(panel, HeatPanel):
        return ROW * max(len(panel.rows), 4) + EDGE
    if isinstance(panel, RangePanel):
        return ROW * max(len(panel.ranges), 3) + EDGE
    return LINE_PANEL[1]


def _draw(axes: Axes, panel: Panel, labels: list[str], theme: Theme) -> dict[str, Any]:
    """Handles of the panel's lines by label."""
    axes.set_title(fill(plain(panel.title), TITLE_LETTERS), fontsize=11, loc="left")
    axes.tick_params(length=0)
    if isinstance(panel, HeatPanel):
        _draw_heat(axes, panel, theme)
    elif isinstance(panel, RangePanel):
        _draw_ranges(axes, panel, theme)
    else:
        return _draw_lines(axes, panel, labels, theme)
    return {}


def _share(chart: StudyChart, grid: list[Axes]) -> None:
    """Ranges of the same numbers stand over the same part of the axis, so that panels can be compared."""
    first: dict[str, Axes] = {}
    for panel, axes in zip(chart.panels, grid, strict=False):
        if isinstance(panel, RangePanel):
            if panel.x_label in first:
                axes.sharex(first[panel.x_label])
            first.setdefault(panel.x_label, axes)
    for axes in first.values():
        axes.autoscale_view()


def _draw_heat(axes: Axes, panel: HeatPanel, theme: Theme) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    parts = _parts(panel)
    ramp = LinearSegmentedColormap.from_list("cells", [theme.faint, theme.heads])
    axes.imshow(np.ma.masked_invalid(parts), cmap=ramp, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    names = [fill(short(one), CELL_LETTERS, break_long_words=False) for one in panel.columns]
    axes.set_xticks(range(len(panel.columns)), names, fontsize=9)
    axes.set_yticks(range(len(panel.rows)), [short(one) for one in panel.rows], fontsize=9)
    if any(len(line) > CELL_LETTERS for name in names for line in name.splitlines()):
        axes.tick_params(axis="x", rotation=30)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
    axes.set_xlabel(panel.column_label)
    axes.set_ylabel(panel.row_label)
    axes.spines[:].set_visible(False)
    if len(panel.columns) <= WRITTEN_COLUMNS:
        for row, column in np.ndindex(parts.shape):
            text = written(panel.values[row][column], panel.form)
            colour = theme.paper if parts[row, column] > _DARK else theme.ink
            axes.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)


def _parts(panel: HeatPanel) -> np.ndarray:
    """Where each value lies between the ends of the colours, 0-1 [rows, columns]; nan where it is absent."""
    values = np.array([[np.nan if one is None else one for one in row] for row in panel.values], dtype=float)
    known = values[np.isfinite(values)]
    low = float(known.min()) if panel.low is None and len(known) else panel.low or 0.0
    high = float(known.max()) if panel.high is None and len(known) else panel.high or 1.0
    return np.clip((values - low) / ((high - low) or 1.0), 0, 1)


def _draw_lines(axes: Axes, panel: LinePanel, labels: list[str], theme: Theme) -> dict[str, Any]:
    handles = {}
    for line in panel.lines:
        place = labels.index(line.label)
        colour = theme.series[place % len(theme.series)]
        shown = [index for index, y in enumerate(line.y) if y is not None]
        x, y = (np.array([side[index] for index in shown], dtype=float) for side in (line.x, line.y))
        handles[line.label] = axes.plot(x, y, **_style(line, place, theme))[0]
        if line.low and line.high:
            low, high = (np.array([side[index] for index in shown], dtype=float) for side in (line.low, line.high))
            axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
    _mark_level(axes.axhline, panel.level, theme)
    if panel.ticks:
        step = max(1, -(-len(panel.ticks) // 13))
        axes.set_xticks(range(0, len(panel.ticks), step), [short(one) for one in panel.ticks[::step]])
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    axes.grid(True)
    return handles


def _style(line: ChartLine, place: int, theme: Theme) -> dict[str, Any]:
    if line.reference:
        return {"color": theme.muted, "linestyle": (0, (5, 4)), "linewidth": 1.2}
    colour = theme.series[place % len(theme.series)]
    dashes = LINES[place // len(theme.series) % len(LINES)]
    # Of many points only the line can be seen.
    marker = MARKERS[place % len(MARKERS)] if len(line.x) <= MARKED_POINTS else ""
    points = {"marker": marker, "markersize": 4.5, "markeredgecolor": theme.paper}
    return {"color": colour, "linestyle": dashes if line.joined else "none", "linewidth": 1.5, **points}


def _draw_ranges(axes: Axes, panel: RangePanel, theme: Theme) -> None:
    for row, one in enumerate(panel.ranges):
        colour = theme.neurons if one.strong else theme.heads
        if one.low is not None and one.high is not None:
            axes.plot([one.low, one.high], [row, row], color=colour, linewidth=2)
        if one.mid is not None:
            axes.plot([one.mid], [row], marker="D" if one.strong else "o", color=colour, markersize=6)
    _mark_level(axes.axvline, panel.level, theme)
    axes.set_yticks(range(len(panel.ranges)), [short(one.label) for one in panel.ranges], fontsize=9.5)
    axes.set_ylim(len(panel.ranges) - 0.4, -0.6)
    axes.set_xlabel(panel.x_label)
    axes.grid(True, axis="x")


def _mark_level(draw: Any, level: float | None, theme: Theme) -> None:
    if level is not None:
        draw(level, color=theme.muted, linestyle=(0, (5, 4)), linewidth=1.1, zorder=1)

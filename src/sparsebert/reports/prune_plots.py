"""Prune curves drawn: score on train and validation rows against sparsity of the whole network; weights by size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsebert.records import WeightHistogram
from sparsebert.reports import values as v
from sparsebert.reports.prune_curve import (
    PrunedLine,
    PrunedNetworks,
    prune_lines,
    score_at,
    speedup_at,
    whole_sparsity,
)
from sparsebert.reports.tables import constant_guess, metric_name
from sparsebert.reports.theme import LIGHT, MARKERS, Theme, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import ErrorbarContainer
    from matplotlib.figure import Figure

PANEL = (4.6, 3.2)
LINES = ("-", "--", "-.", ":")


def prune_plot(group: PrunedNetworks, theme: Theme = LIGHT) -> Figure:
    """One panel a metric and split, validation above train; all ways to remove in each, with bars as in Value.

    A line joins the points of one way: they are of the same networks on the same examples, each without more. Dashes
    are the whole network, dots a constant answer.
    """
    columns = len(group.dev)
    with styled(theme):
        figure = new_figure(max(6.0, PANEL[0] * columns), 2 * PANEL[1] + 0.5)
        panels = figure.subplots(2, columns, squeeze=False, sharex=True)
        lines = prune_lines(group)
        handles: list[Any] = []
        for (metric, split), axes in zip(group.panels, panels.flat, strict=True):
            handles = [_draw(axes, line, metric, split, index, theme) for index, line in enumerate(lines)]
            _levels(axes, group, metric, split, theme)
            axes.set_title(f"{metric_name(metric)}, {split} rows", fontsize=11.5, loc="left")
            axes.set_ylabel("%")
            axes.grid(True)
            axes.tick_params(length=0)
        for axes in panels[-1]:
            axes.set_xlabel("Removed of the whole network, %")
        labels = [line.label for line in lines]
        figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False, handlelength=2.4)
        return figure


def speed_plot(group: PrunedNetworks, theme: Theme = LIGHT) -> Figure | None:
    """Measured speedup of the whole model against sparsity, with bars as in Value; None where none was timed.

    No line joins the points: each was timed by itself, and a line would draw the noise.
    """
    lines = prune_lines(group)
    pairs = [[(whole_sparsity(points), speedup_at(points)) for points in line.points] for line in lines]
    if not any(speed for line in pairs for _, speed in line):
        return None
    with styled(theme):
        figure = new_figure(6.0, PANEL[1] + 0.5)
        axes = figure.add_subplot()
        handles: list[Any] = [_line(axes, line, index, theme, joined=False) for index, line in enumerate(pairs)]
        axes.set_xlabel("Removed of the whole network, %")
        axes.set_ylabel("Speedup, whole model")
        axes.set_ylim(bottom=0)
        axes.grid(True)
        axes.tick_params(length=0)
        figure.legend(handles, [line.label for line in lines], loc="outside upper left", ncols=2, frameon=False)
        return figure


def weight_plot(kinds: Sequence[WeightHistogram], theme: Theme = LIGHT) -> Figure | None:
    """Density of the weights of each kind of matrix, with their signs and by size; None where nothing is known."""
    if not kinds:
        return None
    with styled(theme):
        figure = new_figure(2 * PANEL[0], PANEL[1] + 0.9)
        signed, sized = figure.subplots(1, 2)
        for place, one in enumerate(kinds):
            style = {"color": theme.series[place % len(theme.series)], "linestyle": LINES[place // len(theme.series)]}
            signed.stairs(
                _density(one, one.counts, 2), np.linspace(-one.reach, one.reach, len(one.counts) + 1), **style
            )
            sized.stairs(_density(one, one.sizes, 1), np.linspace(0, one.reach, len(one.sizes) + 1), **style)
        for axes, label in ((signed, "w"), (sized, "|w|")):
            axes.set_xlabel(label)
            axes.set_ylim(bottom=0)
            axes.grid(True)
            axes.tick_params(length=0)
        signed.set_ylabel("Density")
        handles = signed.patches
        figure.legend(handles, [one.kind for one in kinds], loc="outside upper left", ncols=3, frameon=False)
        return figure


def _density(one: WeightHistogram, counts: Sequence[int], sides: int) -> np.ndarray:
    """Integrates to the part of the weights that lies in the bins."""
    total = sum(one.counts) + one.below + one.above
    return np.array(counts) / (total * sides * one.reach / len(counts))


def _draw(axes: Axes, line: PrunedLine, metric: str, split: str, index: int, theme: Theme) -> ErrorbarContainer:
    pairs = [(whole_sparsity(points), score_at(points, metric, split)) for points in line.points]
    return _line(axes, pairs, index, theme)


def _line(
    axes: Axes,
    pairs: Sequence[tuple[v.Value | None, v.Value | None]],
    index: int,
    theme: Theme,
    joined: bool = True,
) -> ErrorbarContainer:
    shown = [(x, y) for x, y in pairs if x is not None and y is not None]
    return axes.errorbar(
        [100 * x.mid for x, _ in shown],
        [y.mid for _, y in shown],
        yerr=[[y.reach[side] for _, y in shown] for side in (0, 1)],
        color=theme.series[index % len(theme.series)],
        marker=MARKERS[index % len(MARKERS)],
        markersize=5,
        markeredgecolor=theme.paper,
        linestyle="-" if joined else "none",
        linewidth=1.3,
        elinewidth=1,
        capsize=2,
    )


def _levels(axes: Axes, group: PrunedNetworks, metric: str, split: str, theme: Theme) -> None:
    """The whole network and the constant answer as lines across."""
    first = prune_lines(group)[0].points[0]
    whole = score_at(first, metric, split)
    if whole is not None:
        axes.axhline(whole.mid, color=theme.muted, linestyle=(0, (5, 4)), linewidth=1.1, zorder=1)
    bases = [score.baseline for point in first if (score := point.score(metric, split)) is not None]
    base = v.over_runs(v.exact(one) for one in bases)
    if base is not None:
        axes.axhline(100 * base.mid, color=theme.neurons, linestyle=(0, (2, 3)), linewidth=1.3, zorder=1)
        axes.annotate(
            f"{constant_guess(metric)} {v.fraction(base.mid)}",
            (0, 100 * base.mid),
            (3, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=theme.muted,
            fontsize=9.5,
        )

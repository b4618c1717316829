"""Pictures of searches: score against a value, the best so far, steps to a score, importance, the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from sparsebert.records.searched import Importance
from sparsebert.reports import values as v
from sparsebert.reports.search_tables import ThresholdRow, aim_name, short_key
from sparsebert.reports.searched import Searched, TrialRun
from sparsebert.reports.tables import metric_name
from sparsebert.reports.theme import LIGHT, MARKERS, Theme, legend_above, new_figure, short, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 6.0, 4.0
# A part of the place that a group of bars has.
GROUP = 0.8


def value_plot(found: Sequence[Searched], key: str, theme: Theme = LIGHT) -> Figure | None:
    """Score against one value of the recipe, every trial a point with its interval; None where nobody varied it.

    For a learning rate this is figure 1 of "Sparsity Without Sacrifice" (B. Cohen 2021). A dashed line is what always
    giving the same answer would score.
    """
    points = [(one, [run for run in one.runs if _number(run.values.get(key)) is not None]) for one in found]
    points = [(one, runs) for one, runs in points if len({run.values[key] for run in runs}) > 1]
    if not points:
        return None
    with styled(theme):
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.add_subplot()
        entries = []
        for one, runs in points:
            index = list(found).index(one)
            entries.append((one.label, _points(axes, [float(run.values[key]) for run in runs], runs, index, theme)))
        if is_log(found, key):
            axes.set_xscale("log")
        _baseline(axes, found, theme)
        _finish(axes, short_key(key, [key]).capitalize(), aim_name(found[0].aim, found[0].metric))
        if len(entries) > 1:
            legend_above(figure, axes, entries)
        return figure


def history_plot(found: Sequence[Searched], theme: Theme = LIGHT) -> Figure | None:
    """The score of every trial in the order in which they finished, and the best so far.

    None without a search, and for several objectives, which have no best.
    """
    from matplotlib.ticker import MaxNLocator

    searches = [(index, one) for index, one in enumerate(found) if one.search and len(one.search.objectives) == 1]
    if not searches:
        return None
    with styled(theme):
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.add_subplot()
        entries = []
        for index, one in searches:
            order = range(1, len(one.runs) + 1)
            entries.append((one.label, _points(axes, list(order), one.runs, index, theme, bars=False)))
            best = accumulate((run.score.mid for run in one.runs), max if one.aim.direction == "maximize" else min)
            axes.step(list(order), list(best), where="post", color=theme.series[index % len(theme.series)], linewidth=2)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _finish(
            axes, "Trials with a score, in the order in which they finished", aim_name(found[0].aim, found[0].metric)
        )
        if len(entries) > 1:
            legend_above(figure, axes, entries)
        return figure


def steps_plot(rows: Sequence[ThresholdRow], metric: str, theme: Theme = LIGHT) -> Figure | None:
    """Bars of the fewest steps to each score, a colour a search; none where no trial of it got there.

    Figure 2 of "Sparsity Without Sacrifice" (B. Cohen 2021).
    """
    if all(row.steps is None for row in rows):
        return None
    thresholds = list(dict.fromkeys(row.threshold for row in rows))
    labels = list(dict.fromkeys(row.label for row in rows))
    width = GROUP / len(labels)
    with styled(theme):
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.add_subplot()
        entries = []
        for index, label in enumerate(labels):
            own = [row for row in rows if row.label == label]
            places = [thresholds.index(row.threshold) + (index + 0.5) * width - GROUP / 2 for row in own]
            colour = theme.series[index % len(theme.series)]
            heights = [row.steps or 0 for row in own]
            bars = axes.bar(places, heights, width=0.9 * width, color=colour, edgecolor=theme.paper)
            texts = [v.DASH if row.steps is None else f"{row.steps:,}" for row in own]
            axes.bar_label(bars, labels=texts, padding=2)
            entries.append((label, bars))
        axes.set_xticks(range(len(thresholds)), [v.fraction(one) for one in thresholds])
        _finish(axes, f"{metric_name(metric)} to reach", "Optimiser steps of the fastest trial", "y")
        if len(labels) > 1:
            legend_above(figure, axes, entries)
        return figure


def importance_plot(importance: Importance, theme: Theme = LIGHT) -> Figure:
    """A bar a key: its share of what the score varies by, the largest first."""
    shares = sorted(importance.shares.items(), key=lambda pair: -pair[1])
    with styled(theme):
        figure = new_figure(WIDTH, 1.0 + 0.5 * len(shares))
        axes = figure.add_subplot()
        keys = [key for key, _ in shares]
        axes.barh(range(len(shares)), [100 * share for _, share in shares], height=0.62, color=theme.heads)
        for place, (_, share) in enumerate(shares):
            axes.text(100 * share + 1.5, place, v.fraction(share), va="center")
        axes.set_yticks(range(len(shares)), [short(short_key(key, keys)) for key in keys], color=theme.ink)
        axes.invert_yaxis()
        axes.set_xlim(0, 115)
        _finish(axes, f"Share of the importance, %, by {importance.trials} trials", "", "x")
        return figure


def front_plot(one: Searched, theme: Theme = LIGHT) -> Figure | None:
    """The first objective against the second, the Pareto front filled, what was chosen numbered; None for one."""
    if one.search is None or len(one.search.objectives) < 2:
        return None
    other = one.search.objectives[1]
    front = [run for run in one.runs if run.number in one.search.front]
    rest = [run for run in one.runs if run.number not in one.search.front]
    with styled(theme):
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.add_subplot()
        for runs, colour, label in (
            (rest, theme.soft, "beaten by another trial"),
            (front, theme.heads, "Pareto front"),
        ):
            across = [run.scores[other.name] for run in runs]
            axes.scatter(across, [run.score.mid for run in runs], s=48, color=colour, label=label, zorder=3)
        chosen = [each.trial for each in one.search.chosen]
        for run in (run for run in front if run.number in chosen):
            place = (run.scores[other.name], run.score.mid)
            name = "recipe" if run.number is None else str(run.number)
            axes.annotate(name, place, (5, 4), textcoords="offset points")
        _finish(axes, _with_direction(aim_name(other, False), other.direction), aim_name(one.aim, one.metric))
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2)
        return figure


def is_log(found: Sequence[Searched], key: str) -> bool:
    """Whether a key is drawn by order of magnitude: where a search took it so, and learning rates of other runs."""
    spaces = [one.search.space[key] for one in found if one.search is not None and key in one.search.space]
    positive = all((_number(run.values.get(key)) or 1) > 0 for one in found for run in one.runs)
    return positive and (any(space.get("log") for space in spaces) or (not spaces and key.endswith("learning_rate")))


def _with_direction(name: str, direction: str) -> str:
    return f"{name} ({'more' if direction == 'maximize' else 'less'} is better)"


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _points(
    axes: Axes, across: Sequence[float], runs: Sequence[TrialRun], index: int, theme: Theme, bars: bool = True
) -> object:
    scores = [run.score for run in runs]
    return axes.errorbar(
        list(across),
        [score.mid for score in scores],
        yerr=[[score.reach[side] for score in scores] for side in (0, 1)] if bars else None,
        color=theme.series[index % len(theme.series)],
        marker=MARKERS[index % len(MARKERS)],
        markersize=6.5,
        markeredgecolor=theme.paper,
        linestyle="none",
        elinewidth=0.8,
        zorder=3,
    )


def _baseline(axes: Axes, found: Sequence[Searched], theme: Theme) -> None:
    bases = {round(run.baseline, 6) for one in found for run in one.runs if run.baseline is not None}
    for base in sorted(bases):
        axes.axhline(base, color=theme.muted, linestyle=(0, (5, 4)), linewidth=1.2, zorder=1)


def _finish(axes: Axes, across: str, up: str, grid: str = "both") -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(True, axis=grid)  # pyright: ignore[reportArgumentType]
    axes.tick_params(length=0)

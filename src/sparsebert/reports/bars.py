"""Bars, one a model: where the parameters are, and how long a forward pass takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparsebert.reports import values as v
from sparsebert.reports.families import Family
from sparsebert.reports.rows import family_rows
from sparsebert.reports.theme import LIGHT, Theme, new_figure, short, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def size_plot(family: Family, theme: Theme = LIGHT) -> Figure:
    """One bar a model: parameters in embeddings, encoder linear layers and the rest, with the megabytes on disk."""
    models = [family.runs(name)[0][1] for name in family.names]
    with styled(theme):
        figure = new_figure(6.0, 1.0 + 0.54 * len(models))
        axes = figure.add_subplot()
        full = max(model.size.parameters for model in models) / 1e6
        for row, model in enumerate(models):
            parts = _parts(model.size.embedding_parameters, model.size.encoder_linear_parameters, model.size.parameters)
            left = 0.0
            for part, colour in zip(parts, (theme.soft, theme.heads, theme.ink), strict=True):
                axes.barh(row, part, left=left, height=0.62, color=colour, edgecolor=theme.paper, linewidth=1)
                left += part
            axes.text(left + full * 0.012, row, v.megabytes(model.size.file_bytes / 1e6), va="center")
        _finish_bars(axes, [model.name for model in models], full, theme)
        return figure


def latency_plot(family: Family, theme: Theme = LIGHT) -> Figure | None:
    """One bar a model: the time of a forward pass of the whole model, with its spread; None where none was timed."""
    rows = [row for row in family_rows([family]) if row.latency_ms is not None]
    times = [row.latency_ms for row in rows if row.latency_ms is not None]
    if not times:
        return None
    with styled(theme):
        figure = new_figure(6.0, 1.0 + 0.54 * len(rows))
        axes = figure.add_subplot()
        highest = max(time.mid + time.reach[1] for time in times)
        for place, time in enumerate(times):
            below, above = time.reach
            axes.barh(place, time.mid, height=0.62, color=theme.heads, edgecolor=theme.paper, linewidth=1)
            axes.errorbar(time.mid, place, xerr=[[below], [above]], color=theme.ink, elinewidth=1.2, capsize=3)
            axes.text(time.mid + above + highest * 0.015, place, f"{v.digits(time.mid)} ms", va="center")
        _finish(axes, [row.name for row in rows], highest, "Milliseconds a forward pass", theme)
        return figure


def _parts(embeddings: int, linear: int, whole: int) -> tuple[float, float, float]:
    return embeddings / 1e6, linear / 1e6, (whole - embeddings - linear) / 1e6


def _finish(axes: Axes, names: Sequence[str], full: float, label: str, theme: Theme) -> None:
    axes.set_yticks(range(len(names)), list(map(short, names)), color=theme.ink)
    axes.invert_yaxis()
    axes.set_xlim(0, full * 1.18)
    axes.set_xlabel(label)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.grid(True, axis="x")
    axes.tick_params(length=0)


def _finish_bars(axes: Axes, names: Sequence[str], full: float, theme: Theme) -> None:
    from matplotlib.patches import Patch

    _finish(axes, names, full, "Parameters in millions (beside the bar: file size)", theme)
    labels = ("embeddings", "encoder linear layers", "rest")
    handles = [Patch(color=c, label=n) for c, n in zip((theme.soft, theme.heads, theme.ink), labels, strict=True)]
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, handlelength=1, borderpad=0
    )

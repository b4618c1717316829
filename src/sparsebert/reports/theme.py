"""How figures look: one palette in a light and a dark version, and the way from a figure to bytes."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

from sparsebert.errors import UserError
from sparsebert.reports.escape import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import Container
    from matplotlib.figure import Figure

PICTURES = "SPARSEBERT_PICTURES"
DPI = 150
NAME_LETTERS = 28
# Of a figure of six inches: letters in its width, beside them those that a handle takes; inches of a line.
FIGURE_LETTERS, LEGEND_LETTERS, HANDLE_LETTERS, LEGEND_COLUMNS, LEGEND_LINE = 66, 56, 7, 3, 0.2


@dataclass(frozen=True)
class Theme:
    """Colours of a figure. `series` tells families apart (Okabe and Ito's set, safe for colour-blind readers).

    `soft` lies between `muted` and `faint`, and is told from `heads` in a print without colours.
    """

    paper: str
    ink: str
    muted: str
    soft: str
    faint: str
    heads: str
    neurons: str
    series: tuple[str, ...]


LIGHT = Theme(
    paper="#ffffff",
    ink="#1b2430",
    muted="#5d6b7a",
    soft="#b4bec8",
    faint="#dfe5eb",
    heads="#0072b2",
    neurons="#d9822b",
    series=("#0072b2", "#d55e00", "#009e73", "#b3568a", "#8a6d00", "#2b8fc9"),
)
DARK = Theme(
    paper="#171d26",
    ink="#e6ebf1",
    muted="#9aa7b5",
    soft="#5c6a7a",
    faint="#364150",
    heads="#56b4e9",
    neurons="#e69f00",
    series=("#56b4e9", "#f0803c", "#2fc79b", "#dd8fbd", "#f0e442", "#8fb8ff"),
)
MARKERS = ("o", "s", "^", "D", "v", "P")


@contextmanager
def styled(theme: Theme) -> Iterator[None]:
    """Draw inside with this theme; matplotlib is loaded here, its global settings stay as they were."""
    import matplotlib as mpl

    style: dict[Any, Any] = {
        "font.family": ["DejaVu Sans"],
        "font.size": 11.5,
        "text.color": theme.ink,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.ink,
        "axes.facecolor": theme.paper,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "figure.facecolor": theme.paper,
        "grid.color": theme.faint,
        "grid.linewidth": 0.8,
        "hatch.color": theme.muted,
        "hatch.linewidth": 0.7,
        # Names of recipes and models may hold any letters.
        "text.parse_math": False,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
    }
    with mpl.rc_context(style):
        yield


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure in inches, drawn by Agg without a display and known to no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def legend_above(figure: Figure, axes: Axes, entries: Sequence[tuple[str, Container]]) -> None:
    """A legend above the axes in as many columns as fit; long labels are broken, and the figure grows by its lines.

    `entries`: labels and what they name; a label may be any text.
    """
    labels = [fill(label, LEGEND_LETTERS) for label, _ in entries]
    longest = max((len(line) for label in labels for line in label.splitlines()), default=0)
    columns = max(1, min(LEGEND_COLUMNS, FIGURE_LETTERS // (longest + HANDLE_LETTERS)))
    lines = math.ceil(len(labels) / columns) * max(len(label.splitlines()) for label in labels)
    figure.set_figheight(figure.get_figheight() + LEGEND_LINE * lines)
    legend = axes.legend(
        [handle for _, handle in entries],
        # Put in below: versions before 3.10 leave out labels that begin with an underscore.
        ["?"] * len(labels),
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=columns,
        handlelength=1.6,
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)


def short(name: str) -> str:
    """A name that fits beside a plot: one line, cut in the middle, without control characters."""
    line = " ".join(plain(name).split())
    return line if len(line) <= NAME_LETTERS else f"{line[: NAME_LETTERS // 2 - 1]}…{line[-NAME_LETTERS // 2 :]}"


def to_png(figure: Figure) -> bytes:
    """The figure as PNG."""
    return _save(figure, "png", {"Software": None})


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG with text as outlines; the same figure gives the same bytes."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "sparsebert"}):
        return _save(figure, "svg", {"Date": None})


def pictures_wanted() -> bool:
    """Whether reports have pictures; not where the variable SPARSEBERT_PICTURES is `off`.

    Raises UserError for another value than on and off.
    """
    value = os.environ.get(PICTURES, "on")
    if value not in ("on", "off"):
        raise UserError(f"The variable {PICTURES} is neither on nor off", got=value)
    return value == "on"


def _save(figure: Figure, form: str, metadata: dict[str, str | None]) -> bytes:
    # Saving lays out twice, each time after drawing all of it.
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=DPI, metadata=metadata)
    return buffer.getvalue()

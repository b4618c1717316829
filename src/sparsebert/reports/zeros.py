"""A picture of where the zeros of a sparse model are: a row a layer, a cell a matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsebert.records import ModelResult
from sparsebert.reports import values as v
from sparsebert.reports.theme import LIGHT, Theme, new_figure, short, styled
from sparsebert.reports.training import by_matrix, matrix_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _ROW, _TOP, _LEFT = 0.92, 0.36, 0.95, 0.55
# From this part of zeros on, a cell's colour is dark enough for letters of the paper's colour.
_DARK = 0.6


def zeros_map(model: ModelResult, theme: Theme = LIGHT) -> Figure | None:
    """The fraction of zeros of each matrix of the encoder, as colour and number; None where it is not recorded."""
    zeros = by_matrix(model)
    layers = list(dict.fromkeys(layer for layer, _ in zeros))
    matrices = list(dict.fromkeys(matrix for _, matrix in zeros))
    if not zeros:
        return None
    with styled(theme):
        width, height = _LEFT + _WIDTH * len(matrices) + 0.1, _TOP + _ROW * len(layers) + 0.1
        figure = new_figure(width, height, layout=None)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.text(0.05, 0.2, short(model.name), fontsize=12, fontweight="bold", va="center", color=theme.ink)
        for column, matrix in enumerate(matrices):
            words = "\n".join(short(word) for word in reversed(matrix_words(matrix)))
            middle = _LEFT + (column + 0.5) * _WIDTH
            axes.text(middle, _TOP - 0.08, words, fontsize=9, color=theme.muted, ha="center", va="bottom")
        for row, layer in enumerate(layers):
            top = _TOP + row * _ROW
            axes.text(_LEFT - 0.1, top + _ROW / 2, layer, fontsize=9, color=theme.muted, ha="right", va="center")
            for column, matrix in enumerate(matrices):
                _draw_cell(axes, zeros.get((layer, matrix)), _LEFT + column * _WIDTH, top, theme)
        return figure


def describe_zeros(model: ModelResult) -> str:
    """The picture in words, for readers that see none."""
    return "; ".join(
        f"layer {layer}, {' '.join(reversed(matrix_words(matrix)))}: {v.fraction(part)} zeros"
        for (layer, matrix), part in by_matrix(model).items()
    )


def _draw_cell(axes: Axes, part: float | None, left: float, top: float, theme: Theme) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    ramp = LinearSegmentedColormap.from_list("zeros", [theme.faint, theme.heads])
    colour = theme.paper if part is None else ramp(part)
    axes.add_patch(Rectangle((left, top), _WIDTH, _ROW, facecolor=colour, edgecolor=theme.paper, linewidth=1.5))
    letters = theme.paper if part is not None and part > _DARK else theme.ink
    text = v.DASH if part is None else v.fraction(part)
    axes.text(left + _WIDTH / 2, top + _ROW / 2, text, fontsize=9, color=letters, ha="center", va="center")

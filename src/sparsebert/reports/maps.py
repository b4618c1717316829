"""A picture of what is left of each layer: a square a head, a bar for the neurons; or of the zeros in its matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparsebert.records import ModelResult, Shape
from sparsebert.reports.theme import LIGHT, Theme, new_figure, short, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEFT = 1.3
_HEAD = 0.85
_GAP = 1.9
# The words above the heads take as much as these.
_LEAST_HEADS = 5
_BAR = 5.0
_END = 2.9
_PITCH = 1.5
_TOP = 3.1
_INCH = 0.15
# Of the colour of heads, in the least important one that is left.
PALEST = 0.3
Colour = tuple[float, float, float]


def shape_map(models: Sequence[ModelResult], theme: Theme = LIGHT, columns: int = 4) -> Figure:
    """Heads and neurons kept in every layer, the models side by side, at most `columns` in a row.

    A filled square is a head that is left, at its place and in stronger colour the more its block needs it, where the
    record says so, else as many squares from the left as there are heads. A hatched row is a dropped layer.
    """
    across = min(columns, len(models))
    down = -(-len(models) // across)
    layers = max(len(model.shape.heads) for model in models)
    widths = max(_width(model.shape) for model in models)
    with styled(theme):
        height = layers * _PITCH + _TOP + 0.6
        figure = new_figure(across * widths * _INCH, down * height * _INCH, layout=None)
        edge = {"left": 0, "right": 1, "bottom": 0, "top": 1, "wspace": 0, "hspace": 0}
        grid = figure.subplots(down, across, squeeze=False, gridspec_kw=edge)
        for index, axes in enumerate(grid.flat):
            axes.set_axis_off()
            if index < len(models):
                _draw_model(axes, models[index], widths, layers, theme)
        return figure


def describe(model: ModelResult) -> str:
    """The map in words, for readers that see no picture."""
    shape, trees = model.shape, tree_names(model)
    said = []
    for layer, (count, neurons) in enumerate(zip(shape.heads, shape.neurons, strict=True)):
        heads = f"{count} heads" + (_listed(shape, layer) if 0 < count < shape.full_heads else "")
        block = f"fast feedforward {trees[layer]}" if layer in trees else f"{neurons} neurons"
        dropped = layer in shape.dropped_layers
        said.append(f"layer {layer + 1}: " + ("dropped" if dropped else f"{heads}, {block}"))
    return "; ".join(said)


def tree_names(model: ModelResult) -> dict[int, str]:
    """What the fast feedforward layers are called, as TREESxDEPTH, by the index of their layer."""
    return {fit.layer: fit.name for fit in model.trees}


def _listed(shape: Shape, layer: int) -> str:
    """Which heads, counted from 1 as people do, or nothing where that is not known."""
    return f" ({', '.join(str(head + 1) for head in shape.kept_heads[layer])})" if shape.kept_heads else ""


def _width(shape: Shape) -> float:
    return _bar(shape) + _BAR + _END


def _bar(shape: Shape) -> float:
    """Where the neurons' bars begin."""
    return _LEFT + _HEAD * max(shape.full_heads, _LEAST_HEADS) + _GAP


def _draw_model(axes: Axes, model: ModelResult, width: float, layers: int, theme: Theme) -> None:
    shape, trees = model.shape, tree_names(model)
    axes.set_xlim(0, width)
    axes.set_ylim(layers * _PITCH + 0.6, -_TOP)
    bar = _bar(shape)
    axes.text(0, -2.3, short(model.name), fontsize=12, fontweight="bold", va="center", color=theme.ink)
    axes.text(_LEFT, -0.75, f"heads of {shape.full_heads}", fontsize=9, color=theme.muted, va="center")
    if shape.full_neurons:
        axes.text(bar, -0.75, f"neurons of {shape.full_neurons}", fontsize=9, color=theme.muted, va="center")
    for layer, neurons in enumerate(shape.neurons):
        top = layer * _PITCH + 0.2
        axes.text(_LEFT - 0.45, top + 0.5, str(layer + 1), fontsize=9, color=theme.muted, ha="right", va="center")
        if layer in shape.dropped_layers:
            _draw_band(axes, _LEFT, top, bar + _BAR - _LEFT, "layer dropped", theme)
        else:
            _draw_heads(axes, shape, layer, top, theme)
            if layer in trees:
                _draw_band(axes, bar, top, _BAR, f"tree {trees[layer]}", theme)
            elif not shape.full_neurons:
                _draw_band(axes, bar, top, _BAR, "no feedforward block", theme)
            else:
                _draw_neurons(axes, neurons, shape.full_neurons, bar, top, theme)


def _draw_heads(axes: Axes, shape: Shape, layer: int, top: float, theme: Theme) -> None:
    count, full = shape.heads[layer], shape.full_heads
    _box(axes, _LEFT, top + 0.08, _HEAD * full, _HEAD, theme.faint)
    if shape.kept_heads:
        for head in shape.kept_heads[layer]:
            colour = _mixed(theme.faint, theme.heads, _weight(shape, layer, head))
            _box(axes, _LEFT + _HEAD * head, top + 0.08, _HEAD, _HEAD, colour)
    else:
        _box(axes, _LEFT, top + 0.08, _HEAD * count, _HEAD, theme.heads)
    edges = [_LEFT + _HEAD * head for head in range(1, full)]
    axes.vlines(edges, top, top + 1, color=theme.paper, linewidth=1.4)
    _number(axes, _LEFT + _HEAD * full + 0.25, top, count, theme)


def _weight(shape: Shape, layer: int, head: int) -> float:
    """How strong a head's colour is: 1 for the most important of its layer, or where nothing is known."""
    scores = shape.head_importance[layer] if shape.head_importance else ()
    most = max(scores, default=0.0)
    # Errors differ by orders of magnitude; the root keeps the lesser ones apart.
    return PALEST + (1 - PALEST) * (scores[head] / most) ** 0.5 if most > 0 else 1.0


def _mixed(paler: str, darker: str, part: float) -> Colour:
    from matplotlib.colors import to_rgb

    ends = zip(to_rgb(paler), to_rgb(darker), strict=True)
    red, green, blue = ((1 - part) * pale + part * dark for pale, dark in ends)
    return red, green, blue


def _draw_neurons(axes: Axes, kept: int, full: int, left: float, top: float, theme: Theme) -> None:
    _box(axes, left, top + 0.14, _BAR, 0.72, theme.faint)
    _box(axes, left, top + 0.14, _BAR * kept / full, 0.72, theme.neurons)
    _number(axes, left + _BAR + 0.25, top, kept, theme)


def _draw_band(axes: Axes, left: float, top: float, width: float, text: str, theme: Theme) -> None:
    _box(axes, left, top + 0.12, width, 0.76, theme.paper, hatch="////", edgecolor=theme.faint)
    label = axes.text(left + width / 2, top + 0.5, text, fontsize=9, ha="center", va="center")
    label.set_bbox({"facecolor": theme.paper, "edgecolor": "none", "pad": 1.5})


def _box(axes: Axes, left: float, top: float, width: float, height: float, colour: str | Colour, **style: Any) -> None:
    from matplotlib.patches import Rectangle

    # As a patch it would change limits, which are set already, and that takes longer than drawing it.
    axes.add_artist(Rectangle((left, top), width, height, facecolor=colour, **style))


def _number(axes: Axes, left: float, top: float, number: int, theme: Theme) -> None:
    colour = theme.ink if number else theme.muted
    axes.text(left, top + 0.5, str(number), fontsize=9, color=colour, va="center")

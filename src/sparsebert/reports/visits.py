"""Pictures of trees: a row a level, a cell a node or a few, coloured by how many tokens visit it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from sparsebert.errors import UserError
from sparsebert.records import VISITS, ModelResult
from sparsebert.reports.theme import LIGHT, Theme, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

CELLS = 64
# Trees of a layer that are drawn; the file has all.
MOST_TREES = 4
# Heights that a cell's unused part can have, and powers of two that the colours reach from an even share.
STEPS = 12
REACH = 3
_WIDTH, _ROW, _TOP, _LEFT, _RIGHT = 3.2, 0.17, 0.55, 0.3, 0.62


@dataclass(frozen=True)
class Tree:
    """Tokens by node [nodes] of one tree; `layer` and `number` count from 0."""

    layer: int
    number: int
    visits: np.ndarray

    @property
    def levels(self) -> list[np.ndarray]:
        """The same by level, from the root."""
        depth = len(self.visits).bit_length()
        return [self.visits[2**level - 1 : 2 ** (level + 1) - 1] for level in range(depth)]


def read_trees(run: Path, model: ModelResult) -> list[Tree]:
    """The first `MOST_TREES` trees of each layer of `model`, from the visits beside a record; empty without that file.

    `run` is a folder or its record. Raises UserError for a file that is damaged.
    """
    file = (run if run.is_dir() else run.parent) / VISITS
    if not model.trees or not file.is_file():
        return []
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{file} is damaged or cut short: {error}", fix="delete it, and its pictures are left out"
        ) from None
    found = []
    for layer in (fit.layer for fit in model.trees):
        names = ((number, f"layer.{layer}.tree.{number}") for number in count())
        present = takewhile(lambda named: named[1] in tensors and named[0] < MOST_TREES, names)
        found += [Tree(layer, number, tensors[name]) for number, name in present]
    return found


def visit_map(trees: Sequence[Tree], theme: Theme = LIGHT, columns: int = 4) -> Figure:
    """The trees side by side, at most `columns` in a row; the root is at the top.

    Levels of more than `CELLS` nodes have cells of several. The part of a cell's nodes that no token visits is
    filled from below in the colour of neurons, and its share of the level stands at the right.
    """
    across = min(columns, len(trees))
    down = -(-len(trees) // across)
    levels = max(len(tree.levels) for tree in trees)
    with styled(theme):
        height = _TOP + levels * _ROW
        figure = new_figure(across * _WIDTH, down * height, layout=None)
        for index, tree in enumerate(trees):
            row, column = divmod(index, across)
            box = (column / across, 1 - (row + 1) / down, 1 / across, 1 / down)
            axes = figure.add_axes(box)
            axes.set_axis_off()
            _draw_tree(axes, tree, height, theme)
        return figure


def visit_key(theme: Theme = LIGHT) -> Figure:
    """What the colours of `visit_map` mean."""
    from matplotlib.patches import Rectangle

    with styled(theme):
        figure = new_figure(5.0, 0.5, layout=None)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, 5.0)
        axes.set_ylim(0, 0.5)
        ramp = _colours(theme)(np.linspace(0, 1, 128))[None]
        axes.imshow(ramp, extent=(0.1, 2.9, 0.28, 0.45), aspect="auto", interpolation="none")
        for place, text, side in (
            (0.1, "1/8 or less", "left"),
            (1.5, "even share", "center"),
            (2.9, "8 times", "right"),
        ):
            axes.text(place, 0.12, text, fontsize=9, color=theme.muted, ha=side, va="center")
        axes.add_patch(Rectangle((3.3, 0.28), 0.3, 0.17, facecolor=theme.neurons))
        axes.text(3.7, 0.365, "never visited", fontsize=9, color=theme.ink, va="center")
        return figure


def describe_tree(tree: Tree) -> str:
    """The picture in words, for readers that see none."""
    unused = [f"level {level}: {_percent(row)}" for level, row in enumerate(tree.levels, start=1) if (row == 0).any()]
    return f"{_title(tree)}: {_summary(tree)}" + (f"; unused by level: {', '.join(unused)}" if unused else "")


def cells(level: np.ndarray, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each cell of a level [at most CELLS]: its tokens over those of an even spread, and its nodes' unused part."""
    grouped = level.reshape(min(CELLS, len(level)), -1)
    even = tokens / len(level) * grouped.shape[1]
    return grouped.sum(axis=1) / even, (grouped == 0).mean(axis=1)


def _draw_tree(axes: Axes, tree: Tree, height: float, theme: Theme) -> None:
    axes.set_xlim(0, _WIDTH)
    axes.set_ylim(height, 0)
    right = _WIDTH - _RIGHT
    axes.text(_LEFT, 0.12, _title(tree), fontsize=10, fontweight="bold", va="center", color=theme.ink)
    axes.text(_LEFT, 0.3, _summary(tree), fontsize=9, color=theme.muted, va="center")
    axes.text(_WIDTH - 0.12, 0.3, "unused", fontsize=9, color=theme.muted, ha="right", va="center")
    for level, row in enumerate(tree.levels):
        top = _TOP - 0.12 + level * _ROW
        axes.imshow(
            _image(row, int(tree.visits[0]), theme),
            extent=(_LEFT, right, top + _ROW * 0.86, top),
            aspect="auto",
            interpolation="none",
        )
        edges = np.linspace(_LEFT, right, min(CELLS, len(row)) + 1)[1:-1]
        # One line with gaps: a line for each edge would make the page three times as large.
        across = np.repeat(edges, 3)
        upright = np.tile([top, top + _ROW * 0.86, np.nan], len(edges))
        axes.plot(across, upright, color=theme.paper, linewidth=0.8 if len(edges) < CELLS // 2 else 0.4)
        middle = top + _ROW * 0.43
        axes.text(_LEFT - 0.06, middle, str(level + 1), fontsize=9, color=theme.muted, ha="right", va="center")
        colour = theme.ink if (row == 0).any() else theme.muted
        axes.text(_WIDTH - 0.12, middle, _percent(row), fontsize=9, color=colour, ha="right", va="center")


def _image(row: np.ndarray, tokens: int, theme: Theme) -> np.ndarray:
    """Colours of a level's cells [STEPS, cells, 4]; a cell that is used, or unused, in part shows at least one step."""
    from matplotlib.colors import to_rgba

    ratio, unused = cells(row, tokens)
    with np.errstate(divide="ignore"):
        shade = np.clip((np.log2(ratio) + REACH) / (2 * REACH), 0, 1)
    steps = np.where((unused > 0) & (unused < 1), np.clip(np.rint(unused * STEPS), 1, STEPS - 1), unused * STEPS)
    from_below = np.arange(STEPS)[::-1, None]
    image = np.repeat(_colours(theme)(shade)[None], STEPS, axis=0)
    image[from_below < steps[None]] = to_rgba(theme.neurons)
    return image


def _colours(theme: Theme) -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("visits", [theme.faint, theme.heads, theme.ink])


def _title(tree: Tree) -> str:
    return f"Layer {tree.layer + 1}, tree {tree.number + 1}"


def _summary(tree: Tree) -> str:
    return f"{len(tree.visits):,} nodes, {int((tree.visits == 0).sum()):,} unused"


def _percent(row: np.ndarray) -> str:
    """The unused part of a level; less than half of a per cent is not zero."""
    part = 100 * float((row == 0).mean())
    return "<1%" if 0 < part < 0.5 else ">99%" if 99.5 <= part < 100 else f"{part:.0f}%"

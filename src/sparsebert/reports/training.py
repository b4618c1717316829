"""How a sparse training went, and where the zeros are that it left."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING

from sparsebert.records import ModelResult, SparsityAt
from sparsebert.reports import values as v
from sparsebert.reports.families import Family
from sparsebert.reports.tables import Cell, Section, Table
from sparsebert.reports.theme import LEGEND_LETTERS, LIGHT, Theme, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MATRIX = re.compile(r"\.(\d+)\.(.+?)(?:\.weight)?$")
# Parts of names that tell no matrix of a layer from another.
_EMPTY_WORDS = ("self", "dense")


_Measure = Callable[[SparsityAt], float | None]
_MEASURES: dict[str, _Measure] = {
    "Sparsity, %": lambda row: None if row.sparsity is None else 100 * row.sparsity,
    "Loss": lambda row: row.loss,
}


@dataclass(frozen=True)
class PhaseSpan:
    """One phase: the steps before it, and what it logged, its own steps counted from 0."""

    name: str
    start: int
    rows: tuple[SparsityAt, ...]

    def line(self, measure: _Measure) -> list[tuple[int, float]]:
        """Steps of the whole training and what was measured there."""
        return [(self.start + row.step, value) for row in self.rows if (value := measure(row)) is not None]


def timeline_plot(model: ModelResult, theme: Theme = LIGHT) -> Figure | None:
    """Sparsity and loss over the steps of all phases, one after the other; None with fewer than two logged steps."""
    spans = phase_spans(model)
    if sum(len(span.rows) for span in spans) < 2:
        return None
    shown = [name for name, measure in _MEASURES.items() if any(span.line(measure) for span in spans)]
    with styled(theme):
        figure = new_figure(6.0, 0.7 + 1.5 * len(shown))
        panels = list(figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0])
        for axes, name in zip(panels, shown, strict=True):
            _draw_panel(axes, name, spans, theme)
        panels[-1].set_xlim(0, spans[-1].start + model.phases[spans[-1].name].steps)
        panels[-1].set_xlabel("Step")
        if len(spans) > 1:
            _name_phases(panels, spans, theme)
        return figure


def describe_training(model: ModelResult) -> str:
    """The timeline in words, for readers that see no picture."""
    said = []
    for span in phase_spans(model):
        for row in span.rows:
            sparsity = "" if row.sparsity is None else f", {v.fraction(row.sparsity)} sparse"
            said.append(f"{span.name}: loss {row.loss:.3g} at step {span.start + row.step}{sparsity}")
    return "; ".join(said)


def sparsity_table(groups: Sequence[Family]) -> Table:
    """Zeros in each matrix when training ended, before dead units were cut: a row a layer, a column a matrix.

    Of several seeds, the first run's; a section a model that has such numbers.
    """
    found = [
        (f"{family.label}: {name}" if len(groups) > 1 else name, by_matrix(model))
        for family in groups
        for name in family.names
        if (model := family.runs(name)[0][1]).sparsity_by_tensor
    ]
    matrices = list(dict.fromkeys(matrix for _, numbers in found for _, matrix in numbers))
    sections = []
    for heading, numbers in found:
        layers = dict.fromkeys(layer for layer, _ in numbers)
        rows = ((Cell(layer), *(_fraction(numbers.get((layer, matrix))) for matrix in matrices)) for layer in layers)
        sections.append(Section(heading if len(found) > 1 else "", tuple(rows)))
    return Table("Zeros by layer and matrix", (Cell("Layer"), *map(_head, matrices)), tuple(sections))


def phase_spans(model: ModelResult) -> list[PhaseSpan]:
    """The timeline by phases, in each of which steps count from 0; rows that do not say theirs are of the only one."""
    start, found, alone = 0, [], len(model.phases) == 1
    for name, run in model.phases.items():
        own = tuple(row for row in model.timeline if row.phase == name or (alone and row.phase is None))
        found.append(PhaseSpan(name, start, own))
        start += run.steps
    return found


def _draw_panel(axes: Axes, name: str, spans: Sequence[PhaseSpan], theme: Theme) -> None:
    colour = theme.neurons if name == "Loss" else theme.heads
    for line in filter(None, (span.line(_MEASURES[name]) for span in spans)):
        steps, values = zip(*line, strict=True)
        axes.plot(steps, values, color=colour, linewidth=2, marker="o", markersize=4 if len(steps) < 40 else 0)
    for span in spans[1:]:
        axes.axvline(span.start, color=theme.muted, linestyle=(0, (5, 4)), linewidth=1)
    axes.set_ylabel(name)
    axes.margins(y=0.12)
    # Penalties can drive a loss below zero.
    if axes.dataLim.y0 >= 0:
        axes.set_ylim(bottom=0)
    axes.grid(True)
    axes.tick_params(length=0)


def _name_phases(panels: Sequence[Axes], spans: Sequence[PhaseSpan], theme: Theme) -> None:
    """Numbers above the phases, and their names at the axis: a phase may be too short for its name."""
    ends = [span.start for span in spans[1:]] + [panels[0].get_xlim()[1]]
    for number, (span, end) in enumerate(zip(spans, ends, strict=True), start=1):
        place, across = ((span.start + end) / 2, 1.03), panels[0].get_xaxis_transform()
        panels[0].text(*place, str(number), transform=across, ha="center", fontsize=9.5, color=theme.muted)
    names = ", ".join(f"{number}: {span.name}" for number, span in enumerate(spans, start=1))
    panels[-1].set_xlabel(fill(f"Step ({names})", LEGEND_LETTERS))


def by_matrix(model: ModelResult) -> dict[tuple[str, str], float]:
    """Fraction of zeros by layer, counted from 1, and matrix inside a layer."""
    return {place_of(name): part for name, part in model.sparsity_by_tensor.items()}


def place_of(tensor: str) -> tuple[str, str]:
    """The layer, counted from 1, and the matrix inside it; of a matrix outside the layers a dash and its name."""
    place = _MATRIX.search(tensor)
    return (v.DASH, tensor.removesuffix(".weight")) if place is None else (str(int(place[1]) + 1), place[2])


def matrix_words(matrix: str) -> tuple[str, str]:
    """A matrix's own name and that of its block, which may be empty: `query`, `attention`."""
    *block, last = [word for word in matrix.split(".") if word not in _EMPTY_WORDS] or [matrix]
    return last, " ".join(block)


def _head(matrix: str) -> Cell:
    return Cell(*matrix_words(matrix))


def _fraction(part: float | None) -> Cell:
    return Cell(v.DASH if part is None else v.fraction(part))

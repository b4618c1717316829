"""What a chart shows, as plain data: panels of cells, of lines, or of ranges. How they look is in chart_plots.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sparsebert.reports import values as v

NumberForm = Literal["percent", "number", "signed", "count", "correlation"]
Number = float | int | None
ROUNDING = 1e-12


@dataclass(frozen=True)
class HeatPanel:
    """Cells of `values` [rows][columns], None = absent; colours go from `low` to `high`, none = from least to most."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[Number, ...], ...]
    form: NumberForm = "number"
    row_label: str = ""
    column_label: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ChartLine:
    """Points of one line, None = absent; with `low` and `high` a band about it.

    A `reference` is no measurement but what the others are compared with. Points that are not `joined` are of things
    that have no order.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[Number, ...]
    low: tuple[Number, ...] = ()
    high: tuple[Number, ...] = ()
    reference: bool = False
    joined: bool = True


@dataclass(frozen=True)
class LinePanel:
    """Lines over one axis. `ticks` name the places 0, 1 … of the axis; `level` is a dashed line across."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[ChartLine, ...]
    ticks: tuple[str, ...] = ()
    level: float | None = None


@dataclass(frozen=True)
class ChartRange:
    """A point with an interval, none = only the point; a `strong` one is drawn as the one that matters."""

    label: str
    mid: Number
    low: Number = None
    high: Number = None
    strong: bool = False


@dataclass(frozen=True)
class RangePanel:
    """Ranges below each other; `level` is a dashed line down."""

    title: str
    x_label: str
    ranges: tuple[ChartRange, ...]
    level: float | None = None


Panel = HeatPanel | LinePanel | RangePanel


@dataclass(frozen=True)
class StudyChart:
    """Panels in rows of `columns`."""

    panels: tuple[Panel, ...]
    columns: int = 2


def written(number: Number, form: NumberForm) -> str:
    """A number as tables and cells have it; a dash for none."""
    if number is None:
        return v.DASH
    if form == "percent":
        return v.fraction(number)
    if form == "count":
        return f"{number:,.0f}"
    if form == "correlation":
        # No −0.000.
        return f"{round(number, 3) + 0.0:.3f}".replace("-", v.MINUS)
    # What is left of a sum that is zero says nothing.
    size = 0.0 if abs(number) < ROUNDING else abs(number)
    sign = "" if not size else v.MINUS if number < 0 else "+" if form == "signed" else ""
    return sign + v.digits(size)

"""Charts of studies: how numbers are written, and that panels hold what they are given, absent numbers too."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sparsebert.reports.chart_plots import draw_chart
from sparsebert.reports.charts import (
    ChartLine,
    ChartRange,
    HeatPanel,
    LinePanel,
    NumberForm,
    RangePanel,
    StudyChart,
    written,
)
from sparsebert.reports.render import as_markdown
from sparsebert.reports.study import StudyColumn, StudyResult, StudyRow, study_json, study_table
from sparsebert.reports.theme import to_png


@pytest.mark.parametrize(
    ("number", "form", "text"),
    [
        (0.1234, "percent", "12.3%"),
        (-0.02, "percent", "−2.0%"),
        (1234567, "count", "1,234,567"),
        (-0.5, "number", "−0.500"),
        (-0.5, "signed", "−0.500"),
        (12.34, "signed", "+12.3"),
        (0, "signed", "0"),
        (4.6e-18, "number", "0"),
        (-4.6e-18, "signed", "0"),
        (-0.0001, "correlation", "0.000"),
        (-0.6789, "correlation", "−0.679"),
        (None, "percent", "–"),
    ],
)
def test_how_numbers_are_written(number: float | None, form: NumberForm, text: str):
    assert written(number, form) == text


HEAT = HeatPanel("$heat$", ("1", "2"), ("a word", "b"), ((0.0, None), (0.5, 1.0)), "percent", "Layer")
LINES = LinePanel(
    "lines",
    "x",
    "y",
    (
        ChartLine("_one", (1.0, 2.0, 3.0), (1.0, None, 3.0), (0.5, None, 2.5), (1.5, None, 3.5)),
        ChartLine("chance", (1.0, 3.0), (0.0, 0.0), reference=True),
    ),
    level=2.0,
)
RANGES = RangePanel("ranges", "points", (ChartRange("a", 1.0, 0.0, 2.0, True), ChartRange("b", None)), 0.0)


def test_panels_hold_what_they_are_given():
    figure = draw_chart(StudyChart((HEAT, LINES, RANGES)))
    heat, lines, ranges, empty = figure.axes
    # Each cell is written, the absent one as a dash.
    assert [text.get_text() for text in heat.texts] == ["0.0%", "–", "50.0%", "100.0%"]
    assert heat.get_title(loc="left") == "$heat$" and heat.get_ylabel() == "Layer"
    drawn = [line for line in lines.lines if len(line.get_xdata()) == 2 and line.get_marker() == "o"]
    assert [list(np.asarray(line.get_ydata())) for line in drawn] == [[1.0, 3.0]]
    assert [list(np.asarray(line.get_xdata())) for line in ranges.lines[:2]] == [[0.0, 2.0], [1.0]]
    assert [label.get_text() for label in figure.legends[0].get_texts()] == ["_one", "chance"]
    assert not empty.axison and to_png(figure).startswith(b"\x89PNG")


def test_ranges_of_the_same_numbers_share_their_axis():
    far = RangePanel("far", "points", (ChartRange("c", 50.0, 40.0, 60.0),))
    other = RangePanel("other", "parts", (ChartRange("d", 0.5),))
    first, second, third = draw_chart(StudyChart((RANGES, far, other), columns=3)).axes
    assert first.get_xlim() == second.get_xlim() and first.get_xlim()[1] > 60 and third.get_xlim()[1] < 2


@pytest.mark.parametrize("columns", [1, 13, 40])
def test_wide_cells_and_constant_values_can_be_drawn(columns: int):
    names = tuple(f"dimension_{place}_of_all" for place in range(columns))
    [axes] = draw_chart(StudyChart((HeatPanel("h", ("1",), names, ((0.3,) * columns,)),))).axes
    assert len(axes.texts) == (columns if columns <= 13 else 0)


def test_ends_of_intervals_are_small_print_and_absent_numbers_are_left_out():
    columns = (
        StudyColumn("what", "What"),
        StudyColumn("value", "Value", "95%"),
        StudyColumn("low", "Value", beside=True),
        StudyColumn("high", "Value", beside=True),
        StudyColumn("more", "More", form="count"),
    )
    rows = (StudyRow("one", ("a", 0.5, 0.25, 0.75, 3)), StudyRow("two", ("b|c", float("nan"), None, None, None)))
    found = StudyResult("s", "Why?", "So.", "Thus.", ("m",), columns, rows, StudyChart((RANGES,)), settings={"On": "x"})
    text = as_markdown(study_table(found))
    assert "| What | Value (95%) | More |" in text and "| a | 0.500 (0.250 to 0.750) | 3 |" in text
    assert "| b\\|c | – | – |" in text and "- On: x." in text
    made = study_json(found)
    assert made["rows"] == [
        {"checkpoint": "one", "what": "a", "value": 0.5, "low": 0.25, "high": 0.75, "more": 3},
        {"checkpoint": "two", "what": "b|c"},
    ]
    assert json.loads(json.dumps(made, allow_nan=False))["chart"]["panels"][0]["ranges"][1]["mid"] is None

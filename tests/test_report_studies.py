"""Studies that lie beside a record: read back as they were written, and shown on the run's page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from example_record import example_record
from sparsebert.errors import UserError
from sparsebert.records import write_record
from sparsebert.reports import write_report
from sparsebert.reports.charts import ChartLine, ChartRange, HeatPanel, LinePanel, RangePanel, StudyChart
from sparsebert.reports.study import StudyColumn, StudyResult, StudyRow, study_json
from sparsebert.reports.study_files import read_study, study_files, write_study
from test_report_page import EVIL, Reader

pytestmark = pytest.mark.pictures
CHART = StudyChart(
    (
        HeatPanel("heat", ("1",), ("a", "b"), ((0.5, None),), "percent", low=0.0),
        LinePanel("lines", "x", "y", (ChartLine("one", (0.0, 1.0), (1, None), reference=True),), level=2.0),
        RangePanel("ranges", "x", (ChartRange("r", 1.5, 1.0, 2.0, strong=True),)),
    ),
    columns=3,
)
FOUND = StudyResult(
    "mask-overlap",
    "How much do the masks overlap?",
    f"A half of it {EVIL}.",
    "Part of both.",
    ("a", "b"),
    (
        StudyColumn("name", "Name"),
        StudyColumn("part", "Part", "of all", "percent"),
        StudyColumn("n", "n", form="count"),
    ),
    (StudyRow("a vs b", ("query", 0.25, 7)), StudyRow("a vs b", ("key", None, 0))),
    CHART,
    heading="pair",
    settings={"Masks": "exact zeros"},
    notes=("Of two.",),
)


def _run(folder: Path, *studies: StudyResult) -> Path:
    folder.mkdir()
    write_record(example_record(), folder)
    for one in studies:
        write_study(one, folder / "studies", f"sparsebert study {one.study}")
    return folder


def test_a_study_is_read_as_it_was_written(tmp_path: Path):
    run = _run(tmp_path / "run", FOUND)
    assert study_files(run) == study_files(run / "record.json") == [run / "studies" / "mask-overlap.json"]
    assert read_study(study_files(run)[0]) == FOUND


def test_the_page_of_a_run_shows_its_studies(tmp_path: Path):
    run = _run(tmp_path / "run", FOUND, replace(FOUND, study="other", question="Another?"))
    page = write_report([example_record()], tmp_path / "page.html", runs=[run]).read_text(encoding="utf-8")
    read = Reader(page)
    assert "#studies" in read.links and read.text.index("How much do the masks overlap?") < read.text.index("Another?")
    for words in ("A half of it", "Part of both.", "25.0%", "Masks: exact zeros.", "Of two."):
        assert words in read.text
    assert "script" not in read.tags and EVIL in read.text
    assert "Studies" not in Reader(write_report([example_record()], tmp_path / "page.html").read_text()).text


def test_studies_of_several_runs_are_told_apart(tmp_path: Path):
    runs = [_run(tmp_path / name, FOUND) for name in ("first", "second")]
    page = write_report([example_record(), example_record(1)], tmp_path / "page.html", runs=runs).read_text()
    assert {"#studies-of-first", "#studies-of-second"} <= {*Reader(page).links}


def test_what_cannot_be_read_is_one_line_and_the_rest_is_shown(tmp_path: Path):
    run = _run(tmp_path / "run", FOUND)
    damaged = study_json(FOUND)
    damaged["chart"]["panels"] = [{"title": "none"}]
    for name, content in (("a", "{"), ("b", "[1]"), ("c", json.dumps(damaged)), ("d", json.dumps({"study": 1}))):
        (run / "studies" / f"{name}.json").write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match="This is no study that can be read"):
            read_study(run / "studies" / f"{name}.json")
    text = Reader(write_report([example_record()], tmp_path / "page.html", runs=[run]).read_text()).text
    assert text.count("This is no study that can be read") == 4 and "How much do the masks overlap?" in text

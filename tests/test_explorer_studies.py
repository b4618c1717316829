"""Studies that lie beside a run in the explorer: below each of its models, and in an export."""

# ruff: noqa: E402

from __future__ import annotations

import re
from pathlib import Path

import pytest

for _package in ("starlette", "jinja2", "plotly"):
    pytest.importorskip(_package)

from starlette.testclient import TestClient

from example_record import example_record
from exploring import runs_of
from sparsebert.explorer.app import Desk, application
from sparsebert.explorer.library import Library
from sparsebert.explorer.models import shown_models
from sparsebert.explorer.studies import shown_studies
from sparsebert.reports.study_files import write_study
from test_report_page import EVIL, Reader
from test_report_studies import FOUND
from tiny_run import run_cli

pytestmark = pytest.mark.pictures


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two seeds of a run; a study of the first, and a file that is none."""
    runs_of(tmp_path / "runs", first=example_record(0), second=example_record(1))
    studies = tmp_path / "runs" / "first" / "studies"
    write_study(FOUND, studies, "sparsebert study mask-overlap")
    (studies / "broken.json").write_text("{", encoding="utf-8")
    return tmp_path / "runs"


def test_a_model_is_shown_with_the_studies_of_its_run(home: Path):
    client = TestClient(application(Desk(Library([home])), None), base_url="http://127.0.0.1:8080")
    page = client.get("/model", params={"key": "first/4x"}).text
    read = Reader(page)
    for words in ("How much do the masks overlap?", "Part of both.", "25.0%", "This is no study that can be read"):
        assert words in read.text
    assert EVIL in read.text and "onload" not in read.attributes
    assert len(re.findall(r'<img src="data:image/png;base64,\w', page)) == 1
    assert "Studies" not in Reader(client.get("/model", params={"key": "second/4x"}).text).text


def test_medians_of_several_runs_have_no_studies(home: Path):
    models = shown_models(Library([home]).look().runs)
    found = {model.key: len(list(shown_studies(model))) for model in models if model.name == "4x"}
    assert sorted(found.values()) == [0, 0, 2] and found["first/4x"] == 2


def test_an_export_has_them_too(home: Path, tmp_path: Path):
    assert run_cli("explore", home, "-o", tmp_path / "out").exit_code == 0
    assert "How much do the masks overlap?" in (tmp_path / "out" / "assets" / "models.js").read_text(encoding="utf-8")

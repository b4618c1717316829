"""The records of results/ can be read, and the tables of its pages and of docs/results are those of the records."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import statistics
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sparsebert.deployment.manifest import Manifest
from sparsebert.records import read_record, record_files
from sparsebert.runs.checked import CheckResult
from tiny_run import run_cli

ROOT = Path(__file__).parents[1]
RESULTS, DOCS, BENCHMARKS = ROOT / "results", ROOT / "docs", ROOT / "benchmarks"
STUDIES = sorted(folder for folder in RESULTS.iterdir() if folder.is_dir())
# The one table that is of no page of a study.
OF_README = "deployed-family-short"
PAGES = sorted([ROOT / "README.md", *RESULTS.glob("*/README.md"), *(DOCS / "results").glob("*.md")])
RECORDS = sorted(RESULTS.rglob("record.json"))
MANIFESTS = sorted(RESULTS.rglob("manifests/*.json"))
CHECKS = sorted(RESULTS.rglob("checks/*.json"))
ASKED = sorted(RESULTS.rglob("studies/*.json"))
OTHERS = {*RECORDS, *MANIFESTS, *CHECKS, *ASKED, *RESULTS.rglob("packs/*.json"), *RESULTS.rglob("bench.json")}
ROWS = [file for file in sorted(RESULTS.rglob("*.json")) if file not in OTHERS]
# One folder of runs a study.
SWEEPS = list({file.relative_to(RESULTS).parts[0]: file.parents[1] for file in RECORDS}.values())


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("results_tables.pages")


def test_there_is_something_to_check() -> None:
    assert len(STUDIES) >= 11 and len(RECORDS) > 200 and len(ROWS) > 10 and len(PAGES) >= 2 * len(STUDIES)


def test_tables_on_pages_are_those_of_the_records(pages: ModuleType) -> None:
    assert pages.pages() == PAGES
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES}
    assert [name(page) for page, text in texts.items() if pages.rewritten(text) != text] == [], "run `make results`"
    for folder in (RESULTS, DOCS):
        marked = [
            found["name"]
            for page, text in texts.items()
            if folder in page.parents
            for found in pages.REGION.finditer(text)
        ]
        assert sorted(marked) == sorted(set(pages.TABLES) - {OF_README})
    assert [found["name"] for found in pages.REGION.finditer(texts[ROOT / "README.md"])] == [OF_README]
    assert all(len(text.split("<!-- table: ")) == len(text.split("<!-- end -->")) for text in texts.values())


def test_a_region_is_filled_and_an_unknown_one_is_refused(pages: ModuleType) -> None:
    text = "before\n<!-- table: training-cost -->\nold\n<!-- end -->\nafter\n"
    written = pages.rewritten(text)
    assert written.startswith("before\n<!-- table: training-cost -->\n\n| rules |") and written.endswith("-->\nafter\n")
    assert "old" not in written and pages.rewritten(written) == written
    with pytest.raises(KeyError, match="no-such-table"):
        pages.rewritten("<!-- table: no-such-table -->\n<!-- end -->")


def test_numbers_are_written_as_in_the_field(pages: ModuleType) -> None:
    values = importlib.import_module("results_tables.values")
    assert [values.signed(value) for value in (1.25, -0.04, -3.16)] == ["+1.2", "+0.0", "−3.2"]
    assert values.spread([3.0, 1.0, 2.04]) == "2.0 (1.0–3.0)"
    quartiles = {"speedup": 9.876, "speedup_q25": 9.5, "speedup_q75": 101.4}
    assert values.ratio(quartiles) == "9.88 (9.50–101)" and values.ratio({"speedup": 12.34}) == "12.3"
    assert values.us({"median_ms": 0.0284}) == "28.4 us" and values.us({"median_ms": 40.54}) == "40,540 us"
    assert values.table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_cells_agree_with_the_files_read_by_other_means(pages: ModuleType) -> None:
    runs = [json.loads((RESULTS / f"structured-sst2/records/obs-{s}/record.json").read_text("utf-8")) for s in range(3)]
    scores = [100 * run["models"][2]["scores"][0]["value"] for run in runs]
    cell = f"{statistics.median(scores):.1f} ({min(scores):.1f}–{max(scores):.1f})"
    speeds = ", ".join(
        f"{next(one['speedup'] for one in run['models'][2]['timings'] if one['scope'] == 'encoder'):.2f}"
        for run in runs
    )
    line = next(line for line in pages.TABLES["structured-sst2"]().splitlines() if line.startswith("| obs | 4x |"))
    assert cell in line and speeds in line

    folder = RESULTS / "criteria-sst2" / "records" / "plain"
    by_method = {
        method: [
            100
            * json.loads((folder / f"{method}_0.9_seed{s}/record.json").read_text("utf-8"))["models"][-1]["scores"][0][
                "value"
            ]
            for s in range(3)
        ]
        for method in ("L0", "magnitude")
    }
    gains = [own - base for own, base in zip(by_method["L0"], by_method["magnitude"], strict=True)]
    table = pages.TABLES["criteria-sst2-90"]().splitlines()
    assert ", ".join(f"{gain:+.1f}" for gain in gains) in next(line for line in table if line.startswith("| L0"))
    assert next(line for line in table if line.startswith("| magnitude")).endswith("|  |")


@pytest.mark.parametrize("study", STUDIES, ids=name)
def test_a_study_has_a_readme_records_and_a_page(study: Path) -> None:
    assert sorted(path.name for path in study.iterdir()) == ["README.md", "records"]
    readme = (study / "README.md").read_text(encoding="utf-8")
    assert "**Question.** " in readme and "- **Spread**" in readme and "- **Machine" in readme and "```bash" in readme
    page = DOCS / "results" / f"{study.name}.md"
    assert f"](../../docs/results/{page.name})" in readme
    assert f"](../../results/{study.name}/README.md)" in page.read_text(encoding="utf-8")
    assert f"]({study.name}/README.md)" in (RESULTS / "README.md").read_text(encoding="utf-8")
    for index, link in ((DOCS / "results" / "README.md", page.name), (DOCS / "index.md", f"results/{page.name}")):
        assert f"]({link})" in index.read_text(encoding="utf-8")


def test_old_records_are_readable() -> None:
    for record in map(read_record, RECORDS):
        assert record.status == "finished" and record.models[-1].scores


def test_manifests_are_readable() -> None:
    found = [Manifest.model_validate_json(file.read_bytes()) for file in MANIFESTS]
    assert len(found) >= 3 and all(one.programs and one.scores for one in found)


def test_checks_are_what_the_package_writes() -> None:
    found = [CheckResult.model_validate_json(file.read_bytes()) for file in CHECKS]
    assert len(found) >= 6 and all(one.first and one.second and one.metric for one in found)


@pytest.mark.parametrize("folder", SWEEPS, ids=name)
def test_records_can_be_reported(folder: Path, tmp_path: Path) -> None:
    few = record_files(folder)[:3]
    assert run_cli("report", *few, "-o", tmp_path / "report.html").exit_code == 0
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("file", ROWS, ids=name)
def test_files_of_benchmarks_have_one_form(file: Path) -> None:
    plain = json.loads(file.read_text(encoding="utf-8"))
    assert {"options", "rows"} <= set(plain) <= {"environment", "native", "options", "rows"}
    for row in plain["rows"]:
        if "criterion" in row:
            assert row["metric"] in row["scores"]
            continue
        if "megabytes" in row:
            assert 0 < row["lowest"] <= row["accuracy"] <= row["highest"]
            continue
        if "server" in row:
            assert row["p50_ms"] <= row["p99_ms"]
            continue
        times = row["times"]
        assert {"case", "variant", "baseline", "times"} <= set(row)
        assert times["median_ms"] > 0 and ("speedup" in times) == (row["baseline"] is not None)
        low, high = (times.get(key, times.get("speedup")) for key in ("speedup_q25", "speedup_q75"))
        assert low is None or low <= times["speedup"] <= high


def commands(page: Path) -> list[list[str]]:
    """The lines of a page that run a benchmark, in words from the script's name on."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    split = [shlex.split(line, comments=True) for line in lines if "benchmarks/" in line]
    return [
        words[next(place for place, word in enumerate(words) if word.startswith("benchmarks/")) :] for words in split
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name)
def test_commands_of_benchmarks_have_these_options(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    for script, *words in commands(page):
        assert (ROOT / script).is_file()
        options: Any = importlib.import_module(Path(script).stem).arguments(words)
        assert options.output is None or name(ROOT / options.output).startswith("results/")

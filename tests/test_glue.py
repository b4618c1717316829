"""`sparsebert glue` as a whole on tiny tasks: what it leaves, that it goes on, and what it refuses before it trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sparsebert
from sparsebert.records import read_record
from sparsebert.runs.glue_answers import Answers
from sparsebert.tasks.glue import GLUE
from tiny_glue import write_glue
from tiny_run import assert_refused, run_cli, save_tiny

SHORT = ("--set", "training.max_steps=2", "--set", "training.evaluate=null")
TASKS = ("cola", "stsb")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("glue")
    save_tiny(folder / "base", "base")
    save_tiny(folder / "three", num_labels=3)
    write_glue(folder / "data", TASKS)
    write_glue(folder / "all", ["mnli", "rte"], train=8, dev=8, test=2)
    return folder


def glue(home: Path, name: str, *options: object, tasks: str = ",".join(TASKS)) -> Any:
    given = ("--tasks", tasks, "--data", home / "data", "-o", home / name, *SHORT, *options)
    return run_cli("glue", home / "base", *given)


@pytest.fixture(scope="module")
def done(home: Path) -> Any:
    said = glue(home, "done", "--runs", 2, "--test")
    assert said.exit_code == 0, said.output
    return said


def test_every_task_has_its_runs_and_the_tables_lie_beside_them(home: Path, done: Any):
    points = [f"{task}_seed={seed}" for seed in (0, 1) for task in TASKS]
    records = {name: read_record(home / "done" / name) for name in points}
    assert {(one.task, one.seed) for one in records.values()} == {(task, seed) for task in TASKS for seed in (0, 1)}
    assert "median of 2 runs" in done.stdout and "Mean of two" in done.stdout and "GLUE score" not in done.stdout
    plain = json.loads((home / "done" / "glue.json").read_text())
    scores = plain["models"]["finetuned"]
    values = [records[f"stsb_seed={seed}"].models[0].scores for seed in (0, 1)]
    means = [sum(score.value for score in own) / 2 for own in values]
    assert scores["tasks"]["stsb"]["median"] == pytest.approx(sum(means) / 2)
    assert scores["tasks"]["stsb"]["best"] == max(means) and scores["averages"]["mean of two"]["runs"] == 2
    for name, mark in {
        "glue.md": "| CoLA",
        "glue.tex": r"\toprule",
        "glue.html": "<table",
        "report.html": "<h2>GLUE",
    }.items():
        assert mark in (home / "done" / name).read_text(), name


def test_the_best_run_answers_and_no_model_stays(home: Path, done: Any):
    chosen = json.loads((home / "done" / "test" / "finetuned" / "chosen.json").read_text())["tasks"]
    for task in TASKS:
        scores = {f"{task}_seed={seed}": _value(home / "done" / f"{task}_seed={seed}") for seed in (0, 1)}
        assert scores[chosen[task]["point"]] == max(scores.values()) and chosen[task]["best_of"] == 2
        assert not any((home / "done" / name / "finetuned").exists() for name in scores)
    lines = (home / "done" / "test" / "finetuned" / "CoLA.tsv").read_text().splitlines()
    assert lines[0] == "index\tprediction" and [line.split("\t")[0] for line in lines[1:]] == list("0123")
    assert not list((home / "done").glob("*.zip")) and "missing: MNLI-m" in done.stdout


def _value(run: Path) -> float:
    record = read_record(run)
    own = [one.value for one in record.models[0].scores if one.metric in GLUE[record.task].metrics]
    return sum(own) / len(own)


def test_the_same_command_goes_on_from_what_is_there(home: Path, done: Any):
    before = {file: file.stat().st_mtime_ns for file in (home / "done").glob("*/record.json")}
    tables = (home / "done" / "glue.md").read_text()
    lost = home / "done" / "cola_seed=1" / "finished.json"
    lost.unlink()
    said = glue(home, "done", "--runs", 2, "--test")
    assert said.exit_code == 0, said.output
    again = {file: file.stat().st_mtime_ns for file in (home / "done").glob("*/record.json")}
    assert [file.parent.name for file in before if before[file] != again[file]] == ["cola_seed=1"]
    assert (home / "done" / "glue.md").read_text() == tables


def test_answers_that_are_gone_are_made_by_the_best_run_again(home: Path, done: Any):
    file = home / "done" / "test" / "finetuned" / "STS-B.tsv"
    content = file.read_bytes()
    file.unlink()
    said = glue(home, "done", "--runs", 2, "--test")
    assert said.exit_code == 0 and "Run again, as their models are gone: stsb_seed=" in said.stderr
    assert file.read_bytes() == content


def test_from_python_with_the_diagnostic_set_and_a_baseline(home: Path):
    settings = ["training.max_steps=1", "training.evaluate=null"]
    given: dict[str, Any] = {"data": home / "all", "settings": settings, "progress": False}
    tasks = ["rte", "mnli"]
    found = sparsebert.glue(home / "base", tasks=tasks, output=home / "two", test=True, **given)
    assert list(found.records) == ["mnli_seed=0", "rte_seed=0"] and not found.failed
    assert [one.name for one in found.scores.averages["finetuned"]] == ["mean of two"]
    answers = {file.stem: file.read_text().splitlines() for file in (home / "two" / "test").glob("*/*.tsv")}
    assert answers.keys() == {"MNLI-m", "MNLI-mm", "AX", "RTE"}
    said = {line.split("\t")[1] for line in answers["AX"][1:]}
    assert len(answers["AX"]) == 3 and said <= {"entailment", "neutral", "contradiction"}
    assert "<table" in found._repr_html_()
    words = ("--data", home / "all", "--tasks", "rte", "--baseline", home / "two", "-o", home / "two")
    part = run_cli("glue", home / "base", *words, *(word for one in settings for word in ("--set", one)))
    assert part.exit_code == 0 and "% of two" in part.stdout and "100.0%" in part.stdout


def test_a_family_has_a_row_a_member(home: Path, tmp_path: Path):
    recipe = tmp_path / "half.yaml"
    recipe.write_text(
        "kind: compress\ntargets: [{kind: sparsity, value: 0.5}]\nfinetune: null\ndense: {max_steps: 2}\n"
        "measure: {timed: false}\nsearch: {examples: 16, score_examples: 8, candidates: 2}\n"
    )
    said = run_cli(
        "glue",
        home / "base",
        "--recipe",
        recipe,
        "--data",
        home / "data",
        "--tasks",
        "cola",
        "-o",
        home / "family",
        "--baseline",
        "dense",
        "--json",
    )
    assert said.exit_code == 0, said.output
    plain = json.loads(said.stdout)
    assert len(plain["models"]) == 2 and "dense" in plain["models"]
    page = (home / "family" / "glue.md").read_text()
    assert "**base, dense**" in page and "% of dense" in page
    (home / "family" / "report.html").unlink()
    assert run_cli("report", home / "family").exit_code == 0
    assert "GLUE metric by metric" in (home / "family" / "report.html").read_text()


def test_a_task_that_fails_does_not_stop_the_others(home: Path, tmp_path: Path):
    plan = tmp_path / "plan.yaml"
    plan.write_text("overrides: {cola: {settings: {training.learning_rate: 1.0e+11, training.max_steps: 30}}}")
    said = run_cli(
        "glue",
        home / "base",
        "--tasks",
        "cola,stsb",
        "--data",
        home / "data",
        "-o",
        home / "failed",
        "--plan",
        plan,
        "--set",
        "training.evaluate=null",
        "--set",
        "training.epochs=1",
    )
    assert said.exit_code == 2 and "1 runs failed: cola_seed=0" in said.stderr
    assert "1 failed" in said.stdout and "CoLA: 1 run without a result." in said.stdout
    assert read_record(home / "failed" / "stsb_seed=0").status == "finished"


def test_an_unknown_baseline_is_said_after_the_runs(home: Path, done: Any):
    said = glue(home, "done", "--runs", 2, "--baseline", "densee")
    assert said.exit_code == 2 and "Unknown baseline" in said.stderr


BAD: dict[str, tuple[tuple[object, ...], str]] = {
    "task": (("--tasks", "cola,snli"), "Unknown GLUE task 'snli'"),
    "plan": (("--plan", "delvin"), "Did you mean 'devlin'?"),
    "files": (("--tasks", "cola,rte,mnli"), "mnli/train.parquet, mnli/validation_matched.parquet, rte/train.parquet"),
    "setting": (("--set", "task=rte"), "name tasks with --tasks"),
    "key": (("--set", "trainin.epochs=1"), "Unknown recipe key 'trainin'"),
    "model": (("three",), "has a head of 3 labels, and other tasks have other numbers; got CoLA (2), STS-B (1)"),
    "runs": (("--runs", "0"), "--runs"),
    "workers": (("--on", "locl:2"), "locl:2"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_before_anything_is_trained(home: Path, name: str):
    options, said = BAD[name]
    model = home / ("three" if name == "model" else "base")
    given = {"--tasks": "cola,stsb"} | ({} if name == "model" else dict(zip(options[::2], options[1::2], strict=True)))
    words = [word for pair in given.items() for word in pair]
    found = run_cli("glue", model, "--data", home / "data", "-o", home / "bad", *words)
    assert_refused(found, [said])
    assert not (home / "bad").exists()


def test_missing_test_splits_are_refused_first(home: Path):
    (home / "data" / "cola" / "test.parquet").rename(home / "kept.parquet")
    try:
        assert_refused(glue(home, "untested", "--test"), ["Test splits are missing: cola/test.parquet"])
    finally:
        (home / "kept.parquet").rename(home / "data" / "cola" / "test.parquet")
    assert not (home / "untested").exists()


def test_a_damaged_list_of_answers_is_made_again(home: Path, tmp_path: Path):
    (tmp_path / "test" / "finetuned").mkdir(parents=True)
    (tmp_path / "test" / "finetuned" / "chosen.json").write_text("{")
    assert Answers(tmp_path, None, False, False)._known("finetuned", "cola") is None

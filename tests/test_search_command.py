"""`sparsebert search` with real trainings of a tiny model: a whole search, a pruned trial, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sparsebert
from sparsebert.recipe.base import Recipe
from sparsebert.recipe.load import load_recipe
from sparsebert.records import read_record
from sparsebert.records.searched import read_search
from sparsebert.runs.executors.base import InProcess
from sparsebert.runs.job import JobMaker, RunJob
from sparsebert.runs.optuna_study import StudyPlace, make_pruner, open_study, pruner_options
from sparsebert.runs.trials import Pruning, TrialJob, run_trial
from tiny_run import assert_refused, run_cli, save_tiny, write_task

SHORT = ("training.max_steps=4", "training.evaluate={every: {steps: 2}}", "measure.timed=false")
SETTINGS = tuple(part for setting in SHORT for part in ("--set", setting))
SPACE = ("--space", "training.learning_rate=1e-5:1e-2:log")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    save_tiny(folder / "model")
    write_task(folder / "data", train=96)
    return folder


def given(home: Path, *options: object) -> tuple[object, ...]:
    return ("finetune", "--model", home / "model", "--task", "mine", "--data", home / "data", *SETTINGS, *options)


def test_a_whole_search_and_its_recipe(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPARSEBERT_PICTURES", "on")
    options = (*SPACE, "--trials", 2, "--repeats", 1, "-o", tmp_path / "out", "--json")
    said = run_cli("search", *given(home, *options))
    assert said.exit_code == 0, said.output
    answer = json.loads(said.stdout)
    search = read_search(tmp_path / "out")
    assert [one.state for one in search.trials] == ["finished", "finished"]
    for one in search.trials:
        record = read_record(tmp_path / "out" / str(one.record))
        [score] = [score for score in record.models[0].scores if score.metric == "accuracy"]
        assert (score.split, score.value, score.examples) == ("held_out", one.scores["accuracy"], search.held_out_rows)
        assert record.recipe["training"]["learning_rate"] == one.values["training.learning_rate"]
        assert not (tmp_path / "out" / str(one.record) / "finetuned").exists()
    [chosen] = answer["chosen"]
    final = read_record(Path(chosen["records"][0]))
    assert {score.split for score in final.models[0].scores} == {"validation"}
    assert final.inputs is not None and final.inputs.data["train"].rows == 96
    assert (Path(chosen["records"][0]).parent / "finetuned" / "config.json").is_file()
    assert load_recipe(Path(chosen["recipe"])).hash == final.recipe_hash
    assert (tmp_path / "out" / "plots" / "value-learning-rate.png").is_file()
    again = run_cli("search", *given(home, *options[:-1]))
    assert again.exit_code == 0 and "trial" in again.stdout and "has finished before" in again.stderr
    assert read_search(tmp_path / "out").trials == search.trials


def made(recipe: Recipe, folder: Path) -> RunJob:
    return JobMaker("the command", InProcess()).make(recipe, folder, None, keep_models=False)


def test_a_trial_that_the_pruner_ends(home: Path, tmp_path: Path):
    place, options = StudyPlace(str(tmp_path / "study.log"), "search"), pruner_options("median")
    assert options is not None
    study = open_study(place, ["maximize"], make_pruner(options))
    for _ in range(5):
        trial = study.ask()
        trial.report(1.5, 1)
        study.tell(trial, 1.0)
    named = {"model": str(home / "model"), "task": "mine", "data": str(home / "data")}
    recipe = load_recipe(None, SHORT, kind="finetune", hold_out=0.1, **named)
    pruning = Pruning(place, options, study.ask().number, "accuracy")
    end = run_trial(TrialJob(5, made(recipe, tmp_path / "trial"), pruning))
    assert end.state == "pruned" and "by the pruner (median) at step 2: accuracy 0." in str(end.message)
    record = read_record(tmp_path / "trial")
    assert record.status == "failed" and record.message == end.message and record.models == ()
    assert not (tmp_path / "trial" / "work").exists()
    assert list(study.trials[5].intermediate_values) == [1]


def test_a_trial_that_fails_says_why(home: Path, tmp_path: Path):
    recipe = load_recipe(
        None, SHORT, kind="finetune", model=str(tmp_path / "gone"), task="mine", data=str(home / "data")
    )
    end = run_trial(TrialJob(0, made(recipe, tmp_path / "trial")))
    assert end.state == "failed" and "gone" in str(end.message)


def test_from_python(home: Path, tmp_path: Path):
    result = sparsebert.search(
        "finetune",
        {"training.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}},
        model=home / "model",
        task="mine",
        data=home / "data",
        training={"batch_size": 8, "max_steps": 2, "evaluate": None},
        trials=1,
        repeats=2,
        measure={"timed": False},
        output=tmp_path / "out",
        progress=False,
    )
    assert len(result.record.trials) == 1 and result.record.recipe["training"]["batch_size"] == 8
    assert result.recipe == (tmp_path / "out" / "best.yaml").resolve() and result.report.is_file()
    assert [run.record.seed for run in result.runs] == [0, 1]


BAD = {
    "needs something to search": (),
    "Did you mean 'learning_rate'?": ("--space", "training.learning_rat=1e-5:1e-3"),
    "must lie above 0": ("--space", "training.learning_rate=0:1:log"),
    "Unknown objective 'latency'": (*SPACE, "--objective", "accuracy,latency"),
    "Jobs cannot run there": (*SPACE, "--on", "moon"),
    "SQLite locks up": (*SPACE, "--on", "local:2", "--storage", "sqlite:///x.db"),
}


@pytest.mark.parametrize("said", BAD)
def test_bad_input(said: str, home: Path, tmp_path: Path):
    assert_refused(run_cli("search", *given(home, *BAD[said], "-o", tmp_path / "out")), [said])
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_is_none(tmp_path: Path):
    assert_refused(run_cli("search", "finetun", *SPACE, "-o", tmp_path / "out"), ["Unknown recipe 'finetun'"])

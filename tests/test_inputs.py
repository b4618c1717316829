"""Inputs: a run of any type notices that a model, a teacher or a row under the same path is not what it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import Dataset

from sparsebert.data.load import load_task
from sparsebert.errors import UserError
from sparsebert.recipe.base import Recipe
from sparsebert.recipe.compress import CompressRecipe
from sparsebert.recipe.load import load_recipe
from sparsebert.records import read_record
from sparsebert.runs.inputs import inputs_of
from sparsebert.runs.run import run
from tiny_run import run_cli, save_tiny, write_task

QUICK = ("measure.timed=false", "dense.max_steps=2")
PHASES = (
    "phases=[{name: a, teacher: TEACHER, training: {max_steps: 2, batch_size: 16}, rules: [{every: {steps: 1}}]}]",
    "sparsity=0.5",
)
TYPES = {
    "compress": (
        "finetune.max_steps=2",
        "targets=[{kind: sparsity, value: 0.3}]",
        "search.examples=16",
        "search.score_examples=8",
    ),
    "train": PHASES,
    "fff": (
        "finetune.max_steps=2",
        "trees={depth: 1, steps: 2, examples: 16, controls: false}",
    ),
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "model")
    save_tiny(tmp_path / "teacher", seed=1)
    write_task(tmp_path / "data", 32, 16)
    return tmp_path


def recipe(home: Path, kind: str) -> Recipe:
    settings = [setting.replace("TEACHER", str(home / "teacher")) for setting in (*QUICK, *TYPES[kind])]
    return load_recipe(None, settings, model=str(home / "model"), task="mine", data=str(home / "data"))


def other_weights(home: Path) -> None:
    save_tiny(home / "model", seed=2)


def other_teacher(home: Path) -> None:
    save_tiny(home / "teacher", seed=2)


def swapped_labels(home: Path) -> None:
    file = home / "data" / "train.csv"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(",yes,", ",?,").replace(",no,", ",yes,").replace(",?,", ",no,"), encoding="utf-8")


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "weights": (other_weights, r"different: the model \(model\.safetensors\)"),
    "labels": (swapped_labels, "different: the train data;"),
    "teacher": (other_teacher, r"different: the teacher .*teacher \(model\.safetensors\)"),
}


@pytest.mark.parametrize("finished", [False, True], ids=["interrupted", "finished"])
@pytest.mark.parametrize("kind", TYPES)
def test_what_has_changed_is_named(kind: str, finished: bool, home: Path):
    out, one = home / "out", recipe(home, kind)
    run(one, out, "test")
    if not finished:
        (out / "finished.json").unlink()
        shutil.rmtree(out / next(model.folder for model in reversed(read_record(out).models)))
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    for name, (change, said) in CHANGES.items():
        if name == "teacher" and kind != "train":
            continue
        shutil.copytree(home / "model", home / "kept-model")
        shutil.copytree(home / "data", home / "kept-data")
        change(home)
        with pytest.raises(UserError, match=said):
            run(one, out, "test")
        for folder in ("model", "data"):
            shutil.rmtree(home / folder)
            (home / f"kept-{folder}").rename(home / folder)
    assert before == {file: file.stat().st_mtime_ns for file in out.rglob("*")}


def test_how_rows_are_stored_does_not_matter(home: Path):
    def digest(file: str) -> str:
        task = load_task("mine", str(home / file), CompressRecipe().columns, 0, None)
        return inputs_of(recipe(home, "train"), task).data["train"].sha256

    rows = Dataset.from_csv(str(home / "data" / "train.csv"), cache_dir=str(home / "cache"))
    (home / "parquet").mkdir()
    rows.to_parquet(str(home / "parquet" / "train.parquet"))
    shutil.copy(home / "data" / "validation.csv", home / "parquet" / "validation.csv")
    assert digest("data") == digest("parquet")


def test_a_sweep_notices_it_for_points_that_are_finished(home: Path):
    (home / "recipe.yaml").write_text("phases: [{training: {max_steps: 2}, rules: [{}]}]\nmeasure: {timed: false}\n")
    arguments = ("sweep", home / "recipe.yaml", "--model", home / "model", "--task", "mine", "--data", home / "data")
    said = run_cli(*arguments, "--grid", "sparsity=0.3", "-o", home / "sweep")
    assert said.exit_code == 0, said.output
    other_weights(home)
    said = run_cli(*arguments, "--grid", "sparsity=0.3", "-o", home / "sweep")
    assert said.exit_code == 2 and "different: the model (model.safetensors)" in said.stderr
    assert run_cli(*arguments, "--grid", "sparsity=0.3", "-o", home / "sweep", "--restart").exit_code == 0

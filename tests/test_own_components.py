"""Components of the user's own, in a file of the working directory and a recipe: no fork, through the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparsebert.records import read_record
from tiny_run import QUICK, assert_refused, run_cli, save_tiny, write_task

OWN = """
from sparsebert.pruning.criteria import Scored
from sparsebert.sparse.criteria import magnitude as by_size
from sparsebert.sparse.schedules import cubic as slowly

CALLS = []


def _norm(statistics):
    CALLS.append(statistics.name)
    return statistics.input_norm


by_norm = Scored(_norm)
"""
RECIPE = """
kind: train
sparsity: 0.5
phases:
  - training: {max_steps: 4}
    rules: [{criterion: "my_parts:by_size", schedule: "my_parts:slowly", every: {steps: 1}}]
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "my_parts.py").write_text(OWN, encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    save_tiny(tmp_path / "model")
    write_task(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_parts", None)


def test_a_rule_takes_a_criterion_and_a_schedule(home: Path):
    given = ("--task", "mine", "--data", "data", "--set", "measure.timed=false", "-o", "out")
    said = run_cli("train", "model", "--recipe", "recipe.yaml", *given)
    assert said.exit_code == 0, said.output
    sparse = read_record(home / "out").models[-1]
    assert sparse.sparsity.encoder_linear == pytest.approx(0.5, abs=0.01)


def test_compress_takes_a_criterion(home: Path):
    given = ("--task", "mine", "--data", "data", *QUICK, "--set", "measure.timed=false", "-o", "out")
    said = run_cli("compress", "model", "--criterion", "my_parts:by_norm", "--sparsity", 0.5, "--no-finetune", *given)
    assert said.exit_code == 0, said.output
    groups = {f"layer.{layer}.{kind}" for layer in range(3) for kind in ("heads", "neurons")}
    assert set(sys.modules["my_parts"].CALLS) == groups


def test_what_is_not_there_is_refused(home: Path):
    said = run_cli(
        "compress", "model", "--task", "mine", "--data", "data", "--criterion", "my_parts:by_nothing", "-o", "o"
    )
    assert_refused(said, ["The unit criterion 'my_parts:by_nothing' cannot be imported"])
    assert not (home / "o").exists()

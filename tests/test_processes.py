"""Real processes: a sparse training that is killed, and two that share the work."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import distributed_script
from forked import LIMIT_S, Command, launch
from sparsebert.records import PREDICTIONS, read_record
from test_resume import wait_and_stop
from tiny_run import run_cli, save_tiny, write_task

pytestmark = pytest.mark.process
EVERY = {"every": {"steps": 1}, "sparsity": 0.5}
RULES = {
    "magnitude": EVERY,
    "RigL": EVERY | {"schedule": "constant", "update": {"kind": "swap"}, "stop": {"percent": 100}},
    "movement": EVERY | {"gate": "movement"},
    "L0": EVERY | {"gate": "hard_concrete", "penalty": "lagrangian"},
}
SCOPES = dict(zip(RULES, ("*query.weight", "*key.weight", "*value.weight", "ffn"), strict=True))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    save_tiny(folder / "model", "base")
    write_task(folder / "data")
    rules = [rule | {"scope": [SCOPES[name]]} for name, rule in RULES.items()]
    training = {"max_steps": 10, "save_steps": 3, "batch_size": 16, "learning_rate": 1e-3}
    recipe = {
        "schema": 1,
        "task": "mine",
        "phases": [{"training": training, "rules": rules}],
        "measure": {"timed": False},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    return folder


def arguments(home: Path, out: Path) -> list[str]:
    return [
        "train",
        str(home / "model"),
        "--recipe",
        str(home / "recipe.yaml"),
        "--data",
        str(home / "data"),
        "-o",
        str(out),
    ]


@pytest.fixture(scope="module")
def whole(home: Path) -> Path:
    """A run that was never stopped."""
    said = run_cli(*arguments(home, home / "whole"))
    assert said.exit_code == 0, said.output
    return home / "whole"


@pytest.mark.parametrize("checkpoint", [3, 9])
def test_a_killed_training_ends_where_a_whole_one_does(checkpoint: int, home: Path, whole: Path):
    out = home / f"killed{checkpoint}"
    training = out / "work" / "phase0-sparse" / "training"
    moment = (training / f"checkpoint-{checkpoint}" / "trainer_state.json").exists
    code, _ = wait_and_stop(Command(arguments(home, out)), moment)
    assert code == -signal.SIGKILL and not (out / "sparse").exists()
    said = run_cli(*arguments(home, out))
    assert said.exit_code == 0, said.output
    for file in (
        Path(PREDICTIONS),
        Path("work/phase0-sparse/masks.safetensors"),
        Path("work/phase0-sparse/model/model.safetensors"),
    ):
        expected, got = load_file(whole / file), load_file(out / file)
        assert expected.keys() == got.keys() and all(torch.equal(value, got[name]) for name, value in expected.items())
    assert read_record(whole).models[0].scores == read_record(out).models[0].scores


def test_two_processes_agree_and_go_on_after_a_kill(tmp_path: Path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    codes, _, _ = launch(2, [json.dumps(RULES), whole, 0, stopped, 5], distributed_script.main)
    assert 0 not in codes
    assert len(list(whole.glob("*/rank*"))) == 2 * len(RULES) and not list(stopped.glob("*/rank*"))
    codes, _, said = launch(2, [json.dumps(RULES), stopped, 0], distributed_script.main)
    assert codes == [0, 0], said
    for name in RULES:
        first, *others = (
            load_file(tmp_path / run / name / f"rank{rank}.safetensors")
            for run in ("whole", "stopped")
            for rank in (0, 1)
        )
        assert any(key.startswith("mask/") for key in first)
        for other in others:
            assert first.keys() == other.keys(), name
            assert all(torch.equal(value, other[key]) for key, value in first.items()), name


def test_a_run_goes_on_with_the_threads_that_it_began_with(home: Path):
    """One thread and two add up in another order, so their weights differ in the last bits."""
    found = {}
    for name in ("two", "both"):
        out = home / f"threads-{name}"
        words = arguments(home, out)
        if name == "both":
            checkpoint = out / "work" / "phase0-sparse" / "training" / "checkpoint-3" / "trainer_state.json"
            wait_and_stop(Command(words, OMP_NUM_THREADS="2"), checkpoint.exists)
        process = Command(words, OMP_NUM_THREADS="1" if name == "both" else "2")
        said = process.communicate(timeout=LIMIT_S)[1]
        assert process.returncode == 0, said
        found[name] = (out / "sparse" / "packed.safetensors").read_bytes()
    assert found["both"] == found["two"]
    notes = read_record(home / "threads-both").notes
    assert any("Computed with 2 threads, as it was begun" in note for note in notes)

"""Several processes and one run: `torchrun -m sparsebert …` makes what one process makes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from forked import LIMIT_S, launch
from sparsebert.environment import supports_bf16_training
from sparsebert.records import read_record
from tiny_run import run_cli, save_tiny, write_task

pytestmark = pytest.mark.process
TRAINING = {"max_steps": 10, "save_steps": 3, "batch_size": 16, "learning_rate": 1e-3, "dropout": 0.0}
RULE = {"criterion": "movement", "sparsity": 0.5, "stop": {"percent": 60}, "every": {"steps": 2}}
RECIPES = {
    "finetune": {
        "kind": "finetune",
        "training": TRAINING | {"evaluate": {"every": {"steps": 5}, "split": "validation"}},
    },
    "train": {
        "kind": "train",
        "phases": [{"training": TRAINING, "teacher": "dense", "rules": [RULE]}],
        "dense": TRAINING,
    },
    "compress": {
        "kind": "compress",
        "targets": [{"kind": "sparsity", "value": 0.5}],
        "dense": TRAINING,
        "finetune": TRAINING,
        "search": {"examples": 32, "score_examples": 16, "candidates": 5},
    },
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    save_tiny(folder / "model", "base")
    write_task(folder / "data")
    for name, recipe in RECIPES.items():
        whole = {"schema": 1, "task": "mine", "measure": {"timed": False}} | recipe
        (folder / f"{name}.yaml").write_text(json.dumps(whole), encoding="utf-8")
    return folder


def words(home: Path, command: str, out: Path, *more: str) -> list[str]:
    own = ["--recipe", home / f"{command}.yaml", "--data", home / "data", "-o", out]
    return [command, str(home / "model"), *map(str, own), *more]


def torchrun(line: list[str]) -> subprocess.Popen[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "sparsebert"]
    command = [sys.executable, *launcher, *line]
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    return subprocess.Popen(command, env=os.environ | own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(processes: int, home: Path, command: str, out: Path, *more: str) -> tuple[int, str, str]:
    if processes == 1:
        said = run_cli(*words(home, command, out, *more))
        return said.exit_code, said.stdout, said.stderr
    codes, said, told = launch(processes, words(home, command, out, *more))
    return next((code for code in codes if code), 0), said, told


@pytest.fixture(scope="module")
def made(home: Path) -> dict[str, dict[int, Path]]:
    """The folders of every command's runs, by the number of processes."""
    found: dict[str, dict[int, Path]] = {}
    for command in RECIPES:
        found[command] = {count: home / f"{command}-{count}" for count in (1, 2)}
        for count, out in found[command].items():
            code, _, told = run(count, home, command, out)
            assert code == 0, told
    return found


@pytest.mark.parametrize("command", list(RECIPES))
def test_two_processes_make_what_one_makes(command: str, made: dict[str, dict[int, Path]]) -> None:
    found = {count: read_record(folder) for count, folder in made[command].items()}
    one, two = (found[count].models[-1] for count in (1, 2))
    runs = [model.training or next(iter(model.phases.values())) for model in (one, two)]
    assert [run.processes for run in runs if run is not None] == [1, 2]
    assert one.sparsity.encoder_linear == pytest.approx(two.sparsity.encoder_linear, abs=0.01)
    assert not list(made[command][2].rglob("checkpoint-*"))


def test_a_step_of_two_processes_is_that_of_one(home: Path) -> None:
    """The train rows divide into whole steps; elsewhere the last step of an epoch is filled up with other rows."""
    for processes in (1, 2):
        out = home / f"step-{processes}"
        code, _, told = run(processes, home, "finetune", out, "--set", "training.max_steps=4")
        assert code == 0, told
    alone, shared = (load_file(home / f"step-{count}" / "finetuned" / "model.safetensors") for count in (1, 2))
    assert alone.keys() == shared.keys()
    for key, value in alone.items():
        if not supports_bf16_training():
            assert torch.allclose(value, shared[key], atol=1e-4), key
        # A bias of keys changes no output, so that its gradient is rounding alone, which Adam makes steps of.
        elif not key.endswith("key.bias"):
            assert (value - shared[key]).abs().mean() < 1e-4, key


def test_a_killed_process_ends_all_and_the_same_command_goes_on(home: Path, made: dict[str, dict[int, Path]]) -> None:
    whole, out = made["finetune"][2], home / "killed"
    process = torchrun(words(home, "finetune", out))
    checkpoint = out / "work" / "training" / "checkpoint-3"
    end = time.monotonic() + LIMIT_S
    while not (checkpoint / "whole.json").is_file():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    os.kill(max(workers_of(process)), signal.SIGKILL)
    assert process.communicate(timeout=LIMIT_S) and process.returncode not in (0, None)
    assert not (out / "finetuned").exists()
    code, _, told = run(2, home, "finetune", out)
    assert code == 0, told
    files = [folder / "finetuned" / "model.safetensors" for folder in (whole, out)]
    assert files[0].read_bytes() == files[1].read_bytes()


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(number) for number in found]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("training.batch_size=15", "cannot be shared among the processes; got 15 rows and 2 processes"),
        ("training.nothing=1", "nothing"),
    ],
)
def test_an_error_is_said_once_and_ends_all(setting: str, expected: str, home: Path) -> None:
    code, said, told = run(2, home, "finetune", home / setting, "--set", setting)
    assert code != 0
    assert_said_once(said, told, expected)
    if "nothing" not in setting:
        assert read_record(home / setting).status == "failed"


def test_an_error_of_a_training_is_said_once_and_its_launcher_ends_all(home: Path) -> None:
    line = words(home, "finetune", home / "nan", "--set", "training.learning_rate=1e12")
    codes, said, told = launch(2, line, ends_all=True)
    assert any(codes)
    assert_said_once(said, told, "The training loss became nan at step")
    assert read_record(home / "nan").status == "failed"


def assert_said_once(said: str, told: str, expected: str) -> None:
    lines = [one for one in told.splitlines() if one.startswith("error:")]
    assert not said and len(lines) == 1 and expected in lines[0], told


def test_help_is_printed_by_the_first_process_alone() -> None:
    _, said, told = launch(2, ["finetune", "--help"])
    assert said.count("Usage: sparsebert finetune") == 1, told

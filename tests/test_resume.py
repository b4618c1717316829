"""The command is killed at several moments and called again: it goes on, and ends where it would have ended."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from forked import LIMIT_S, Command
from sparsebert.records import read_record
from tiny_run import QUICK, run_cli, save_tiny, write_task

pytestmark = pytest.mark.process
MEMBERS = ("0.4-sparsity", "0.7-sparsity")


def wait_and_stop(
    process: subprocess.Popen[str] | Command, moment: Callable[[], object], how: signal.Signals = signal.SIGKILL
) -> tuple[int, str]:
    """Stop a process as soon as `moment()` is true. Its exit code and stderr."""
    end = time.monotonic() + LIMIT_S
    while not moment():
        assert process.poll() is None, f"it ended before it could be stopped: {process.communicate()[1]}"
        assert time.monotonic() < end, "the moment never came"
        time.sleep(0.002)
    process.send_signal(how)
    said = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode is not None
    return process.returncode, said


def arguments(home: Path, out: Path, *more: str) -> list[str]:
    """Two members, nothing that is about time; epochs of 4 steps, so that no checkpoint is at the end of one."""
    values = ("max_steps=10", "save_steps=3", "batch_size=16")
    settings = [text for part in ("dense", "finetune") for value in values for text in ("--set", f"{part}.{value}")]
    goals = [text for member in MEMBERS for text in ("--sparsity", member.removesuffix("-sparsity"))]
    task = ["--task", "mine", "--data", str(home / "data"), "--set", "measure.timed=false"]
    return ["compress", str(home / "model"), *task, "-o", str(out), *goals, *QUICK, *settings, *more]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    save_tiny(folder / "model", "base")
    write_task(folder / "data")
    return folder


def stamps(folder: Path, *patterns: str) -> dict[Path, int]:
    """When each finished file was last written."""
    return {file: file.stat().st_mtime_ns for pattern in patterns for file in folder.glob(pattern)}


@pytest.fixture(scope="module")
def resumed(home) -> tuple[Path, Path]:
    """A run that was never stopped, and one that was stopped three times."""
    whole, out = home / "whole", home / "stopped"
    # As soon as the folder of a checkpoint is there, so that it is half-written.
    words = arguments(home, out)
    code, _ = wait_and_stop(Command(words), (out / "work" / "dense-training" / "checkpoint-6").exists)
    assert code == -signal.SIGKILL and not (out / "dense").exists()
    # In fine-tuning, with Ctrl-C.
    training = out / "work" / MEMBERS[0] / "training"
    moment = (training / "checkpoint-3" / "trainer_state.json").exists
    code, said = wait_and_stop(Command(words), moment, signal.SIGINT)
    assert code == 130 and not (out / MEMBERS[0]).exists()
    assert said.strip().splitlines()[-1] == "interrupted; the same command goes on from here"
    finished = stamps(out, "dense/*", "work/*.json", "work/*/member.json", "work/*/one-shot/*", "work/teacher/*")
    # The model is in place, but perhaps not yet noted as finished.
    code, _ = wait_and_stop(Command(words), (out / MEMBERS[0]).exists)
    assert code == -signal.SIGKILL and not (out / MEMBERS[1]).exists()
    for folder in (out, whole):
        said = run_cli(*arguments(home, folder))
        assert said.exit_code == 0, said.output
    assert len(finished) > 10 and finished == {file: file.stat().st_mtime_ns for file in finished}
    return whole, out


def test_weights_are_equal_bit_for_bit(resumed):
    whole, stopped = resumed
    for name in ("dense", *MEMBERS):
        expected, got = (load_file(folder / name / "model.safetensors") for folder in (whole, stopped))
        assert expected.keys() == got.keys()
        for key, tensor in expected.items():
            assert tensor.equal(got[key]), f"{name}: {key}"


def test_scores_and_shapes_are_equal(resumed):
    whole, stopped = map(read_record, resumed)
    assert [model.name for model in whole.models] == ["dense", *MEMBERS]
    for expected, got in zip(whole.models, stopped.models, strict=True):
        assert (got.scores, got.one_shot_scores, got.shape) == (
            expected.scores,
            expected.one_shot_scores,
            expected.shape,
        )
        assert got.training.steps == expected.training.steps == 10
        assert got.training.final_loss == expected.training.final_loss


def test_a_finished_run_is_not_done_again(resumed, home):
    _, stopped = resumed
    patterns = ("*/*.safetensors", "work/*.json", "work/*/*.json", "work/*/one-shot/*", "work/teacher/*")
    before = stamps(stopped, *patterns)
    said = run_cli(*arguments(home, stopped))
    assert said.exit_code == 0, said.output
    assert len(before) >= 20 and before == stamps(stopped, *patterns)


def test_another_recipe_in_the_same_folder_names_the_key(resumed, home):
    _, stopped = resumed
    before = stamps(stopped, "*", "work/*")
    said = run_cli(*arguments(home, stopped, "--set", "finetune.learning_rate=0.5"))
    assert said.exit_code == 2
    assert "run of another recipe; different: finetune.learning_rate;" in said.stderr
    assert before == stamps(stopped, "*", "work/*")

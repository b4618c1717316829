"""What the command line makes of an error: one line and an exit code, a traceback only when asked for."""

import errno
import subprocess
import sys

import numpy as np
import pytest
import torch
import typer

from sparsebert.errors import UserError
from sparsebert.guard import guard


def guarded(error: BaseException, debug: bool = False) -> int:
    with pytest.raises(typer.Exit) as end, guard(debug, interrupted="stopped; go on"):
        raise error
    return end.value.exit_code


def test_guard_of_a_full_disk_and_of_a_refusal(capsys):
    assert guarded(OSError(errno.ENOSPC, "No space left on device", "x.bin")) == 2
    assert capsys.readouterr().err == "error: The disk is full; free some space and run the command again.\n"
    assert guarded(PermissionError(errno.EACCES, "Permission denied", "there.bin")) == 2
    assert capsys.readouterr().err == "error: Permission denied: there.bin\n"


@pytest.mark.parametrize("allocate", [torch.empty, np.zeros])
def test_guard_of_memory_that_is_used_up(capsys, allocate):
    with pytest.raises(typer.Exit) as end, guard(debug=False):
        allocate(10**15)
    assert end.value.exit_code == 2
    assert capsys.readouterr().err.startswith("error: There is not enough memory; use a smaller batch")


TORCH_CANNOT_WRITE = (
    "[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534",
    "basic_ios::clear: iostream error",
    "PytorchStreamWriter failed writing file data/3: file write failed",
)


@pytest.mark.parametrize("said", TORCH_CANNOT_WRITE)
def test_guard_of_a_checkpoint_that_does_not_fit_on_the_disk(capsys, said: str):
    assert guarded(RuntimeError(said)) == 2
    assert capsys.readouterr().err.startswith("error: A checkpoint could not be written; free some disk space")


def test_guard_of_ctrl_c(capsys):
    assert guarded(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "stopped; go on\n"


def test_guard_shows_a_traceback_only_when_asked(capsys):
    assert guarded(UserError("Two\nlines", got=1)) == 2
    assert capsys.readouterr().err == "error: Two lines; got 1.\n"
    assert guarded(UserError("Wrong"), debug=True) == 2
    said = capsys.readouterr().err
    assert said.startswith("Traceback") and said.endswith("error: Wrong.\n")


def test_a_reader_that_has_gone_is_no_error():
    command = [sys.executable, "-c", "from sparsebert.cli import main; main()", "tasks"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.mark.parametrize("bug", [RuntimeError("size mismatch"), ValueError("no"), KeyError("x")])
def test_guard_lets_our_own_bugs_through(bug):
    with pytest.raises(type(bug)), guard(debug=False):
        raise bug

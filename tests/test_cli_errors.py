"""What the command line makes of an error: one line and an exit code, a traceback only when asked for."""

import errno
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import typer

from sparsebert.cli.errors import cli_errors
from sparsebert.errors import UserError


def guarded(error: BaseException, debug: bool = False) -> int:
    with pytest.raises(typer.Exit) as end, cli_errors(debug, interrupted="stopped; go on"):
        raise error
    return end.value.exit_code


def test_guard_of_a_full_disk_and_of_a_refusal(capsys):
    assert guarded(OSError(errno.ENOSPC, "No space left on device", "x.bin")) == 2
    assert capsys.readouterr().err == "error: The disk is full; free some space and run the command again.\n"
    assert guarded(PermissionError(errno.EACCES, "Permission denied", "there.bin")) == 2
    assert capsys.readouterr().err == "error: Permission denied: there.bin\n"


@pytest.mark.parametrize("allocate", [torch.empty, np.zeros])
def test_guard_of_memory_that_is_used_up(capsys, allocate):
    with pytest.raises(typer.Exit) as end, cli_errors(debug=False):
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


@pytest.mark.parametrize("arguments", [["tasks"], ["tasks", "--json"], ["recipes", "cofi"], ["--help"]])
def test_a_reader_that_has_gone_is_no_error(arguments):
    command = [sys.executable, "-m", "sparsebert", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def test_output_that_does_not_fit_is_one_line():
    with open("/dev/full", "w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "sparsebert", "tasks", "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "error: The disk is full; free some space and run the command again.\n",
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("can't start new thread"), "No further thread"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "No further thread"),
        (OSError(errno.ENOMEM, "Cannot allocate memory", "x"), "not enough memory"),
        (ImportError("libx.so: failed to map segment from shared object"), "not enough memory"),
    ],
)
def test_guard_of_a_machine_without_room(capsys, error, words):
    assert guarded(error) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_an_error_cannot_steer_the_terminal(capsys):
    guarded(UserError("Not \x1b[2J there", got="\u202e\ud800ü"))
    assert capsys.readouterr().err == "error: Not \\x1b[2J there; got \\u202e\\ud800ü.\n"


WAITS = """
import sys, time, typer
from sparsebert.cli.usage import App, OneLineErrors
from sparsebert.cli.errors import cli_errors
app = App(cls=OneLineErrors)
@app.command()
def wait():
    with cli_errors(False, "stopped; go on"):
        print("ready", file=sys.stdout if sys.argv[1:] else sys.stderr, flush=True)
        time.sleep(60)
app([])
"""


CTRL_C_WHILE_IMPORTING = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == WHEN:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv[1:] = ["info", "."]
from sparsebert.cli import main
main()
"""


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("typer", ""),
        ("sparsebert.cli.application", ""),
        ("sparsebert.cli.compress", ""),
        ("pydantic", ""),
        ("torch", "interrupted\n"),
    ],
)
def test_ctrl_c_while_modules_are_imported_ends_without_a_traceback(when, words):
    code = CTRL_C_WHILE_IMPORTING.replace("WHEN", repr(when))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=heed_all, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", words)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_signals_that_end_a_process_say_so(number, code):
    with subprocess.Popen(
        [sys.executable, "-c", WAITS], stderr=subprocess.PIPE, text=True, preexec_fn=heed_all
    ) as process:
        assert process.stderr is not None and process.stderr.readline() == "ready\n"
        process.send_signal(number)
        assert (process.stderr.read(), process.wait()) == ("stopped; go on\n", code)


def test_what_is_ignored_stays_ignored():
    def nohup():
        heed_all()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with subprocess.Popen(
        [sys.executable, "-c", WAITS], stderr=subprocess.PIPE, text=True, preexec_fn=nohup
    ) as process:
        assert process.stderr is not None and process.stderr.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert (process.stderr.read(), process.wait()) == ("stopped; go on\n", 143)


def heed_all():
    """Tests that run in the background of a shell inherit that some signals are ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("lost", ["output", "errors"])
def test_a_terminal_that_closes_ends_it_without_a_traceback(lost):
    ours, terminal = os.openpty()
    other = subprocess.PIPE
    streams = {"stdout": terminal, "stderr": other} if lost == "output" else {"stdout": other, "stderr": terminal}
    command = [sys.executable, "-c", WAITS, "stdout" if lost == "errors" else ""][: 4 if lost == "errors" else 3]
    with subprocess.Popen(
        command, stdin=terminal, **streams, text=True, start_new_session=True, preexec_fn=heed_all
    ) as process:
        os.close(terminal)
        kept = process.stderr if lost == "output" else process.stdout
        assert kept is not None and kept.readline() == "ready\n"
        os.close(ours)
        process.send_signal(signal.SIGHUP)
        rest = kept.read()
        assert process.wait() == 129
    assert rest == ("stopped; go on\n" if lost == "output" else "")


@pytest.mark.parametrize("bug", [RuntimeError("size mismatch"), ValueError("no"), KeyError("x")])
def test_guard_lets_our_own_bugs_through(bug):
    with pytest.raises(type(bug)), cli_errors(debug=False):
        raise bug

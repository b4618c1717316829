"""An object in a process of its own: real processes, which fail, die, and end with the one that asks them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparsebert import processes
from sparsebert.processes import ProcessError, Remote, fell_asleep, how_it_ended
from test_resume import LIMIT_S
from test_sweep_on import heed_ctrl_c

pytestmark = pytest.mark.process


@pytest.fixture
def remote() -> Iterator[Remote]:
    made = Remote("The other", "remote_objects:Told")
    made.make("word")
    yield made
    made.stop()


def has_ended(watched: int) -> bool:
    """Whether a process ends; `watched` is its file descriptor."""
    found, _, _ = select.select([watched], [], [], LIMIT_S)
    return bool(found)


def test_calls_are_answered_elsewhere_in_order(remote: Remote, capfd: pytest.CaptureFixture[str]):
    assert remote.call("said") == ("word", 1)
    assert remote.call("said", {"a": [1.5]}) == ("word", {"a": [1.5]}, 2)
    pid, group, has_tests, has_main = remote.call("place")
    # A group of its own is not told of the terminal's Ctrl-C.
    assert pid == group == remote.pid != os.getpid()
    assert has_tests and not has_main
    assert "".join(capfd.readouterr()) == ""


def test_what_it_raises_is_one_line_and_it_lives_on(remote: Remote):
    with pytest.raises(
        ProcessError, match=r"^The other failed in its process: ZeroDivisionError: by nothing\.$"
    ) as bug:
        remote.call("fails")
    assert "in fails" in str(bug.value.__cause__)
    with pytest.raises(ProcessError, match=r"^The other failed in its process: It cannot be made; got refused") as mine:
        remote.make("refused")
    assert mine.value.__cause__ is None
    assert remote.call("said") == ("word", 1)


@pytest.mark.parametrize(
    ("method", "arguments", "words"),
    [
        ("dies", (signal.SIGKILL,), r"SIGKILL, perhaps for want of memory\.$"),
        ("dies", (signal.SIGSEGV,), r"SIGSEGV\.$"),
        ("ends", (), r"exit code 3: the last line\.$"),
    ],
)
def test_a_death_is_one_line(method: str, arguments: tuple[int, ...], words: str, remote: Remote):
    for _ in range(2):
        with pytest.raises(ProcessError, match=r"^The other lost its process: " + words):
            remote.call(method, *arguments)


def test_its_end_is_the_end_of_its_process():
    made = Remote("The other", "remote_objects:Told")
    watched = os.pidfd_open(made.pid)
    made.stop()
    assert has_ended(watched)
    os.close(watched)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_nothing_is_left_of_a_script_that_is_stopped(how: signal.Signals):
    script = Path(__file__).with_name("remote_script.py")
    places = [str(script.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    asking = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=heed_ctrl_c,
    )
    assert asking.stdout is not None
    watched = os.pidfd_open(int(asking.stdout.readline()))
    asking.send_signal(how)
    _, said = asking.communicate(timeout=LIMIT_S)
    assert asking.returncode == -how and has_ended(watched)
    assert ("KeyboardInterrupt" in said) == (how == signal.SIGINT)
    os.close(watched)


def test_an_answer_waits_until_no_thread_computes(remote: Remote, monkeypatch: pytest.MonkeyPatch):
    """By the processor time of two looks in which a thread computes, and of one in which none does."""
    spent = iter([0.0, 1.0, 1.0, 2.0, 2.0, 2.0])
    with monkeypatch.context() as patched:
        patched.setattr(processes.time, "process_time", lambda: next(spent))
        assert fell_asleep(10.0) and next(spent, None) is None
    monkeypatch.setattr(processes, "BUSY", 0.0)
    assert not fell_asleep(0.01)
    assert remote.call("spins", 0.05) > 0


def test_endings_in_words():
    assert how_it_ended(0) == "exit code 0" and how_it_ended(-signal.SIGTERM) == "SIGTERM"
    assert how_it_ended(-signal.SIGKILL) == "SIGKILL, perhaps for want of memory"

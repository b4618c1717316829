"""The command in a process of its own that takes no time to import: a copy of one that has imported everything.

In all else it is as any other: arguments, folder, environment and output, signals and the exit code are its own. What
libraries read of the environment while they are imported, they have read already.
"""

from __future__ import annotations

import atexit
import gc
import io
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from sparsebert.cli import main
from sparsebert.processes import Remote, serve
from sparsebert.runs.executors import local

LIMIT_S = 240
RUNS = ("compress", "finetune", "pretrain", "sweep", "train")
# With it, a copy has no threads that its parent had.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        *(f"sparsebert.runs.{name}" for name in RUNS),
        *("sparsebert.cli.application", "sparsebert.training.trainer", "sparsebert.reports.page"),
        *("transformers.models.bert.modeling_bert", "transformers.models.bert.tokenization_bert"),
    ]
)


class Command:
    """A command that has been started, with those attributes and methods of `subprocess.Popen` that tests use."""

    def __init__(self, words: Sequence[object], run: Callable[[], None] = main, **environment: str) -> None:
        self.args = [str(word) for word in words]
        self._output = tempfile.mkdtemp()
        given = (run, self.args, os.getcwd(), dict(os.environ) | environment, self._output)
        self._process: Any = FORKS.Process(target=_command, args=given)
        self._process.start()
        self.pid: int = self._process.pid
        # One that a failed test leaves would keep this process from its end, which waits for it.
        atexit.register(self._process.kill)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, how: signal.Signals) -> None:
        os.kill(self.pid, how)

    def communicate(self, timeout: float = LIMIT_S) -> tuple[str, str]:
        """Wait for its end; what it wrote to stdout and stderr."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise subprocess.TimeoutExpired(self.args, timeout)
        out, err = (Path(self._output, name).read_text("utf-8", "replace") for name in ("1", "2"))
        shutil.rmtree(self._output)
        return out, err


class RemoteCopy(Remote):
    """An object in a copy of the warm process, for tests that ask what it answers and not where it lives."""

    def __init__(self, name: str, factory: str) -> None:
        self.name = name
        self._connection, its_end = FORKS.Pipe()
        alive, self._alive = FORKS.Pipe(duplex=False)
        self._process: Any = FORKS.Process(target=_serve, args=(its_end, alive, factory), daemon=True)
        self._process.start()

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()
        self._alive.close()


def _serve(connection: Connection, alive: Connection, factory: str) -> None:
    # Standard input closes when the one who asks has ended.
    with os.fdopen(alive.fileno(), "rb", closefd=False) as given:
        sys.stdin = io.TextIOWrapper(given)
        serve(connection.fileno(), factory)


def main_of_copies() -> None:
    """The command, whose workers are copies of it as it is a copy; a new interpreter imports everything anew."""
    local.SPAWN = multiprocessing.get_context("fork")
    main()


def finished(words: Sequence[object]) -> subprocess.CompletedProcess[str]:
    """The command, run to its end with workers that are copies too."""
    process = Command(words, main_of_copies)
    out, err = process.communicate()
    assert process.returncode is not None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def launch(
    processes: int, words: Sequence[object], run: Callable[[], None] = main, *, ends_all: bool = False
) -> tuple[list[int | None], str, str]:
    """So many of one command, as a launcher such as torchrun starts them: their exit codes, stdouts and stderrs.

    With `ends_all` the first that fails ends all others, again as torchrun does it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [Command(words, run, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(processes)]
    if ends_all:
        _end_all_with_the_first(ranks)
    out, err = zip(*(one.communicate() for one in ranks), strict=True)
    return [one.returncode for one in ranks], "".join(out), "".join(err)


def _end_all_with_the_first(ranks: Sequence[Command]) -> None:
    end = time.monotonic() + LIMIT_S
    while not any(one.poll() for one in ranks):
        assert any(one.poll() is None for one in ranks) and time.monotonic() < end
        time.sleep(0.01)
    for one in ranks:
        if one.poll() is None:
            one.send_signal(signal.SIGTERM)


def _command(
    run: Callable[[], None], words: list[str], place: str, environment: Mapping[str, str], output: str
) -> None:
    for stream in (1, 2):
        os.dup2(os.open(Path(output, str(stream)), os.O_WRONLY | os.O_CREAT), stream)
    # As in `conftest.py`; and what is not looked through is not copied.
    gc.freeze()
    # Tests that run in the background of a shell inherit that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(place)
    os.environ.clear()
    os.environ.update(environment)
    # Torch has read the number while it was imported.
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    sys.argv = ["sparsebert", *words]
    run()

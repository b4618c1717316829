"""Work in other processes: what becomes of it there, and an object that lives in one of its own.

Importing this module does not import torch.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from sparsebert.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")
# A thread that spins takes a whole core. OpenMP's spin for milliseconds after their work, some runtimes' for longer.
LOOK_S, BUSY, PATIENCE_S = 0.001, 0.2, 10.0


@dataclass(frozen=True)
class Failed:
    """A job without a result: why, in one line, and where in the code unless it was a mistake of the user."""

    message: str
    traceback: str = ""


class Attempt(Generic[Result]):
    """A block that ends with a result or a failure, whatever is raised in it; Ctrl-C and the like pass through."""

    outcome: Result | Failed

    def __enter__(self) -> Attempt[Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        if isinstance(error, UserError):
            self.outcome = Failed(str(error))
        else:
            said = "".join(traceback.format_exception(error))
            self.outcome = Failed(traceback.format_exception_only(error)[-1].strip(), said)
        return True


def attempt(work: Callable[[Job], Result], job: Job) -> Result | Failed:
    """What a worker makes of a job: it lives on after every error, which its caller is told."""
    with Attempt[Result]() as tried:
        tried.outcome = work(job)
    return tried.outcome


def how_it_ended(code: int | None) -> str:
    """The exit code of a process in words, or the signal that killed it."""
    if code is None or code >= 0:
        return f"exit code {code}"
    return signal.Signals(-code).name + (", perhaps for want of memory" if -code == signal.SIGKILL else "")


def status_mb(field: str, process: int | None = None) -> float:
    """A memory field of a process, none = this one, in 2**20 bytes, such as VmRSS (resident) or VmHWM (its peak)."""
    status = Path(f"/proc/{process or 'self'}/status").read_text(encoding="utf-8")
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return int(lines[field].split()[0]) / 1024


class ProcessError(UserError):
    """An object in a process of its own has failed, or the process has died."""


class Remote:
    """An object in a fresh Python, which `factory`, a `module:attribute`, makes there when `make` is called.

    It answers one call at a time, and only once no thread of its process computes or spins any more, so that whoever is
    asked next has the cores to itself. Arguments and answers are plain values and arrays; tensors do not travel. The
    Python finds the modules that this one finds, and imports no `__main__`, so that a script needs no guard. What it
    prints is not shown. Ctrl-C is not told to it; it ends with `stop`, or with this process, however that ends.

    `name` is what errors call it. Every call raises ProcessError where the object raised something, with the traceback
    as cause unless it was a UserError, and where the process died.
    """

    def __init__(self, name: str, factory: str) -> None:
        self.name = name
        self._stack = stack = ExitStack()
        self._printed = stack.enter_context(FileIO(os.memfd_create("printed"), "r+"))
        connection, its_end = Pipe()
        self._connection, place = stack.enter_context(connection), its_end.fileno()
        lines = ("import sys", f"sys.path[:] = {sys.path!r}", "from sparsebert.processes import serve")
        code = "; ".join([*lines, f"serve({place}, {factory!r})"])
        with its_end:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                # Nothing is written to it: that it closes tells of the end of this process.
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._printed,
                pass_fds=[place],
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def make(self, *arguments: object) -> None:
        """Make the object."""
        self.call("", *arguments)

    def call(self, method: str, *arguments: object) -> Any:
        """Call a method of the object, and wait for its answer."""
        try:
            self._connection.send((method, arguments))
            answer = self._connection.recv()
        except (EOFError, ConnectionError):
            raise ProcessError(f"{self.name} lost its process: {self._end()}") from None
        if isinstance(answer, Failed):
            cause = RuntimeError(answer.traceback) if answer.traceback else None
            raise ProcessError(f"{self.name} failed in its process: {answer.message}") from cause
        return answer

    def stop(self) -> None:
        """End the process and those that it started, whatever they are at."""
        # Once it was waited for, its number may be that of another.
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        self._stack.close()

    def _end(self) -> str:
        self._process.wait()
        self._printed.seek(0)
        lines = self._printed.readall().decode(errors="replace").strip().splitlines()
        how = how_it_ended(self._process.returncode)
        return f"{how}: {lines[-1]}" if lines and self._process.returncode > 0 else how


class _Host:
    """The one object of a process, and who calls it."""

    def __init__(self, factory: str) -> None:
        self._module, self._attribute = factory.split(":")
        self._served: Any = None

    def answer(self, call: tuple[str, tuple[Any, ...]]) -> Any:
        """Call a method; with no name of one, make the object."""
        method, arguments = call
        if method:
            return getattr(self._served, method)(*arguments)
        self._served = getattr(importlib.import_module(self._module), self._attribute)(*arguments)
        return None


def serve(place: int, factory: str) -> None:
    """The life of the process: make an object, then answer calls, until nobody can ask any more."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    connection, host = Connection(place), _Host(factory)
    while True:
        try:
            call = connection.recv()
        except EOFError:
            return
        outcome = attempt(host.answer, call)
        connection.send(outcome if fell_asleep() else Failed("its threads go on computing after their work is done"))


def fell_asleep(patience_s: float = PATIENCE_S) -> bool:
    """Wait until no thread of this process computes or spins; False where that does not come."""
    end = time.perf_counter() + patience_s
    while time.perf_counter() < end:
        start, spent = time.perf_counter(), time.process_time()
        time.sleep(LOOK_S)
        if time.process_time() - spent < BUSY * (time.perf_counter() - start):
            return True
    return False


def _end_with_parent() -> None:
    """A caller that is killed can end nobody."""
    sys.stdin.buffer.read()
    os._exit(1)

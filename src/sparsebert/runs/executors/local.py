"""Several processes of this machine, each with its share of the cores and GPUs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Generic

from sparsebert.processes import Failed, Job, Result, attempt, how_it_ended
from sparsebert.progress import line
from sparsebert.runs.executors.base import Executor, Queue, QueuedJob

THREADS, DEVICES = "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"
# A new interpreter: a copy of this process would have its locks, and no threads to open them.
SPAWN = multiprocessing.get_context("spawn")


class Processes(Executor):
    """Every job in one of so many processes. Their output is this process's; Ctrl-C here ends them all."""

    def __init__(self, workers: int, threads: int | None = None) -> None:
        cores = len(os.sched_getaffinity(0))
        self.workers = workers
        self._shares = shares(workers, cores, _gpus(), threads, os.environ)
        if workers > cores:
            line(f"{workers} workers share {cores} core{'s' if cores > 1 else ''}, so each is the slower for it")

    def map(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[tuple[Job, Result | Failed]]:
        """As Executor says."""
        queue, crew = Queue(jobs), [_Worker[Job, Result](share) for share in self._shares]
        try:
            while True:
                _begin(queue, crew, work)
                busy = {worker.connection: worker for worker in crew if worker.task is not None}
                if not busy:
                    return
                for connection in wait(list(busy)):
                    task, outcome = busy[connection].result()  # pyright: ignore[reportArgumentType]
                    if isinstance(outcome, _Death):
                        outcome = queue.lost(task, outcome.how)
                        if outcome is None:
                            continue
                    yield task.job, outcome
        finally:
            for worker in crew:
                worker.stop()


def shares(
    workers: int, cores: int, gpus: Sequence[str], threads: int | None, environment: Mapping[str, str]
) -> list[dict[str, str]]:
    """What each of the workers has in its environment: a number of threads, and one of several GPUs in turn.

    Fewer threads than its share where the user's own OMP_NUM_THREADS says so.
    """
    most = environment.get(THREADS, "")
    each = threads or max(1, cores // workers)
    if threads is None and most.isdigit() and int(most) > 0:
        each = min(each, int(most))
    found = [{THREADS: str(each)} for _ in range(workers)]
    if len(gpus) > 1:
        found = [share | {DEVICES: gpus[number % len(gpus)]} for number, share in enumerate(found)]
    return found


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = [name.strip() for name in os.environ.get(DEVICES, "").split(",") if name.strip()]
    return named or [str(number) for number in range(torch.cuda.device_count())]


def _begin(queue: Queue[Job], crew: Sequence[_Worker[Job, Result]], work: Callable[[Job], Result]) -> None:
    """Give every free worker something to do, as long as there is."""
    for worker in crew:
        if worker.task is None:
            if (task := queue.take()) is None:
                return
            worker.begin(work, task)


class _Death:
    """A worker that is no more; `how` it ended."""

    def __init__(self, code: int | None) -> None:
        self.how = how_it_ended(code)


class _Worker(Generic[Job, Result]):
    """A place for one process, which starts with its first task and anew after its death; `task` is what it is at."""

    connection: Connection
    task: QueuedJob[Job] | None = None

    def __init__(self, share: Mapping[str, str]) -> None:
        self._share = share
        self._process: Any = None

    def begin(self, work: Callable[[Job], Result], task: QueuedJob[Job]) -> None:
        if self._process is None or not self._process.is_alive():
            self._start()
        self.task = task
        # Where it died just now, its end of the connection says so too.
        with suppress(BrokenPipeError):
            self.connection.send((work, task.job))

    def result(self) -> tuple[QueuedJob[Job], Result | Failed | _Death]:
        """What became of the task, once there is something to read."""
        task, self.task = self.task, None
        assert task is not None
        try:
            return task, self.connection.recv()
        except (EOFError, ConnectionResetError):
            # Only when it is gone for good are the locks free that it held.
            self._process.join()
            return task, _Death(self._process.exitcode)

    def stop(self) -> None:
        """End it, whatever it is at: what runs leave is whole at any moment."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self.connection.close()

    def _start(self) -> None:
        if self._process is not None:
            self.connection.close()
        self.connection, its_end = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_serve, args=(its_end, dict(self._share)), daemon=True)
        with _no_ctrl_c():
            self._process.start()
        its_end.close()


@contextmanager
def _no_ctrl_c() -> Iterator[None]:
    """What starts inside is never told of Ctrl-C, which the terminal sends to all of its processes."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, share: Mapping[str, str]) -> None:
    """The life of a worker: one job after the other, until its caller is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Before the first job comes, and torch with it.
    os.environ.update(share)
    while True:
        try:
            work, job = connection.recv()
        except EOFError:
            return
        # Where the user's own script has imported it, it has counted the cores already.
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(int(share[THREADS]))
        connection.send(attempt(work, job))


def _end_with_parent() -> None:
    """A caller that is killed can end nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)

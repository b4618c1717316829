"""A Ray cluster: every job is one of its tasks, with its CPUs and GPUs."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO, cast

from sparsebert.errors import UserError
from sparsebert.files import PREFIX
from sparsebert.processes import Failed, Job, Result, attempt
from sparsebert.progress import busy, line
from sparsebert.runs.executors.base import Executor, Queue, QueuedJob

ADDRESS, STATISTICS = "RAY_ADDRESS", "RAY_USAGE_STATS_ENABLED"
# Results are small and travel without it; Ray would take a third of the memory.
STORE_BYTES = 150 * 10**6
ANSWER_S, CHECK_S, PROBE_S = 5.0, 10.0, 60.0
START = "start one with `ray start --head`, and let this machine join it with `ray start --address=HOST:PORT`"


class OnRay(Executor):
    """Jobs as tasks of a cluster. Their files are on storage that all of its nodes see; only answers travel by Ray."""

    # A node that others have lost may still be at its job.
    patience_s = 60.0

    def __init__(self, address: str | None, cpus_per_job: int, gpus_per_job: float | None) -> None:
        self._ray = _ray()
        self._cpus, self._address = cpus_per_job, address or os.environ.get(ADDRESS)
        # One that is the caller's own is left as it is.
        self._is_ours = not self._ray.is_initialized()
        self._join()
        found = self._ray.cluster_resources()
        self._gpus = min(1.0, found.get("GPU", 0.0)) if gpus_per_job is None else gpus_per_job
        self.workers = self._places()
        if self.workers < 1:
            raise UserError(
                "The Ray cluster has no room for a job",
                got=f"{found.get('CPU', 0):g} CPUs and {found.get('GPU', 0):g} GPUs",
                allowed=f"{self._cpus} CPUs and {self._gpus:g} GPUs a job",
            )
        line(
            f"On a Ray cluster of {len(self._nodes())} nodes with room for {self.workers} jobs at once; files are "
            "on storage that all nodes share, and nothing is copied"
        )

    def map(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[tuple[Job, Result | Failed]]:
        """As Executor says."""
        self._join()
        with _own_stdout():
            yield from self._results(work, Queue(jobs))

    def _results(self, work: Callable[[Job], Result], queue: Queue[Job]) -> Iterator[tuple[Job, Result | Failed]]:
        # Retried here: Ray would begin anew without end what is killed for want of memory.
        needs = {"num_cpus": self._cpus, "num_gpus": self._gpus, "max_retries": 0}
        remote = self._ray.remote(_task).options(**needs)
        running = dict[Any, QueuedJob[Job]]()
        try:
            while True:
                while len(running) < max(1, self._places()) and (task := queue.take()) is not None:
                    running[remote.remote(work, task.job, os.getcwd(), self._cpus)] = task
                if not running:
                    return
                for reference in self._ray.wait(list(running), num_returns=1)[0]:
                    task = running.pop(reference)
                    outcome = self._outcome(queue, task, reference)
                    if outcome is not None:
                        yield task.job, outcome
        finally:
            for reference in running:
                self._ray.cancel(reference, force=True)
            if self._is_ours:
                self._ray.shutdown()

    def blind(self, folder: Path) -> list[str]:
        """As Executor says: asks every node that runs jobs for a new file in `folder`, or where that will be made."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        place = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.is_dir())
        look = self._ray.remote(os.path.exists)
        with tempfile.NamedTemporaryFile(dir=place, prefix=PREFIX) as file:
            asked = {}
            for node in self._nodes():
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                asked[look.options(num_cpus=0, scheduling_strategy=there).remote(file.name)] = node
            done, late = self._ray.wait(list(asked), num_returns=len(asked), timeout=PROBE_S)
            unseen = [one for one in done if not self._ray.get(one)]
        return [asked[one]["NodeManagerHostname"] for one in (*unseen, *late)]

    def _join(self) -> None:
        if not self._ray.is_initialized():
            with busy("Joining the Ray cluster"):
                _join(self._ray, self._address)

    def _outcome(self, queue: Queue[Job], task: QueuedJob[Job], reference: Any) -> Any:
        """A result or a failure; none where the task begins again."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
            return queue.lost(task, _first_sentence(error))

    def _places(self) -> int:
        found = self._ray.cluster_resources()
        places = [found.get("CPU", 0) // self._cpus]
        if self._gpus:
            places.append(found.get("GPU", 0) // self._gpus)
        return int(min(places))

    def _nodes(self) -> list[dict[str, Any]]:
        """Those that are alive and run jobs."""
        return [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= self._cpus]


def _task(work: Callable[[Job], Result], job: Job, folder: str, threads: int) -> Result | Failed:
    """In a worker of Ray, which may have had another job before."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    def there(given: Job) -> Result:
        # Where the command was given: its paths may be relative.
        os.chdir(folder)
        return work(given)

    torch.set_num_threads(threads)
    return attempt(there, job)


def _ray() -> ModuleType:
    os.environ[STATISTICS] = "0"
    try:
        import ray
    except ImportError:
        raise UserError("Ray is not installed", fix="pip install 'sparsebert[ray]'") from None
    return ray


def _join(ray: ModuleType, address: str | None) -> None:
    """Raises UserError where nobody answers within a few seconds."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    with _own_signals():
        if address is None or address == "local":
            ray.init(address="local", include_dashboard=False, object_store_memory=STORE_BYTES, **quiet)
            return
        _check_answers(address)
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"The Ray cluster at {address} cannot be joined: {_first_sentence(error)}",
                fix=f"run `ray start --address={address}` on this machine",
            ) from None


def _check_answers(address: str) -> None:
    """Ask whether the head of a cluster is there, before Ray waits for it for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError("The address of a Ray cluster is HOST:PORT", got=address, fix="as `ray start --head` prints it")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"No Ray cluster answers at {address}: {error}", fix=START) from None
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        code = subprocess.run(command, capture_output=True, timeout=CHECK_S).returncode
    except subprocess.TimeoutExpired:
        code = 1
    if code != 0:
        raise UserError(
            "What answers there is not the head of a Ray cluster of this version of Ray",
            got=address,
            fix="give the address that `ray start --head` prints, with its port, 6379 unless said otherwise",
        )


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray puts a handler of its own in the place of the command's."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


class _Aside:
    """Stdout for one thread. What others say there goes to stderr, of each message its first line."""

    def __init__(self, stdout: TextIO) -> None:
        self._stdout, self._owner = stdout, threading.get_ident()

    def write(self, text: str) -> int:
        if threading.get_ident() == self._owner:
            return self._stdout.write(text)
        if first := text.partition("\n")[0].strip():
            line(first)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stdout, name)


@contextmanager
def _own_stdout() -> Iterator[None]:
    """Inside, a thread of Ray that tells of dead nodes, with pages of their logs, does not tell it among results."""
    before, sys.stdout = sys.stdout, cast("TextIO", _Aside(sys.stdout))
    try:
        yield
    finally:
        sys.stdout = before


def _first_sentence(error: Exception) -> str:
    lines = [text.strip() for text in str(error).splitlines() if text.strip()]
    return lines[0].split(". ")[0].rstrip(".") if lines else type(error).__name__

"""What all executors have in common: jobs in, results or failures out, in the order in which they finish."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from sparsebert.errors import UserError
from sparsebert.processes import Failed, Job, Result
from sparsebert.progress import line

RETRIES = 2
"""How many times a job begins again whose worker has died."""


class Executor(ABC):
    """Runs jobs, `workers` of them at once (a cluster may grow and shrink).

    `patience_s` is how long the worker of a dead machine may live on, so that what it holds is not free yet.
    """

    workers: int = 1
    patience_s: float = 0.0

    @abstractmethod
    def map(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[tuple[Job, Result | Failed]]:
        """Each job with what `work` made of it, as soon as it is there.

        `jobs` are pulled one by one, each when a worker is free for it, and after the results that came before. A
        UserError is a Failed; so is every error of another process, and a job whose workers died one after the other.
        `work`, jobs and results travel between processes: a function of a module, and plain values.
        """

    def check(self, folder: Path) -> None:
        """Raises UserError, naming them, if there are machines that do not see `folder`, or the current one."""
        blind = sorted({machine for place in (folder, Path.cwd()) for machine in self.blind(place)})
        if blind:
            raise UserError(
                f"Not all machines see {folder.absolute()} and the current folder",
                got=", ".join(blind),
                fix="work in a folder that all of them have under the same path, as on NFS",
            )

    def blind(self, folder: Path) -> list[str]:
        """Names of the machines of the workers that do not see `folder`."""
        return []


class InProcess(Executor):
    """One job after the other, here."""

    def map(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[tuple[Job, Result | Failed]]:
        """As Executor says; an error that is not the user's is raised."""
        for job in jobs:
            try:
                result: Result | Failed = work(job)
            except UserError as error:
                result = Failed(str(error))
            yield job, result


@dataclass(frozen=True)
class QueuedJob(Generic[Job]):
    """A job and how many of its workers have died."""

    job: Job
    deaths: int = 0


class Queue(Generic[Job]):
    """Tasks that begin again, then new ones, each asked of `jobs` only when it can begin."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._new = iter(jobs)
        self._again: deque[QueuedJob[Job]] = deque()

    def take(self) -> QueuedJob[Job] | None:
        """The next; none = there is nothing to begin now."""
        if self._again:
            return self._again.popleft()
        for job in self._new:
            return QueuedJob(job)
        return None

    def lost(self, task: QueuedJob[Job], how: str) -> Failed | None:
        """Note that a worker died: the task begins again (none), or has failed for good."""
        if task.deaths < RETRIES:
            line(f"A worker died ({how}); its job begins again, {task.deaths + 1} of at most {RETRIES} times")
            self._again.append(QueuedJob(task.job, task.deaths + 1))
            return None
        return Failed(f"{task.deaths + 1} workers died of it, the last one so: {how}")

"""The one thread that models work on: what is asked waits in a line, so that no answer and no time disturbs another."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from sparsebert.errors import UserError
from sparsebert.serve.limits import RefusedError

MOST_WAITING = 8
MOST_KEPT = 64
"""So many jobs that are over can still be looked at."""
UNASKED_S = 90.0
"""A job that nobody looks at for so long is given up: browsers let tabs in the background ask once a minute."""


class StoppedError(UserError):
    """Nobody wants the job any more."""

    def __init__(self) -> None:
        super().__init__("It was stopped")


@dataclass(eq=False)
class Errand:
    """Something that is done with models, what it is called, and what it has found so far."""

    what: str
    clock: Callable[[], float]
    found: dict[str, Any] = field(default_factory=dict, init=False)
    looked: float = field(init=False)
    stopped: bool = field(default=False, init=False)
    _future: Future[None] = field(init=False)

    def __post_init__(self) -> None:
        self.looked = self.clock()

    def report(self, found: dict[str, Any]) -> None:
        """What the page may show by now, in the place of what it was told before."""
        self.found = found

    def go_on(self) -> None:
        """Raises StoppedError where nobody wants it any more; called between its steps."""
        if self.stopped or self.clock() - self.looked > UNASKED_S:
            raise StoppedError

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to come."""
        return self._future.done()

    def begin(self, thread: ThreadPoolExecutor, work: Callable[[Errand], None]) -> None:
        """Put it in the line."""

        def wanted() -> None:
            self.go_on()
            work(self)

        self._future = thread.submit(wanted)

    def told(self) -> tuple[str, str]:
        """Its state, and one line where it went wrong."""
        if not self._future.done():
            return ("running" if self._future.running() else "waiting"), ""
        error = None if self._future.cancelled() else self._future.exception()
        if self._future.cancelled() or isinstance(error, StoppedError):
            return "stopped", ""
        if error is None:
            return "done", ""
        return "failed", str(error) if isinstance(error, UserError) else _bug(error)


def _bug(error: BaseException) -> str:
    """What libraries say of a model that they cannot run is worth a line; nothing of it is markup on the page."""
    said = " ".join(str(error).split())[:200]
    return f"The model could not be run: {type(error).__name__}{': ' + said if said else ''}"


class Bench:
    """A line of jobs before one thread; safe to be asked by several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="models")
        self._jobs: dict[str, Errand] = {}

    def put(self, what: str, work: Callable[[Errand], None]) -> str:
        """Add a job, and give its number. Raises UserError where too many wait already."""
        with self._lock:
            waiting = [job for job in self._jobs.values() if not job.is_over]
            if len(waiting) > MOST_WAITING:
                raise UserError(f"{len(waiting)} others wait for the models", fix="ask again in a minute")
            for number in [number for number, job in self._jobs.items() if job.is_over][:-MOST_KEPT]:
                del self._jobs[number]
            number, job = secrets.token_urlsafe(12), Errand(what, self._clock)
            self._jobs[number] = job
            job.begin(self._thread, work)
            return number

    def look(self, number: str) -> dict[str, Any]:
        """How far a job is: `state`, what it has `found`, and a `line` for a reader. Raises RefusedError, 404."""
        job = self._job(number)
        job.looked = self._clock()
        state, problem = job.told()
        return {
            "state": state,
            "found": job.found,
            "line": problem or (self._before(job) if state == "waiting" else ""),
        }

    def stop(self, number: str) -> None:
        """Nobody wants it any more: it ends before its next step. Raises RefusedError, 404."""
        self._job(number).stopped = True

    def close(self) -> None:
        """End what is at work before its next step, and all that waits."""
        for job in self._jobs.values():
            job.stopped = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _job(self, number: str) -> Errand:
        job = self._jobs.get(number)
        if job is None:
            raise RefusedError(404, "There is no such job, or no more; ask again")
        return job

    def _before(self, job: Errand) -> str:
        """What is at work while a job waits."""
        with self._lock:
            line = [one for one in self._jobs.values() if not one.is_over]
        before = line[: line.index(job)] if job in line else []
        if not before:
            return "It begins in a moment."
        more = f", and {len(before) - 1} more before this one" if len(before) > 1 else ""
        return f"It waits: {before[0].what} is at work{more}. One at a time, so that they do not disturb each other."

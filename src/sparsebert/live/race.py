"""One queue of texts through two models, a short turn each, until one of them is through.

Turns are of equal time, or of a batch where that takes longer, so that what else goes on in the machine meets both
alike. Each model has a process of its own, where threads of the other's runtime cannot spin and whose memory can be
told. It ends with the first that is through: alone the other one would have other company.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sparsebert.energy import Counters, counters
from sparsebert.live.bench import Errand
from sparsebert.live.catalogue import need_torch
from sparsebert.live.lane import Progress
from sparsebert.live.pool import Side
from sparsebert.live.texts import TextQueue
from sparsebert.live.turns import ratio, spread
from sparsebert.processes import Remote

LONGEST_S = 60.0
TEXTS = (100, 500, 2000)
MEMORY_MB = (0, 128, 256, 512, 1024, 2048)
"""Memory that a process may hold; 0 = whatever it takes."""


@dataclass
class Racer:
    """One side of a race: `turn` makes its next one, wherever its model is."""

    name: str
    runtime: str | None
    turn: Callable[[], Progress]
    progress: Progress = field(default_factory=Progress)

    def fits(self, limit_mb: int) -> bool:
        """Whether it has never held more than the limit."""
        return not limit_mb or self.progress.peak_mb <= limit_mb

    def told(self, limit_mb: int) -> dict[str, Any]:
        """As the page shows it; `joules` none where they are not known, or no turn was made."""
        now = self.progress
        return {
            "name": self.name,
            "runtime": self.runtime,
            "done": now.done,
            "seconds": now.seconds,
            "rate": now.done / now.seconds if now.seconds else None,
            "spread": spread(now.rates),
            "joules": now.spent.total if now.spent.joules else None,
            "peak_mb": now.peak_mb,
            "fits": self.fits(limit_mb),
        }


def race(job: Errand, sides: tuple[Side, Side], queue: TextQueue, batch: int, limit_mb: int) -> None:
    """Open both, let each answer a batch, and let them run. Raises UserError as a Predictor does, and as Remote."""
    for side in sides:
        need_torch(side.model)
    with ExitStack() as stack:
        job.report({"line": "Starting a process for each …"})
        remotes = _processes(sides, stack)
        racers = []
        # One after the other: a runtime may be chosen by measuring.
        for side, remote in zip(sides, remotes, strict=True):
            job.report({"line": f"Opening {side.model.name} …"})
            job.go_on()
            asked = (side.way.threads, batch, queue)
            ready = remote.call("open", side.model.place, side.way.runtime, *asked)
            if ready.tried:
                # The process still holds what the other runtimes took.
                remote.stop()
                (remote,) = _processes([side], stack)
                ready = remote.call("open", side.model.place, ready.runtime, *asked)
            turn = partial(remote.call, "turn")
            racers.append(Racer(side.model.name, ready.runtime, turn, Progress(peak_mb=ready.peak_mb)))
        run(job, racers, len(queue.first), counters(), limit_mb)


def _processes(sides: Sequence[Side], stack: ExitStack) -> list[Remote]:
    """One for each side, until the stack closes; they import what they need side by side."""
    remotes = [Remote(side.model.name, "sparsebert.live.lane:Lane") for side in sides]
    for remote in remotes:
        stack.callback(remote.stop)
    with ThreadPoolExecutor(len(sides)) as all_of_them:
        list(all_of_them.map(lambda side, remote: remote.make(not side.model.is_programs), sides, remotes))
    return remotes


def run(
    job: Errand,
    racers: Sequence[Racer],
    total: int,
    found: Counters,
    limit_mb: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Turns until a racer is through, or for LONGEST_S; reports after every pair of them.

    One that has held more than `limit_mb` makes no more turns, as it would have been ended where there is no more.
    """
    end, turn = clock() + LONGEST_S, 0
    while clock() < end and max(racer.progress.done for racer in racers) < total:
        running = [racer for racer in racers if racer.fits(limit_mb)]
        if not running:
            break
        job.go_on()
        for racer in running if turn % 2 == 0 else reversed(running):
            racer.progress = racer.turn()
        turn += 1
        job.report(_told(racers, total, turn, found, limit_mb, over=False))
    job.report(_told(racers, total, turn, found, limit_mb, over=True))


def _told(
    racers: Sequence[Racer], total: int, turns: int, found: Counters, limit_mb: int, over: bool
) -> dict[str, Any]:
    one, other = (racer.progress.rates for racer in racers)
    # A racer whose queue is over has a turn less.
    both = min(len(one), len(other))
    together = all(racer.fits(limit_mb) for racer in racers)
    return {
        "line": "",
        "sides": [racer.told(limit_mb) for racer in racers],
        "total": total,
        "turns": turns,
        "limit_mb": limit_mb,
        "faster": ratio(other[:both], one[:both]) if together else None,
        "energy": found.words,
        "over": over,
    }

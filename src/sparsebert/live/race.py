"""One queue of texts through two models, a short turn each, until one of them is through.

Turns are of equal time, or of a batch where that takes longer, so that what else goes on in the machine meets both
alike. It ends with the first that is through: alone the other one would have other company.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sparsebert.energy import NOTHING, Counters, EnergyMeter, Spent, counters
from sparsebert.live.bench import Errand
from sparsebert.live.pool import Pool, Side
from sparsebert.live.texts import TextQueue, as_pairs
from sparsebert.live.turns import ratio, spread

if TYPE_CHECKING:
    from sparsebert.deployment.predictor import Predictor

TURN_S = 0.2
LONGEST_S = 60.0
WARM_S = 5.0
"""Longest time for shapes that a runtime has not met, before the clocks run."""
TEXTS = (100, 500, 2000)


@dataclass
class Runner:
    """One model in a race: what it has done, in its own time, turn by turn."""

    name: str
    run: Callable[[int, int], object]
    """Answers the texts from one place of the queue to another."""
    runtime: str | None
    done: int = 0
    seconds: float = 0.0
    rates: list[float] = field(default_factory=list)
    spent: Spent = NOTHING

    def turn(self, total: int, batch: int, found: Counters, clock: Callable[[], float]) -> None:
        """Batches until TURN_S are over or the queue is."""
        meter, before, start = EnergyMeter(found, clock), self.done, clock()
        passed = 0.0
        while passed < TURN_S and self.done < total:
            end = min(self.done + batch, total)
            self.run(self.done, end)
            self.done, passed = end, clock() - start
        self.spent = self.spent.plus(meter.look())
        if self.done > before:
            self.seconds += passed
            self.rates.append((self.done - before) / passed)

    def told(self) -> dict[str, Any]:
        """As the page shows it; `joules` none where they are not known."""
        rate = self.done / self.seconds if self.seconds else None
        joules, known = self.spent.total, self.spent.joules
        return {
            "name": self.name,
            "runtime": self.runtime,
            "done": self.done,
            "seconds": self.seconds,
            "rate": rate,
            "spread": spread(self.rates),
            "joules": joules if known else None,
        }


def race(job: Errand, pool: Pool, sides: tuple[Side, Side], queue: TextQueue, batch: int) -> None:
    """Open both, let each answer a batch, and let them run. Raises UserError as a Predictor does."""
    runners = []
    for side in sides:
        job.report({"line": f"Opening {side.model.name} …"})
        job.go_on()
        runners.append(_ready(pool.open(side, batch), side, queue, batch))
    run(job, runners, len(queue.first), batch, counters())


def run(
    job: Errand,
    runners: list[Runner],
    total: int,
    batch: int,
    found: Counters,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Turns until a runner is through, or for LONGEST_S; reports after every pair of them."""
    end, turn = clock() + LONGEST_S, 0
    while clock() < end and max(runner.done for runner in runners) < total:
        job.go_on()
        for runner in runners if turn % 2 == 0 else reversed(runners):
            runner.turn(total, batch, found, clock)
        turn += 1
        job.report(_told(runners, total, turn, found, over=False))
    job.report(_told(runners, total, turn, found, over=True))


def _told(runners: list[Runner], total: int, turns: int, found: Counters, over: bool) -> dict[str, Any]:
    one, other = runners
    # A runner whose queue is over has a turn less.
    both = min(len(one.rates), len(other.rates))
    return {
        "line": "",
        "sides": [runner.told() for runner in runners],
        "total": total,
        "turns": turns,
        "faster": ratio(other.rates[:both], one.rates[:both]),
        "energy": found.words,
        "over": over,
    }


def _ready(predictor: Predictor, side: Side, queue: TextQueue, batch: int) -> Runner:
    texts = as_pairs(queue) if predictor.kind.apart else queue

    def answers(start: int, end: int) -> object:
        return predictor.ranked(*texts.part(start, end))

    answers(0, batch)
    predictor.warm_up(WARM_S)
    return Runner(side.model.name, answers, predictor.runtime)

"""One model of a race, in a process of its own: texts answered in turns, and the memory that it takes there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from sparsebert.energy import NOTHING, Counters, EnergyMeter, Spent, counters
from sparsebert.live.texts import TextQueue, as_pairs
from sparsebert.processes import status_mb

if TYPE_CHECKING:
    from sparsebert.deployment.predictor import Predictor

TURN_S = 0.2
WARM_S = 5.0
"""Longest time for shapes that a runtime has not met, before the clocks run."""


@dataclass
class Progress:
    """What a model has done so far, in its own time; `rates` are texts a second of each turn.

    `peak_mb` is the most memory that its process has held so far, with the interpreter and the libraries, in 2**20
    bytes.
    """

    done: int = 0
    seconds: float = 0.0
    rates: list[float] = field(default_factory=list)
    spent: Spent = NOTHING
    peak_mb: float = 0.0


@dataclass
class Runner:
    """Goes through `total` texts, `batch` at a time; `answers` is given the first place of a part and its end."""

    answers: Callable[[int, int], object]
    total: int
    batch: int
    found: Counters
    clock: Callable[[], float] = time.perf_counter
    progress: Progress = field(default_factory=Progress)

    def turn(self) -> Progress:
        """Batches until TURN_S are over or the queue is."""
        now = self.progress
        meter, before, start = EnergyMeter(self.found, self.clock), now.done, self.clock()
        passed = 0.0
        while passed < TURN_S and now.done < self.total:
            end = min(now.done + self.batch, self.total)
            self.answers(now.done, end)
            now.done, passed = end, self.clock() - start
        now.spent = now.spent.plus(meter.look())
        if now.done > before:
            now.seconds += passed
            now.rates.append((now.done - before) / passed)
        now.peak_mb = status_mb("VmHWM")
        return now


@dataclass(frozen=True)
class Ready:
    """A model that is open: its runtime, and the most memory that was held until now, in 2**20 bytes.

    Where others were `tried`, theirs is part of that.
    """

    runtime: str | None
    tried: bool
    peak_mb: float


class Lane:
    """The object in the other process. Making it imports what models need, which is most of the time of the first."""

    _predictor: Predictor
    _runner: Runner

    def __init__(self, needs_torch: bool) -> None:
        for module in ("sparsebert.deployment.predictor", *(["sparsebert.deployment.plain"] if needs_torch else [])):
            import_module(module)

    def open(self, model: str, runtime: str, threads: int, batch: int, queue: TextQueue) -> Ready:
        """Open the model and answer a batch. Raises UserError as a Predictor does."""
        from sparsebert.deployment.predictor import Predictor

        self._predictor = predictor = Predictor(model, runtime, batch=batch, threads=threads)
        texts = as_pairs(queue) if predictor.kind.apart else queue

        def answers(start: int, end: int) -> None:
            predictor.ranked(*texts.part(start, end))

        answers(0, batch)
        predictor.warm_up(WARM_S)
        self._runner = Runner(answers, len(queue.first), batch, counters())
        return Ready(predictor.runtime, bool(predictor.measured_ms), status_mb("VmHWM"))

    def turn(self) -> Progress:
        """As of a Runner."""
        return self._runner.turn()

"""A model of a server: opened and warmed up on the one thread that it then answers on."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsebert.deployment.predictor import Predictor
from sparsebert.errors import UserError
from sparsebert.serve.batcher import Batcher
from sparsebert.serve.journal import Meters
from sparsebert.serve.limits import Limits, RefusedError

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)
WARM_WORDS = 24
WARM_S = 5.0
"""Longest time for shapes of batches that a runtime has not met."""
LOADING_S = 5
"""Seconds after which a model that loads is asked for again."""


@dataclass(frozen=True)
class Plan:
    """A model to serve: its name in addresses, where it lies, and how it runs, as a Predictor takes it."""

    name: str
    model: str
    runtime: str
    max_length: int | None = None
    threads: int | None = None


def plans(
    given: Sequence[str], runtime: str, max_length: int | None = None, threads: int | None = None
) -> tuple[Plan, ...]:
    """Models as a command names them, `name=folder`, or `folder` to be called as the folder is.

    Raises UserError for a name that cannot stand in an address, and for two models of one name.
    """
    found: dict[str, Plan] = {}
    for text in given:
        name, model = _named(text)
        if name in found:
            raise UserError("Two models have the same name", got=name, fix="name them: dense=FOLDER small=FOLDER")
        found[name] = Plan(name, model, runtime, max_length, threads)
    return tuple(found.values())


def _named(text: str) -> tuple[str, str]:
    before, equals, after = text.partition("=")
    if equals and NAME.fullmatch(before) and after:
        return before, after
    name = Path(text).resolve().name
    if not NAME.fullmatch(name):
        allowed = "letters, digits, and . _ - between them, 64 at most"
        raise UserError("The folder's name is no name for a model", got=name, allowed=allowed, fix="give NAME=FOLDER")
    return name, text


class Served:
    """One model, its thread and its queue. `ready` once it is open and has answered a full batch."""

    def __init__(self, plan: Plan, limits: Limits, meters: Meters) -> None:
        self.plan, self._limits = plan, limits
        self._merged = meters.watch(plan.name, lambda: self.waiting_texts)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=plan.name)
        self._batcher: Batcher | None = None
        self._facts: dict[str, Any] = {}

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self._batcher is not None

    @property
    def batcher(self) -> Batcher:
        """Its queue. Raises RefusedError, 503, while it loads."""
        if self._batcher is None:
            raise RefusedError(503, f"The model {self.plan.name} is being loaded", LOADING_S)
        return self._batcher

    @property
    def waiting_texts(self) -> int:
        """Texts in its queue."""
        return 0 if self._batcher is None else self._batcher.texts

    def facts(self) -> dict[str, Any]:
        """What /models says of it; of a model that loads only that."""
        return {"name": self.plan.name, "ready": self.ready, **self._facts}

    async def work(self, opened: Callable[[dict[str, Any]], None]) -> None:
        """Open the model, tell `opened` what it is, and answer for ever. Raises UserError as a Predictor does."""
        start = time.perf_counter()
        predictor = await asyncio.get_running_loop().run_in_executor(self._thread, self._open)
        self._facts = {
            "runtime": predictor.runtime,
            "labels": list(predictor.labels),
            "max_length": predictor.max_length,
        }
        if predictor.thresholds:
            self._facts["thresholds"] = list(predictor.thresholds)
        self._batcher = Batcher(predictor.ranked, self._thread, self._limits, self._merged)
        opened({"model": self.plan.name, "runtime": predictor.runtime, "ms": _ms_since(start)})
        await self._batcher.work()

    def close(self) -> None:
        """Let the thread end after what it is at."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _open(self) -> Predictor:
        plan, batch = self.plan, self._limits.batch
        predictor = Predictor(plan.model, plan.runtime, max_length=plan.max_length, batch=batch, threads=plan.threads)
        # Pairs, where a model takes them: some take nothing else.
        side = " ".join(["the"] * WARM_WORDS)
        for texts in (batch, 1):
            predictor.ranked([side] * texts, None if predictor.kind.texts == 1 else [side] * texts)
        predictor.warm_up(WARM_S)
        return predictor


def _ms_since(start: float) -> float:
    return round(1000 * (time.perf_counter() - start), 1)

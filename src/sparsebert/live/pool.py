"""Models that are open, the latest few of them: each in one runtime, on so many threads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sparsebert.errors import UserError
from sparsebert.live.catalogue import AskedModel, need_torch
from sparsebert.live.latest import Latest

if TYPE_CHECKING:
    from sparsebert.deployment.predictor import Predictor

MOST_OPEN = 4
BATCHES = (1, 8, 32)


@dataclass(frozen=True)
class WayToRun:
    """How a model is to run: the runtime, as a Predictor names it, on so many threads."""

    runtime: str
    threads: int


@dataclass(frozen=True)
class Side:
    """One of the two models that are asked, and how it runs."""

    model: AskedModel
    way: WayToRun


@dataclass
class Pool:
    """Opens models and keeps them, MOST_OPEN at most; used on one thread."""

    _open: Latest[Predictor] = field(default_factory=lambda: Latest(MOST_OPEN))

    def open(self, side: Side, batch: int) -> Predictor:
        """The side's model, `batch` texts at a time. Raises UserError as a Predictor does."""
        from sparsebert.deployment.predictor import Predictor

        model, way = side.model, side.way
        need_torch(model)
        return self._open.get(
            (model.now, way, batch), lambda: Predictor(model.place, way.runtime, batch=batch, threads=way.threads)
        )


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def sides_of(asked: Mapping[str, Any], models: Mapping[str, AskedModel]) -> tuple[Side, Side]:
    """The two sides that a page asks for. Raises UserError for a model that is not there, and for other threads."""
    threads = asked.get("threads")
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= cores():
        raise UserError("That is no number of threads", got=threads, allowed=f"1 to {cores()}")
    left, right = (_side(asked.get(name), models, threads) for name in ("left", "right"))
    return left, right


def _side(value: Any, models: Mapping[str, AskedModel], threads: int) -> Side:
    key, runtime = (value.get(name) for name in ("key", "runtime")) if isinstance(value, dict) else (None, None)
    if not isinstance(key, str) or key not in models:
        raise UserError("There is no such model, or no more", got=key, fix="choose another one")
    if not isinstance(runtime, str):
        raise UserError("A runtime is a name", got=runtime)
    return Side(models[key], WayToRun(runtime, threads))

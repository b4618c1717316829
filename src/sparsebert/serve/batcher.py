"""Requests that wait for one model: those that wait together go through it together, on its one thread."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain

from sparsebert.deployment.predictor import RankedLabels
from sparsebert.serve.limits import AT_ONCE_S, Limits, RefusedError
from sparsebert.serve.question import Asked

Rankings = list[tuple[RankedLabels, bool]]
"""For each text its labels, the highest score first, and whether it was cut."""
Rank = Callable[[Sequence[str], Sequence[str] | None], Rankings]


# Compared as objects: two requests may ask the same.
@dataclass(frozen=True, eq=False)
class Waiting:
    """A request in the queue, and where its answer comes to."""

    asked: Asked
    answer: asyncio.Future[Rankings]


@dataclass
class Batcher:
    """A bounded queue before `rank`, which runs on `thread`, a batch at a time; `merged` is told the texts of each.

    Nothing waits while the thread is idle. Only where requests went together last time does the next batch wait for as
    many again, at most `wait_ms` and no longer than it takes to fill. All methods belong to one event loop, so that
    there is nothing to lock.
    """

    rank: Rank
    thread: Executor
    limits: Limits
    merged: Callable[[int], None]
    texts: int = field(default=0, init=False)
    """Texts in the queue."""
    _queue: deque[Waiting] = field(default_factory=deque, init=False)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _company: int = field(default=1, init=False)
    """Requests in the batch before, 1 after a pause."""

    def put(self, asked: Asked) -> Waiting:
        """Add a request to the queue. Raises RefusedError, 503, where there is no room for its texts."""
        if self.texts + len(asked.first) > self.limits.queue:
            raise RefusedError(503, f"The queue is full: {self.texts} texts wait", AT_ONCE_S)
        one = Waiting(asked, asyncio.get_running_loop().create_future())
        self._queue.append(one)
        self.texts += len(asked.first)
        self._arrived.set()
        return one

    def withdraw(self, one: Waiting) -> None:
        """Nobody wants this answer any more: if its batch has not begun, it gives its place to others."""
        one.answer.cancel()
        if one in self._queue:
            self._queue.remove(one)
            self.texts -= len(one.asked.first)

    async def work(self) -> None:
        """Answer for ever."""
        while True:
            batch = await self._collect()
            pairs = [one for one in batch if one.asked.second is not None]
            singles = [one for one in batch if one.asked.second is None]
            for group in filter(None, (singles, pairs)):
                self.merged(sum(len(one.asked.first) for one in group))
                await self._answer(group)

    async def _collect(self) -> list[Waiting]:
        loop, wait_s = asyncio.get_running_loop(), self.limits.wait_ms / 1000
        free = loop.time()
        while not self._queue:
            self._arrived.clear()
            await self._arrived.wait()
        if loop.time() > free + wait_s:
            self._company = 1
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while len(self._queue) < self._company and self.texts < self.limits.batch:
                    self._arrived.clear()
                    await self._arrived.wait()
        return self._take()

    def _take(self) -> list[Waiting]:
        """The first of the queue, and those after it that fit into a batch with it."""
        batch: list[Waiting] = []
        texts = 0
        while self._queue and (not batch or texts + len(self._queue[0].asked.first) <= self.limits.batch):
            batch.append(self._queue.popleft())
            texts += len(batch[-1].asked.first)
        self.texts -= texts
        self._company = max(1, len(batch))
        return batch

    async def _answer(self, group: Sequence[Waiting]) -> None:
        found = await self._outcome(group)
        if isinstance(found, BaseException) and len(group) > 1:
            # One of them has a text that fails; the others are answered.
            for one in group:
                _settle([one], await self._outcome([one]))
        else:
            _settle(group, found)

    async def _outcome(self, group: Sequence[Waiting]) -> Rankings | BaseException:
        first = list(chain.from_iterable(one.asked.first for one in group))
        second = list(chain.from_iterable(one.asked.second or () for one in group)) or None
        task = asyncio.get_running_loop().run_in_executor(self.thread, self.rank, first, second)
        await asyncio.wait([task])
        return task.exception() or task.result()


def _settle(group: Sequence[Waiting], found: Rankings | BaseException) -> None:
    """Give each request its part of the answers, or the error."""
    start = 0
    for one in group:
        end = start + len(one.asked.first)
        if not one.answer.done():
            if isinstance(found, BaseException):
                one.answer.set_exception(found)
            else:
                one.answer.set_result(found[start:end])
        start = end

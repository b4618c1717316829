"""How long bodies of requests may take to arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sparsebert.serve.limits import AT_ONCE_S, RefusedError

AT_END_S = 1.0
"""Seconds that a body may still take once the server ends."""


class Arrivals:
    """The bodies that are on their way; a server that ends does not wait for one whose client has stopped sending."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Timeout] = set()
        self._ending = False

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncGenerator[None, None]:
        """Around the reading of one body. Raises RefusedError: 408 when the time is up, 503 when the server ends."""
        try:
            async with asyncio.timeout(min(seconds, AT_END_S) if self._ending else seconds) as waiting:
                self._waiting.add(waiting)
                try:
                    yield
                finally:
                    self._waiting.discard(waiting)
        except TimeoutError:
            if self._ending:
                raise RefusedError(503, "The server ends", AT_ONCE_S) from None
            raise RefusedError(408, "The body did not arrive in time") from None

    def end(self) -> None:
        """The server ends: what has not arrived within a second will not be waited for, new bodies included."""
        self._ending = True
        at_most = asyncio.get_running_loop().time() + AT_END_S
        for waiting in self._waiting:
            when = waiting.when()
            if when is None or when > at_most:
                waiting.reschedule(at_most)

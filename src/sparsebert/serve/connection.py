"""Connections of a server: no more at once than its limit, and heads of requests that are soon there and not long."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sparsebert.serve.limits import AT_ONCE_S, Limits

HEAD_S = 10.0
"""Seconds that a new connection, or a head that has begun, has until the head is whole."""
HEAD_BYTES = 64 * 2**10
FULL, SLOW, LONG = "full", "slow", "long"


class BoundedConnection(HttpToolsProtocol):
    """What uvicorn makes of each connection; see `connections`, which gives the limits."""

    most: ClassVar[int]
    head_s: ClassVar[float]

    _too_many = False
    _waiting: asyncio.TimerHandle | None = None
    _head = 0

    def ended(self, why: str) -> None:
        """Hear that this connection is closed unasked."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Wait for a head; one connection too many is told so only then, when its client listens."""
        super().connection_made(transport)
        self._too_many = len(self.connections) > self.most
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._head_is_there()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what is not a head yet: it would be kept, and looked at again, for as long as more of it comes."""
        super().data_received(data)
        self._head = self._head + len(data) if self._waiting is not None else 0
        if self._head > HEAD_BYTES and not self.transport.is_closing():
            self._refuse(LONG, "431 Request Header Fields Too Large", f"A head has at most {HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        """Wait for the head of the next request."""
        super().on_message_begin()
        self._wait_for_head()

    def on_headers_complete(self) -> None:
        """Answer, or refuse."""
        self._head_is_there()
        if self._too_many:
            self._refuse(FULL, "503 Service Unavailable", f"{self.most} connections are open already")
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Of a request that was refused nothing is kept."""
        if not self._too_many:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request that was refused is over."""
        if not self._too_many:
            super().on_message_complete()

    def _wait_for_head(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(self.head_s, self._close_slow)

    def _head_is_there(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _close_slow(self) -> None:
        self.ended(SLOW)
        self.transport.close()

    def _refuse(self, why: str, status: str, error: str) -> None:
        self.ended(why)
        self._head_is_there()
        self.transport.write(_answer(status, error))
        self.transport.close()


def connections(limits: Limits, told: Callable[[str], None]) -> type[HttpToolsProtocol]:
    """What uvicorn makes of each connection; `told` hears of those that were closed unasked, and why."""

    class Connection(BoundedConnection):
        most = limits.connections
        head_s = min(HEAD_S, limits.timeout_s)

        def ended(self, why: str) -> None:
            told(why)

    return Connection


def _answer(status: str, error: str) -> bytes:
    body = json.dumps({"error": error}).encode()
    again = f"retry-after: {AT_ONCE_S}\r\n" if status.startswith("503") else ""
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return f"{head}{again}connection: close\r\n\r\n".encode() + body

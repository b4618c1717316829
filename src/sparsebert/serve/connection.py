"""Connections of a server: no more at once than its limit, and heads of requests that are soon there and not long."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sparsebert.serve.limits import AT_ONCE_S, Limits

HEAD_S = 10.0
"""Seconds that a new connection, or a head that has begun, has until the head is whole."""
HEAD_BYTES = 64 * 2**10
FULL, SLOW, LONG = "full", "slow", "long"


def connections(limits: Limits, ended: Callable[[str], None]) -> type[HttpToolsProtocol]:
    """What uvicorn makes of each connection; `ended` hears of those that were closed unasked, and why.

    Whoever comes when `limits.connections` are open is told so in answer to the head of the first request.
    """

    class Connection(HttpToolsProtocol):
        _too_many = False
        _waiting: asyncio.TimerHandle | None = None
        _head = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            super().connection_made(transport)
            self._too_many = len(self.connections) > limits.connections
            self._wait_for_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_is_there()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            # What is not a head yet would be kept, and looked at again, for as long as more of it comes.
            self._head = self._head + len(data) if self._waiting is not None else 0
            if self._head > HEAD_BYTES and not self.transport.is_closing():
                self._refuse(LONG, "431 Request Header Fields Too Large", f"A head has at most {HEAD_BYTES} bytes")

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._wait_for_head()

        def on_headers_complete(self) -> None:
            self._head_is_there()
            if self._too_many:
                self._refuse(FULL, "503 Service Unavailable", f"{limits.connections} connections are open already")
            else:
                super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            if not self._too_many:
                super().on_body(body)

        def on_message_complete(self) -> None:
            if not self._too_many:
                super().on_message_complete()

        def _refuse(self, why: str, status: str, error: str) -> None:
            ended(why)
            self._head_is_there()
            self.transport.write(_answer(status, error))
            self.transport.close()

        def _wait_for_head(self) -> None:
            if self._waiting is None:
                self._waiting = self.loop.call_later(min(HEAD_S, limits.timeout_s), self._close_slow)

        def _head_is_there(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

        def _close_slow(self) -> None:
            ended(SLOW)
            self.transport.close()

    return Connection


def _answer(status: str, error: str) -> bytes:
    body = json.dumps({"error": error}).encode()
    again = f"retry-after: {AT_ONCE_S}\r\n" if status.startswith("503") else ""
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return f"{head}{again}connection: close\r\n\r\n".encode() + body

"""Connections of a server: no more at once than its limit, and none that keeps it waiting for the head of a request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sparsebert.serve.limits import AT_ONCE_S, Limits

HEAD_S = 10.0
"""Seconds that a new connection, or a head that has begun, has until the head is whole."""
FULL, SLOW = "full", "slow"


def connections(limits: Limits, ended: Callable[[str], None]) -> type[HttpToolsProtocol]:
    """What uvicorn makes of each connection; `ended` hears of those that were closed unasked, and why.

    Whoever comes when `limits.connections` are open is told so in answer to the head of the first request.
    """

    class Connection(HttpToolsProtocol):
        _too_many = False
        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            super().connection_made(transport)
            self._too_many = len(self.connections) > limits.connections
            self._wait_for_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_is_there()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._wait_for_head()

        def on_headers_complete(self) -> None:
            self._head_is_there()
            if self._too_many:
                ended(FULL)
                self.transport.write(_full(limits.connections))
                self.transport.close()
            else:
                super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            if not self._too_many:
                super().on_body(body)

        def on_message_complete(self) -> None:
            if not self._too_many:
                super().on_message_complete()

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


def _full(most: int) -> bytes:
    body = json.dumps({"error": f"{most} connections are open already"}).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nretry-after: {AT_ONCE_S}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body

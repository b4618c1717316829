"""What every request goes through: an id, the token where there is one, a line in the log, a count."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sparsebert.serve.door import bears
from sparsebert.serve.journal import Meters, Seen, tell

OPEN = ("/health", "/ready")
"""What whoever watches over the process may ask without a token."""
REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


@dataclass(frozen=True)
class Doorkeeper:
    """Around an application: the last to see a request's answer, whatever went wrong inside."""

    app: ASGIApp
    meters: Meters
    token: str | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as any ASGI application does; `scope["state"]` holds what is seen of it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        headers = Headers(scope=scope)
        seen = Seen(_request_id(headers.get("x-request-id", "")))
        scope.setdefault("state", {}).update(seen=seen, start=start)

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = seen.request_id
            await send(message)

        try:
            await (self.app if self._may(scope["path"], headers) else _stranger)(scope, receive, answered)
        finally:
            # The pattern of the path, not the path, which is the client's: there are as many counters as patterns.
            seen.route = scope["route"].path if "route" in scope else seen.route
            self._report(seen, time.perf_counter() - start)

    def _may(self, path: str, headers: Headers) -> bool:
        if self.token is None or path in OPEN:
            return True
        return bears(headers.get("authorization", ""), self.token)

    def _report(self, seen: Seen, seconds: float) -> None:
        self.meters.count(seen, seconds)
        tell(
            "request",
            id=seen.request_id,
            route=seen.route,
            model=seen.model,
            texts=seen.texts,
            ms=round(1000 * seconds, 2),
            status=seen.status,
        )


async def _stranger(scope: Scope, receive: Receive, send: Send) -> None:
    answer = JSONResponse({"error": "A token is needed: Authorization: Bearer TOKEN"}, 401)
    answer.headers["WWW-Authenticate"] = "Bearer"
    await answer(scope, receive, send)


def _request_id(given: str) -> str:
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex

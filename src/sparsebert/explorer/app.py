"""The routes of the live page, and who may use them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sparsebert.explorer.annex import NO_ANNEX, Annex
from sparsebert.explorer.library import Library
from sparsebert.explorer.pages import POLICY, ExplorerView, asset, door_html, model_html, view_of
from sparsebert.serve.door import Address, bears, same_token

COOKIE = "sparsebert_token"
# Many tabs ask for news; the folders are looked at as often as this.
FRESH_S = 1.0
MOST_BODY = 4096
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_LONG = {"Cache-Control": "max-age=3600"}


@dataclass
class Desk:
    """What the routes share: the library, what else the page has, and the page as it was at the last look."""

    library: Library
    annex: Annex = NO_ANNEX
    clock: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _view: ExplorerView | None = None
    _looked: float = 0.0

    def view(self) -> ExplorerView:
        """The page of what is there now, made anew only where something has changed."""
        with self._lock:
            now = self.clock()
            if self._view is None or now - self._looked >= FRESH_S:
                shelf = self.library.look()
                if self._view is None or self._view.shelf.version != shelf.version:
                    self._view = view_of(shelf, live=True, annex=self.annex)
                self._looked = now
            return self._view


def application(desk: Desk, token: str | None) -> ASGIApp:
    """The live page; with a token only for who has it, without for who came to this machine by name."""

    def page(request: Request) -> Response:
        return HTMLResponse(desk.view().html, headers=HEADERS)

    def model(request: Request) -> Response:
        found = desk.view().models.get(request.query_params.get("key", ""))
        if found is None:
            raise HTTPException(404, "there is no such model, or no more")
        return HTMLResponse(model_html(found), headers=HEADERS)

    def state(request: Request) -> Response:
        return JSONResponse({"version": desk.view().shelf.version})

    def static(request: Request) -> Response:
        name = request.path_params["name"]
        try:
            return FileResponse(desk.annex.files.get(name) or asset(name), headers=HEADERS | _LONG)
        except KeyError:
            raise HTTPException(404, "there is no such file") from None

    routes = [Route("/", page), Route("/model", model), Route("/state", state), Route("/assets/{name}", static)]
    routes += desk.annex.routes(lambda: desk.view().models)
    made = Starlette(routes=routes, exception_handlers={HTTPException: _told, Exception: _bug})
    inside = GZipMiddleware(made, compresslevel=5)
    return _OwnHostOnly(inside) if token is None else _TokenDoor(inside, token)


async def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(error.detail, error.status_code, headers=HEADERS)


async def _bug(request: Request, error: Exception) -> Response:
    return PlainTextResponse(f"A bug of the explorer: {type(error).__name__}", 500, headers=HEADERS)


@dataclass(frozen=True)
class _OwnHostOnly:
    """A page elsewhere may have its name lead to this machine, and would read what is here: it asks under that name."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        if Address(_name(request.headers.get("host", "")), 0).is_loopback:
            await self.app(scope, receive, send)
            return
        await PlainTextResponse("This page is for this machine only", 421)(scope, receive, send)


def _name(host: str) -> str:
    """Of a header `Host`, without the port; empty for one that is no host."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


@dataclass(frozen=True)
class _TokenDoor:
    """Lets in who brings the token, in a header or in the cookie that a browser gets for it; asks all others."""

    app: ASGIApp
    token: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if self._may(request):
            await self.app(scope, receive, send)
            return
        refused = request.method == "POST" and request.url.path == "/enter"
        if refused and same_token(await _given(request), self.token):
            answer: Response = RedirectResponse(".", 303)
            answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
        else:
            answer = HTMLResponse(door_html(refused), 401, headers=HEADERS | {"WWW-Authenticate": "Bearer"})
        await answer(scope, receive, send)

    def _may(self, request: Request) -> bool:
        cookie = request.cookies.get(COOKIE, "")
        return bears(request.headers.get("authorization", ""), self.token) or same_token(cookie, self.token)


async def _given(request: Request) -> str:
    """The token that a form sends; nothing where it sends far too much."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BODY:
            return ""
    return parse_qs(body.decode("ascii", "replace")).get("token", [""])[0]

"""The explorer from its start to its end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from sparsebert.errors import UserError
from sparsebert.explorer.annex import Annex
from sparsebert.explorer.app import Desk, application
from sparsebert.explorer.library import Library
from sparsebert.serve.door import KEEP_ALIVE_S, Address, SignalledServer, listening, needed_token


def explore(
    library: Library, annex: Annex, address: Address, token_file: Path | None, ready: Callable[[str], None]
) -> None:
    """Show a library until a signal comes, and what else there is; `ready` is told the address to open.

    Raises UserError where nothing that was given can be shown, and for an address that is in use or needs a token.
    """
    token = needed_token(address, token_file)
    desk = Desk(library, annex)
    with _uncollected():
        shelf = desk.view().shelf
    if not shelf.runs and not shelf.going and not annex.alone:
        raise UserError(shelf.problems[0].rstrip(".") if shelf.problems else "No run was given")
    with listening(address) as door:
        host, port = door.getsockname()[:2]
        ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/")
        config = uvicorn.Config(
            application(desk, token),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=2,
        )
        try:
            asyncio.run(SignalledServer(config).serve([door]))
        finally:
            annex.close()


@contextmanager
def _uncollected() -> Iterator[None]:
    """Inside nothing is looked through for garbage, and what was made is left out of it later: records stay."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()

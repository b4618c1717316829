"""A server from its start to its end: the address, the token, the models, and the signals that let it finish."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import signal
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
import uvloop

from sparsebert.errors import UserError
from sparsebert.serve.app import application
from sparsebert.serve.doorkeeper import Doorkeeper
from sparsebert.serve.journal import Meters, log_as_json, tell
from sparsebert.serve.limits import Limits
from sparsebert.serve.served import Plan, Served

TOKEN = "SPARSEBERT_TOKEN"
KEEP_ALIVE_S = 75
GRACE_S = 5
"""Seconds beyond the time of a request until open connections are cut when the server ends."""


@dataclass(frozen=True)
class Address:
    """Where a server listens; port 0 = any that is free."""

    host: str
    port: int


class _Server(uvicorn.Server):
    """Ends by itself after a signal; uvicorn's own raises it once more when all is done, for its exit code."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


def serve(planned: Sequence[Plan], address: Address, limits: Limits, token_file: Path | None) -> None:
    """Serve until a signal comes; those who wait then are answered first.

    Raises UserError for an address that is in use or needs a token, and for a model that cannot be opened.
    """
    token = _token(token_file)
    if token is None and not _is_loopback(address.host):
        raise UserError(
            "Who listens to other machines needs a token", got=address.host, fix=f"set {TOKEN}, or give --token-file"
        )
    with _listening(address) as door:
        log_as_json()
        uvloop.run(_serve(planned, door, limits, token))


async def _serve(planned: Sequence[Plan], door: socket.socket, limits: Limits, token: str | None) -> None:
    meters = Meters()
    models = [Served(plan, limits, meters) for plan in planned]
    config = uvicorn.Config(
        Doorkeeper(application(models, limits, meters), meters, token),
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="off",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=round(limits.timeout_s + GRACE_S),
    )
    server = _Server(config)
    workers = [asyncio.create_task(model.work(lambda facts: tell("ready", **facts))) for model in models]
    for worker in workers:
        # They never end, unless a model cannot be opened.
        worker.add_done_callback(lambda _: server.handle_exit(signal.SIGTERM, None))
    host, port = door.getsockname()[:2]
    tell("listening", host=host, port=port)
    await server.serve([door])
    failed = [worker for worker in workers if worker.done()]
    for worker, model in zip(workers, models, strict=True):
        worker.cancel()
        model.close()
    for worker in failed:
        worker.result()
    tell("stopped")


def _listening(address: Address) -> socket.socket:
    try:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
        door = socket.create_server((address.host, address.port), family=family, backlog=2048)
    except socket.gaierror as error:
        raise UserError("There is no such host", got=address.host, allowed=error.strerror) from None
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            raise
        what = f"{address.host}:{address.port} cannot be listened at: {os.strerror(error.errno).lower()}"
        raise UserError(what, fix="choose another --port or --host") from None
    # Head and body of an answer are written apart. Without this the body waits 40 ms for the client's word that it has
    # the head; asyncio sets it only for sockets that were made with the number of the protocol.
    door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return door


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _token(file: Path | None) -> str | None:
    """The token of the file, else of the environment; none = none. Raises UserError for one that no header can hold."""
    text = os.environ.get(TOKEN) if file is None else file.read_text(encoding="utf-8")
    if text is None:
        return None
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        where = TOKEN if file is None else file
        raise UserError(f"{where} holds no token", allowed="letters, digits and signs on one line, without spaces")
    return token

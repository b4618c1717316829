"""What every server here has in common: where it listens, who needs a token, and signals that let it finish."""

from __future__ import annotations

import asyncio
import errno
import hmac
import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import uvicorn

from sparsebert.errors import UserError

TOKEN = "SPARSEBERT_TOKEN"
KEEP_ALIVE_S = 75
"""So long a connection may idle before the server closes it, longer than clients wait to use it again."""


@dataclass(frozen=True)
class Address:
    """Where a server listens; port 0 = any that is free."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class SignalledServer(uvicorn.Server):
    """Ends by itself after a signal; uvicorn's own raises it once more when all is done, for its exit code.

    `ending` is called at each signal, before connections are looked at.
    """

    def __init__(self, config: uvicorn.Config, ending: Callable[[], None] = lambda: None) -> None:
        super().__init__(config)
        self._ending = ending

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; a second SIGINT ends at once."""
        self._ending()
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take SIGINT and SIGTERM while the server runs."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


def listening(address: Address) -> socket.socket:
    """A socket that listens. Raises UserError for a host that is none, and for an address that is in use."""
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


def needed_token(address: Address, file: Path | None) -> str | None:
    """The token of the file, else of the environment; none = whoever reaches the address may enter.

    Raises UserError for an address that other machines reach without one, and for one that no header can hold.
    """
    token = _token(file)
    if token is None and not address.is_loopback:
        raise UserError(
            "Who listens to other machines needs a token", got=address.host, fix=f"set {TOKEN}, or give --token-file"
        )
    return token


def same_token(given: str, token: str) -> bool:
    """Whether they are equal, told in a time that says nothing about where they differ."""
    return hmac.compare_digest(given.encode("utf-8"), token.encode("utf-8"))


def bears(authorization: str, token: str) -> bool:
    """Whether the header `Authorization` brings the token."""
    scheme, _, given = authorization.partition(" ")
    return scheme.lower() == "bearer" and same_token(given, token)


def from_elsewhere(origin: str | None, host: str) -> bool:
    """Whether a page of another address asks, by the headers `Origin` and `Host`; programs send no origin."""
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() != host.lower()
    except ValueError:
        return True


def _token(file: Path | None) -> str | None:
    text = os.environ.get(TOKEN) if file is None else file.read_text(encoding="utf-8")
    if text is None:
        return None
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        where = TOKEN if file is None else file
        raise UserError(f"{where} holds no token", allowed="letters, digits and signs on one line, without spaces")
    return token

"""Connections that bring no request: too many, heads that do not come, bodies that stop as the server ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serving import LIMIT_S, Running, exported, serving, wait_for
from sparsebert.serve.arrivals import Arrivals
from sparsebert.serve.limits import RefusedError

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.process
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("serve"), "model")


@pytest.fixture(scope="module")
def running(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """It has room for three connections, one of which is the client's own."""
    limits = ("--threads", 1, "--max-connections", 3, "--timeout", 2)
    with serving(tmp_path_factory.mktemp("server") / "log", model, *limits) as server:
        yield server


def _connected(server: Running) -> socket.socket:
    url = server.client.base_url
    return socket.create_connection((url.host, url.port or 80), timeout=LIMIT_S)


def _to_the_end(connection: socket.socket) -> bytes:
    found = b""
    while part := connection.recv(4096):
        found += part
    return found


def test_one_connection_too_many_is_told_so_and_closed(running: Running):
    with _connected(running) as idle, _connected(running) as inside:
        for connection in (idle, inside):
            connection.sendall(HEAD)
        with _connected(running) as outside:
            outside.sendall(HEAD + b'{"texts": "good"}')
            answer = _to_the_end(outside)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in head
        assert body == b'{"error": "3 connections are open already"}'
        # The client's own connection, and those that were there, are answered as before.
        assert running.metric("sparsebert_connections_closed_total", why="full") == 1
        inside.sendall(b'{"texts": "good"}')
        assert inside.recv(4096).startswith(b"HTTP/1.1 200 ")
    wait_for(lambda: _may_enter(running), running.process)


def _may_enter(server: Running) -> bool:
    answer = httpx.post(f"{server.client.base_url}/predict", json={"texts": "good"}, timeout=LIMIT_S)
    assert answer.status_code in (200, 503)
    return answer.status_code == 200


@pytest.mark.parametrize("sent", [b"", HEAD[:-4]])
def test_a_head_that_does_not_come_is_not_waited_for(running: Running, sent: bytes):
    before = running.metric("sparsebert_connections_closed_total", why="slow")
    with _connected(running) as connection:
        connection.sendall(sent)
        assert _to_the_end(connection) == b""
    assert running.metric("sparsebert_connections_closed_total", why="slow") == before + 1


def test_a_head_without_an_end_is_not_kept(running: Running):
    with _connected(running) as connection:
        connection.sendall(HEAD[:-2] + b"X-Long: ")
        connection.sendall(b"a" * 2**16)
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 431 ") and answer.endswith(b'{"error": "A head has at most 65536 bytes"}')
    assert running.metric("sparsebert_connections_closed_total", why="long") == 1


def test_a_body_whose_reading_begins_after_the_end_has_a_second_too():
    async def read() -> None:
        arrivals = Arrivals()
        arrivals.end()
        async with arrivals.within(LIMIT_S):
            await asyncio.sleep(LIMIT_S)

    began = time.monotonic()
    with pytest.raises(RefusedError, match="The server ends"):
        asyncio.run(read())
    assert time.monotonic() - began < LIMIT_S / 2


def test_a_body_that_stops_does_not_hold_up_the_end(model: Path, tmp_path: Path):
    with serving(tmp_path / "server", model, "--threads", 1, "--timeout", 60) as server:
        with _connected(server) as slow, _connected(server) as late:
            for connection in (slow, late):
                connection.sendall(HEAD + b'{"texts"')
            wait_for(lambda: server.client.get("/health").status_code == 200, server.process)
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            late.sendall(b': "good"}')
            assert late.recv(4096).startswith(b"HTTP/1.1 200 ")
            answer = _to_the_end(slow)
            assert answer.startswith(b"HTTP/1.1 503 ") and answer.endswith(b'{"error":"The server ends"}')
        assert server.process.wait(LIMIT_S) == 0
        # A second is left to bodies; without that they would have the 60 of a request.
        assert time.monotonic() - began < 30

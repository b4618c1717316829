"""A server of models from its start to its end."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import uvicorn
import uvloop

from sparsebert.deployment.predictor import check_model
from sparsebert.serve.app import application
from sparsebert.serve.arrivals import Arrivals
from sparsebert.serve.connection import connections
from sparsebert.serve.door import KEEP_ALIVE_S, Address, SignalledServer, listening, needed_token
from sparsebert.serve.doorkeeper import Doorkeeper
from sparsebert.serve.journal import Meters, log_as_json, tell
from sparsebert.serve.limits import Limits
from sparsebert.serve.served import Plan, Served

GRACE_S = 5
"""Seconds beyond the time of a request until open connections are cut when the server ends."""


def serve(planned: Sequence[Plan], address: Address, limits: Limits, token_file: Path | None) -> None:
    """Serve until a signal comes; those who wait then are answered first.

    Raises UserError for an address that is in use or needs a token, and for a model that cannot be opened; nobody is
    let in before it is known that all of them answer texts.
    """
    token = needed_token(address, token_file)
    for plan in planned:
        check_model(plan.model, plan.runtime, plan.max_length)
    with listening(address) as door:
        log_as_json()
        uvloop.run(_serve(planned, door, limits, token))


async def _serve(planned: Sequence[Plan], door: socket.socket, limits: Limits, token: str | None) -> None:
    meters = Meters()
    models = [Served(plan, limits, meters) for plan in planned]
    arrivals = Arrivals()
    config = uvicorn.Config(
        Doorkeeper(application(models, limits, meters, arrivals), meters, token),
        http=connections(limits, meters.closed),
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="off",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=round(limits.timeout_s + GRACE_S),
    )
    server = SignalledServer(config, arrivals.end)
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

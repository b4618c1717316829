"""The routes of a server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from sparsebert.deployment.predictor import first_of
from sparsebert.errors import UserError
from sparsebert.serve.arrivals import Arrivals
from sparsebert.serve.batcher import Rankings
from sparsebert.serve.journal import Meters
from sparsebert.serve.limits import AT_ONCE_S, Limits, RefusedError, client_gone
from sparsebert.serve.page import page_of
from sparsebert.serve.question import Asked, Question, read_question
from sparsebert.serve.served import LOADING_S, Served
from sparsebert.version import __version__

PARTS = "#/components/schemas/"
# The body is read by hand, within its limits, so that the page has to be told of it.
BODY = {"content": {"application/json": {"schema": {"$ref": f"{PARTS}{Question.__name__}"}}}, "required": True}


class Reply(BaseModel):
    """What a model makes of the texts."""

    model: str
    predictions: list[Any] = Field(
        description="for each text {label, score}, or a list of them where top_k is not 1; of multilabel also {given}"
    )
    cut: list[int] = Field(description="numbers from 1 of the texts that were longer than the model reads")


class Problem(BaseModel):
    """Why there is no answer."""

    error: str


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 404, 408, 413, 422, 503)
}


def application(models: Sequence[Served], limits: Limits, meters: Meters, arrivals: Arrivals) -> FastAPI:
    """The application for some models, the first of them the default."""
    app = FastAPI(title="sparsebert", version=__version__, docs_url=None, redoc_url=None)
    _add_errors(app)
    _add_predict(app, {one.plan.name: one for one in models}, limits, arrivals)
    _add_watching(app, models, meters)
    _, parts = models_json_schema([(Question, "validation")], ref_template=f"{PARTS}{{model}}")
    app.openapi()["components"]["schemas"] |= parts["$defs"]
    return app


def _add_predict(app: FastAPI, models: dict[str, Served], limits: Limits, arrivals: Arrivals) -> None:
    extra = {"requestBody": BODY}
    default = next(iter(models))

    @app.post("/predict", responses={200: {"model": Reply}, **REFUSALS}, openapi_extra=extra)
    async def predict(request: Request) -> Response:
        """Ask the default model."""
        return await _predict(models[default], request, limits, arrivals)

    @app.post("/predict/{model}", responses={200: {"model": Reply}, **REFUSALS}, openapi_extra=extra)
    async def predict_by(model: str, request: Request) -> Response:
        """Ask a model by its name."""
        if model not in models:
            raise RefusedError(404, f"No such model; allowed: {', '.join(models)}")
        return await _predict(models[model], request, limits, arrivals)


def _add_watching(app: FastAPI, models: Sequence[Served], meters: Meters) -> None:
    @app.get("/models")
    async def list_models() -> list[dict[str, Any]]:
        """Name the models, the default one first."""
        return [one.facts() for one in models]

    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> dict[str, str]:
        """Say that the process lives."""
        return {"status": "alive"}

    @app.get("/ready", responses={503: {"model": Problem}})
    async def ready() -> dict[str, str]:
        """Say whether every model is loaded and warm."""
        loading = [one.plan.name for one in models if not one.ready]
        if loading:
            raise RefusedError(503, f"Models are being loaded: {', '.join(loading)}", LOADING_S)
        return {"status": "ready"}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Give numbers for Prometheus."""
        return Response(meters.page(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs() -> Response:
        return page_of(app.openapi())


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        return JSONResponse({"error": error.why}, error.status, error.headers)

    @app.exception_handler(UserError)
    async def unreadable(request: Request, error: UserError) -> Response:
        return JSONResponse({"error": str(error)}, 422)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": f"A bug of the server: {type(error).__name__}; the log has its place"}, 500)

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _predict(model: Served, request: Request, limits: Limits, arrivals: Arrivals) -> Response:
    seen = request.state.seen
    seen.model = model.plan.name
    end = request.state.start + limits.timeout_s
    async with arrivals.within(end - time.perf_counter()):
        body = await _body(request, limits)
    asked = read_question(body, limits)
    seen.texts = len(asked.first)
    found = await _rankings(model, asked, request, end)
    predictions = [first_of(ranking, asked.top_k) for ranking, _ in found]
    cut = [number for number, (_, was_cut) in enumerate(found, start=1) if was_cut]
    return JSONResponse({"model": model.plan.name, "predictions": predictions, "cut": cut})


async def _body(request: Request, limits: Limits) -> bytes:
    """The body. One that is too long is read to its end, so that its client hears of it, but not kept."""
    body = bytearray()
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size <= limits.body_bytes:
                body += chunk
    except ClientDisconnect:
        raise client_gone() from None
    if size > limits.body_bytes:
        raise RefusedError(413, f"The body has {size} bytes; allowed are {limits.body_bytes}")
    return bytes(body)


async def _rankings(model: Served, asked: Asked, request: Request, end: float) -> Rankings:
    """The answers, unless the client leaves or the time is up before."""
    waiting = model.batcher.put(asked)
    # After the body nothing comes of a client but the news that it has gone.
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait(
            [waiting.answer, gone], timeout=end - time.perf_counter(), return_when=asyncio.FIRST_COMPLETED
        )
        if waiting.answer.done():
            return waiting.answer.result()
        if gone.done():
            raise client_gone()
        raise RefusedError(503, "The answer was not ready in time", AT_ONCE_S)
    finally:
        gone.cancel()
        model.batcher.withdraw(waiting)

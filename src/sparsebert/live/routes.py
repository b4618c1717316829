"""What the page asks: a piece of work is put in a line, and looked at until it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sparsebert.errors import UserError
from sparsebert.explorer.annex import Shown
from sparsebert.explorer.app import HEADERS
from sparsebert.live.agreement import agreement
from sparsebert.live.answers import answer
from sparsebert.live.bench import Bench, Errand
from sparsebert.live.catalogue import AskedModel, catalogue, offered
from sparsebert.live.inside import Microscope
from sparsebert.live.neighbours import Neighbourhood
from sparsebert.live.parts import AskedEffect, Switchboard, parts_of
from sparsebert.live.pool import BATCHES, Pool, Side, sides_of
from sparsebert.live.race import MEMORY_MB, TEXTS, race
from sparsebert.live.texts import TextQueue, built_in, of_file, repeated, typed
from sparsebert.serve.door import from_elsewhere
from sparsebert.serve.limits import RefusedError
from sparsebert.tasks.table import task_names, task_spec

MOST_BODY = 8 * 2**20
Body = Mapping[str, Any]
PlannedWork = tuple[str, Callable[[Errand], None]]


@dataclass(frozen=True)
class Room:
    """The models that were given, the line of work, and what is open for it."""

    given: tuple[str, ...]
    bench: Bench
    pool: Pool = field(default_factory=Pool)
    microscope: Microscope = field(default_factory=Microscope)
    neighbourhood: Neighbourhood = field(default_factory=Neighbourhood)
    switchboard: Switchboard = field(default_factory=Switchboard)

    def work(self, asked: Body, models: Mapping[str, AskedModel]) -> PlannedWork:
        """What is asked for, checked. Raises UserError for what cannot be done, and RefusedError for what is none."""
        kinds = {
            "answers": self._answers,
            "inside": self._inside,
            "neighbours": self._neighbours,
            "file": self._file,
            "race": self._race,
            "parts": self._parts,
        }
        kind = asked.get("what")
        if not isinstance(kind, str) or kind not in kinds:
            raise RefusedError(422, f"what: allowed are {', '.join(kinds)}")
        return kinds[kind](asked, sides_of(asked, models))

    def _answers(self, asked: Body, sides: tuple[Side, Side]) -> PlannedWork:
        return "an answer", partial(answer, pool=self.pool, sides=sides, **_texts(asked))

    def _inside(self, asked: Body, sides: tuple[Side, Side]) -> PlannedWork:
        return "a look into models", partial(self.microscope.look, sides=sides, **_texts(asked))

    def _neighbours(self, asked: Body, sides: tuple[Side, Side]) -> PlannedWork:
        text, queue = typed(asked.get("text")), _queue(asked) or built_in()
        return "nearest texts", partial(self.neighbourhood.look, pool=self.pool, sides=sides, text=text, queue=queue)

    def _file(self, asked: Body, sides: tuple[Side, Side]) -> PlannedWork:
        queue = _queue(asked)
        if queue is None:
            raise UserError("No file was chosen", fix="choose one, or drop it on the page")
        return "a file of texts", partial(agreement, pool=self.pool, sides=sides, queue=queue)

    def _race(self, asked: Body, sides: tuple[Side, Side]) -> PlannedWork:
        allowed = {"texts": TEXTS, "batch": BATCHES, "memory": MEMORY_MB}
        count, batch, memory = (_one_of(asked, name, values) for name, values in allowed.items())
        queue = repeated(_queue(asked) or built_in(), count)
        return "a race", partial(race, sides=sides, queue=queue, batch=batch, limit_mb=memory)

    def _parts(self, asked: Body, sides: tuple[Side, Side]) -> PlannedWork:
        place = _one_of(asked, "side", (0, 1))
        effect = AskedEffect(sides[place], asked.get("off"), _queue(asked), bool(_label(asked)))
        return "a model with parts switched off", partial(self.switchboard.measure, asked=effect)


def routes_of(room: Room, shown: Callable[[], Shown]) -> Sequence[Route]:
    """The routes; `shown` gives the models that the page has."""

    def models() -> dict[str, AskedModel]:
        return catalogue(room.given, shown().values())

    def one(request: Request) -> Response:
        """What a model may be run in, and texts that it decides otherwise than the dense one."""
        model = models().get(request.query_params.get("key", ""))
        if model is None:
            return _told({"problem": "There is no such model, or no more"}, 404)
        try:
            runtimes = [{"name": found.name, "obstacle": found.obstacle} for found in offered(model)]
        except UserError as error:
            return _told({"problem": str(error), "runtimes": [], "examples": examples(model)})
        return _told({"runtimes": runtimes, "examples": examples(model)})

    def parts(request: Request) -> Response:
        """What of a model can be switched off."""
        model = models().get(request.query_params.get("key", ""))
        if model is None:
            return _told({"problem": "There is no such model, or no more"}, 404)
        try:
            return _told({"layers": [layer.told() for layer in parts_of(model)]})
        except UserError as error:
            return _told({"problem": str(error)})

    async def begin(request: Request) -> Response:
        try:
            asked = await _posted(request)
            # Off the loop: a file is read, and records may be.
            work = await run_in_threadpool(lambda: room.work(asked, models()))
            return _told({"number": room.bench.put(*work)}, 202)
        except UserError as error:
            # An answer as any other: browsers write others on their consoles.
            return _told({"problem": str(error)})
        except RefusedError as error:
            return _told({"problem": error.why}, error.status)

    async def look(request: Request) -> Response:
        try:
            return _told(room.bench.look(request.query_params.get("number", "")))
        except RefusedError as error:
            return _told({"problem": error.why}, error.status)

    async def stop(request: Request) -> Response:
        try:
            room.bench.stop(str((await _posted(request)).get("number")))
            return _told({})
        except RefusedError as error:
            return _told({"problem": error.why}, error.status)

    return [
        Route("/live/model", one),
        Route("/live/parts", parts),
        Route("/live/work", look, methods=["GET"]),
        Route("/live/work", begin, methods=["POST"]),
        Route("/live/stop", stop, methods=["POST"]),
    ]


def examples(model: AskedModel) -> list[dict[str, str]]:
    """Validation texts that the model's record names; sides of a pair apart where they can be told."""
    pairs = model.task in task_names() and len(task_spec(model.task).columns) == 2
    found = []
    for flip in model.flips:
        sides = flip.text.split(" / ")
        text, pair = sides if pairs and len(sides) == 2 else (flip.text, "")
        found.append({"text": text, "pair": pair, "label": flip.label, "dense": flip.dense, "own": flip.own})
    return found


async def _posted(request: Request) -> Body:
    """The body, read to its end even where it is too long, so that the browser hears of it."""
    if from_elsewhere(request.headers.get("origin"), request.headers.get("host", "")):
        raise RefusedError(403, "Another page asks")
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MOST_BODY:
            body += chunk
    if size > MOST_BODY:
        raise RefusedError(413, f"That is too much: {size:,} bytes; allowed are {MOST_BODY:,}")
    try:
        content = from_json(bytes(body))
    except ValueError:
        raise RefusedError(400, "The body is not JSON in UTF-8") from None
    if not isinstance(content, dict):
        raise RefusedError(422, "The body has to be an object")
    return content


def _texts(asked: Body) -> dict[str, Any]:
    pair = asked.get("pair")
    return {"text": typed(asked.get("text")), "pair": typed(pair, "The second text") if pair else None}


def _queue(asked: Body) -> TextQueue | None:
    """The texts of the file that was sent, if one was."""
    given = asked.get("file")
    if not isinstance(given, dict):
        return None
    columns = given.get("columns")
    names = [one.strip() for one in columns.split(",") if one.strip()] if isinstance(columns, str) else []
    return of_file(str(given.get("name"))[:100], given.get("content"), names, _label(asked))


def _label(asked: Body) -> str:
    """The column of labels that was named, if one was."""
    label = asked.get("label")
    return label.strip() if isinstance(label, str) else ""


def _one_of(asked: Body, name: str, allowed: Sequence[int]) -> int:
    value = asked.get(name)
    if value not in allowed or not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"That is no number of {name}", got=value, allowed=", ".join(map(str, allowed)))
    return value


def _told(content: Any, status: int = 200) -> Response:
    return JSONResponse(content, status, headers=HEADERS | {"Cache-Control": "no-store"})

"""The live part of the explorer's page: its HTML, its data and its files, and the routes behind them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sparsebert.explorer.annex import Annex, AnnexPart, Shown
from sparsebert.live.bench import Bench
from sparsebert.live.catalogue import catalogue, medians
from sparsebert.live.pool import BATCHES, cores
from sparsebert.live.race import MEMORY_MB, TEXTS
from sparsebert.live.routes import Room, routes_of
from sparsebert.live.scored import MOST_ROWS, SEED
from sparsebert.live.texts import FILE_LETTERS, FILE_TEXTS, LETTERS

_HERE = Path(str(files("sparsebert.live")))
FILES = ("live.css", "parts.css", "ask.js", "file.js", "parts.js", "race.js", "inside.js", "live.js")


def live_annex(given: Sequence[str]) -> Annex:
    """What asks the models that were `given`, and those of the runs that are shown."""
    room = Room(tuple(given), Bench())

    def part(shown: Shown) -> AnnexPart:
        found = catalogue(given, shown.values())
        models = [{"key": one.key, "name": one.name, "task": one.task, "dense": one.dense} for one in found.values()]
        limits = {"letters": LETTERS, "file": FILE_LETTERS, "texts": FILE_TEXTS}
        data = {"models": models, "medians": medians(found, shown.values()), "cores": cores(), "limits": limits}
        choices = {
            "cores": cores(),
            "batches": BATCHES,
            "queues": TEXTS,
            "memories": MEMORY_MB,
            "limit": FILE_TEXTS,
            "rows": MOST_ROWS,
            "seed": SEED,
        }
        return AnnexPart(Markup(_template().render(any=bool(found), **choices)), data)

    return Annex(
        part=part,
        files={name: _HERE / "static" / name for name in FILES},
        routes=lambda shown: routes_of(room, shown),
        alone=bool(given),
        close=room.bench.close,
    )


@cache
def _template() -> Any:
    loader = FileSystemLoader(_HERE / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("live.html")

"""The page and its parts as HTML: every text of a record is escaped, in the markup and in the data for the script."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sparsebert.errors import UserError
from sparsebert.explorer.annex import NO_ANNEX, Annex
from sparsebert.explorer.charts import model_charts
from sparsebert.explorer.commands import making
from sparsebert.explorer.facts import model_facts
from sparsebert.explorer.library import FoundRun, Shelf
from sparsebert.explorer.models import ShownModel, shown_models
from sparsebert.explorer.points import points
from sparsebert.explorer.studies import shown_studies
from sparsebert.reports.render import as_html
from sparsebert.reports.tables import Table
from sparsebert.reports.theme import DARK, LIGHT
from sparsebert.version import __version__

SCRIPTS = ("state.js", "scatter.js", "whatif.js", "pictures.js", "page.js")
STYLES = ("page.css", "explorer.css")
PLOTLY = "plotly.min.js"
# What the page may load: its own files, and the pictures that are saved from it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'"
)
_HERE = Path(str(files("sparsebert.explorer")))


@dataclass(frozen=True)
class ExplorerView:
    """What the page is about at one moment: the shelf, its models by their keys, and the page's HTML."""

    shelf: Shelf
    models: dict[str, ShownModel]
    html: str


def view_of(shelf: Shelf, live: bool, annex: Annex = NO_ANNEX) -> ExplorerView:
    """The page of what was found, and below it the `annex`.

    A `live` one asks for single models and for news; else both lie beside it.
    Problems with what was given are told on a live page only: others need not know about files on this machine.
    """
    models = shown_models(shelf.runs)
    by_key = {model.key: model for model in models}
    part = annex.part(by_key)
    data = {
        "live": live,
        "version": shelf.version,
        "points": points(models),
        "commands": _commands(shelf.runs),
        "themes": {"light": asdict(LIGHT), "dark": asdict(DARK)},
        "annex": part.data,
    }
    html = _template("page.html").render(
        live=live,
        policy=POLICY,
        styles=(*STYLES, *annex.names(".css")),
        scripts=(PLOTLY, *(() if live else ("models.js",)), *SCRIPTS, *annex.names(".js")),
        data=in_script(data),
        headline=_headline(shelf, models),
        shelf=shelf,
        annex=part.section,
        without_runs=annex.alone and not models,
        failed=[run for run in shelf.runs if run.record.status == "failed"],
        version=__version__,
    )
    return ExplorerView(shelf, by_key, html)


def model_html(model: ShownModel) -> str:
    """What stands below the trade-off for one model."""
    drawn = model_charts(model)
    return _template("model.html").render(
        model=model,
        facts=model_facts(model),
        charts=drawn.charts,
        problems=drawn.problems,
        studies=list(shown_studies(model)),
        table=_table_html,
        in_script=in_script,
    )


def door_html(refused: bool) -> str:
    """The page that asks for the token."""
    return _template("door.html").render(policy=POLICY, refused=refused)


def asset(name: str) -> Path:
    """A file of the page by its name. Raises KeyError for any other."""
    return _assets()[name]


def asset_names() -> Sequence[str]:
    """All files that the page loads."""
    return tuple(_assets())


def in_script(value: Any) -> Markup:
    """JSON for the inside of a `<script type="application/json">`, which nothing in it can end."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


@cache
def _assets() -> dict[str, Path]:
    own = {name: _HERE / "static" / name for name in (*SCRIPTS, "explorer.css")}
    return own | {"page.css": Path(str(files("sparsebert.reports"))) / "page.css", PLOTLY: _plotly()}


def _plotly() -> Path:
    """The script that comes with the package plotly; finding it imports nothing."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise UserError("The charts need plotly", fix="pip install 'sparsebert[explorer]'")
    return Path(spec.origin).parent / "package_data" / PLOTLY


@cache
def _environment() -> Environment:
    loader = FileSystemLoader(_HERE / "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _template(name: str) -> Any:
    return _environment().get_template(name)


def _table_html(table: Table) -> Markup:
    return Markup(as_html(table, "inline"))


def _headline(shelf: Shelf, models: Sequence[ShownModel]) -> str:
    finished = [run for run in shelf.runs if run.record.models]
    count = sum(len(model.family.records) == 1 for model in models)
    tasks = ", ".join(dict.fromkeys(run.record.task for run in finished))
    return f"{count:,} model{'s' * (count != 1)} of {len(finished):,} run{'s' * (len(finished) != 1)}, {tasks}"


def _commands(runs: Sequence[FoundRun]) -> dict[str, dict[str, Any]]:
    """By the name of a run what makes another model from what it was made of."""
    return {run.name: asdict(making(run.record)) for run in runs if run.record.models}

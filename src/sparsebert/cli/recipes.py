"""`sparsebert recipes`: the recipes that come with the package, as a list or one as it is."""

from __future__ import annotations

import re
import sys
from itertools import takewhile
from typing import Annotated

import typer

from sparsebert.cli.errors import cli_errors
from sparsebert.cli.options import DebugOption, JsonOption, shipped
from sparsebert.errors import unknown


def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe.", autocompletion=shipped)] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the recipes that come with the package, or print one."""
    with cli_errors(debug):
        from sparsebert.cli.output import put_json

        names = shipped()
        if name is not None and name not in names:
            raise unknown("recipe", name, names)
        if as_json:
            put_json([_row(one) for one in ([name] if name else names)])
        elif name is not None:
            sys.stdout.write(_text(name))
        else:
            _print([_row(one) for one in names])


def _row(name: str) -> dict[str, str]:
    from sparsebert.recipe.load import load_recipe

    return {"name": name, "command": load_recipe(name).kind, "description": _first_sentence(_text(name))}


def _first_sentence(text: str) -> str:
    """Of the comment on top."""
    comment = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return re.split(r"(?<=\.) (?=[A-Z])", " ".join(line.lstrip("# ") for line in comment), maxsplit=1)[0]


def _text(name: str) -> str:
    from sparsebert.recipe.load import SHIPPED

    return (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")


def _print(rows: list[dict[str, str]]) -> None:
    from rich.markup import escape

    from sparsebert.cli.output import show, table

    drawn = table("Recipe", "Command", "What it does")
    for row in rows:
        drawn.add_row(row["name"], row["command"], escape(row["description"]))
    show(drawn)

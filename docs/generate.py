"""Write the reference pages from the code: docs/cli.md, docs/cli/<command>.md and docs/recipes.md: `make docs`.

Commands come from the command line's own help, recipes from their pydantic fields and the registered components.

A test compares the files with what this would write, so they cannot fall behind.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import typer.main
from recipe_page import cell, recipe_page

from sparsebert.cli.application import app
from sparsebert.files import write_text_atomically

DOCS = Path(__file__).parent
NOTE = "<!-- Written by `make docs`; change the help in src/sparsebert/cli instead. -->"


def pages() -> dict[Path, str]:
    """All generated pages by path, relative to this folder."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    written = {Path("cli") / f"{name}.md": command_page(name, command) for name, command in commands.items()}
    first = {name: command.help.split("\n\n")[0] for name, command in commands.items()}
    rows = [f"| [`{name}`](cli/{name}.md) | {said} |" for name, said in first.items()]
    index = [NOTE, "", "# The command line", "", "| command | what it does |", "|---|---|", *rows, ""]
    return {Path("cli.md"): "\n".join(index), Path("recipes.md"): recipe_page()} | written


def command_page(name: str, command: Any) -> str:
    """One command: usage, arguments, and its options in the panels of its help."""
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option"]
    usage = " ".join(["sparsebert", name, *(_argument(param) for param in arguments), "[OPTIONS]"])
    lines = [NOTE, "", f"# sparsebert {name}", "", command.help, "", "```text", usage, "```", ""]
    if arguments:
        lines += _table("Arguments", "argument", ((_argument(param), _said(param)) for param in arguments))
    # Panels come in the order of their first option, as in the help.
    places = {param.rich_help_panel: place for place, param in reversed(list(enumerate(options)))}
    options.sort(key=lambda param: places[param.rich_help_panel])
    for panel, params in groupby(options, key=lambda param: param.rich_help_panel):
        lines += _table(panel or "Options", "option", ((_option(param), _said(param)) for param in params))
    return "\n".join(lines)


def _argument(param: Any) -> str:
    shown = param.metavar or param.name.upper() + ("..." if param.nargs == -1 else "")
    return shown if param.required else f"[{shown}]"


def _option(param: Any) -> str:
    value = "" if param.is_flag else f" {param.metavar or 'VALUE'}"
    return f"{', '.join(param.opts)}{value}"


def _said(param: Any) -> str:
    """The help, and the default where the help of the command line shows it too."""
    if isinstance(param.show_default, str):
        return f"{param.help} Default: {param.show_default}."
    is_switch = param.param_type_name == "option" and param.is_flag
    return (
        param.help if is_switch or param.required or param.default is None else f"{param.help} Default {param.default}."
    )


def _table(title: str, first: str, rows: Iterable[tuple[str, str | None]]) -> list[str]:
    body = [f"| `{cell(name)}` | {cell(text or '')} |" for name, text in rows]
    return [f"## {title}", "", f"| {first} | |", "|---|---|", *body, ""]


def main() -> None:
    """Write the pages, and remove those of commands that are gone."""
    wanted = pages()
    for old in (DOCS / "cli").glob("*.md"):
        if old.relative_to(DOCS) not in wanted:
            old.unlink()
    for path, text in wanted.items():
        write_text_atomically(DOCS / path, text)


if __name__ == "__main__":
    main()

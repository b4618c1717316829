"""The application: its commands, in the order of the help, and what it says about itself."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from sparsebert.cli.usage import App, OneLineErrors
from sparsebert.version import __version__

# Each is the function of that name in the file of that name, in both with _ for -.
COMMANDS = (
    "compress",
    "train",
    "fff",
    "finetune",
    "glue",
    "prune-curve",
    "multitask",
    "pretrain",
    "split",
    "pack",
    "export",
    "push",
    "pull",
    "sweep",
    "search",
    "bench",
    "check",
    "compare",
    "study",
    "doctor",
    "report",
    "explore",
    "predict",
    "serve",
    "info",
    "tasks",
    "models",
    "recipes",
)

app = App(
    cls=OneLineErrors,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Make a BERT-family encoder smaller and faster, and see what it costs.\n\n"
    "Start with: [bold]sparsebert compress --speedup 2[/bold]",
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _of_all_commands(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


for _name in COMMANDS:
    _function = _name.replace("-", "_")
    app.command()(getattr(import_module(f"sparsebert.cli.{_function}"), _function))

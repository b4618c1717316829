"""The application, and the options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sparsebert.cli.usage import App, OneLineErrors
from sparsebert.version import __version__

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


GOALS, DATA, HOW = "Goal (one kind or several; each target starts from the last)", "Data", "How"
SPEED, COMMON = "Setting that speed is about", "Common to all commands"


def shipped() -> list[str]:
    """Names of the recipes that come with the package, for shells that complete words."""
    from sparsebert.recipe.load import shipped_recipes

    return shipped_recipes()


def milliseconds(text: str) -> float:
    """A number of milliseconds, with or without `ms`."""
    return _number(text, "ms")


def times(text: str) -> float:
    """A ratio, with or without `x`."""
    return _number(text, "x")


def _number(text: str, unit: str) -> float:
    try:
        return float(text.strip().lower().removesuffix(unit))
    except ValueError:
        raise typer.BadParameter(f"'{text}' is not a number (with or without '{unit}')") from None


Recipe = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="Recipe in YAML, or a name of `sparsebert recipes`.",
        autocompletion=shipped,
        rich_help_panel=COMMON,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any value of the recipe; wins over all else.", rich_help_panel=COMMON
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Default 0.", rich_help_panel=COMMON)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.", rich_help_panel=COMMON)]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error, and warnings.", rich_help_panel=COMMON)
]
OutputFolder = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="Default runs/MODEL-TASK-RECIPE_HASH.", rich_help_panel=COMMON),
]
Restart = Annotated[
    bool,
    typer.Option(
        "--restart", help="Remove what an earlier run left in the output folder first.", rich_help_panel=COMMON
    ),
]
OutputFile = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Also write the result here.", rich_help_panel=COMMON),
]
Task = Annotated[
    str | None,
    typer.Option(help="A name of `sparsebert tasks`, or any other name with --data.", rich_help_panel=DATA),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Your own file (.csv, .tsv, .jsonl, .parquet) or folder with train.* and validation.*; "
        "for a GLUE task a folder DIR/TASK/*.parquet, else the hub.",
        rich_help_panel=DATA,
    ),
]
TextColumn = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Text column of your file; twice for pairs of texts.", rich_help_panel=DATA),
]
LabelColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="Label column of your file.", rich_help_panel=DATA)
]
Regression = Annotated[
    bool, typer.Option("--regression", help="The labels are numbers to predict.", rich_help_panel=DATA)
]
Delimiter = Annotated[
    str | None,
    typer.Option(metavar="CHAR", help="Between the values of your CSV file. Default: found out.", rich_help_panel=DATA),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Of your file, such as cp1252. Default: by its mark, or UTF-8.", rich_help_panel=DATA
    ),
]
TrainExamples = Annotated[int | None, typer.Option(metavar="N", help="Use only N training rows.", rich_help_panel=DATA)]
Threads = Annotated[int | None, typer.Option(help="Default: what torch takes.", rich_help_panel=SPEED)]


def of_task(
    task: str | None,
    data: str | None,
    text: list[str] | None,
    label: str | None,
    regression: bool,
    delimiter: str | None,
    encoding: str | None,
) -> dict[str, Any]:
    """The recipe's keys for the options that say which task it is and where its texts and labels are."""
    return {
        "task": task,
        "data": data,
        "columns.text": text or None,
        "columns.label": label,
        "columns.kind": "regression" if regression else None,
        "columns.delimiter": delimiter,
        "columns.encoding": encoding,
    }

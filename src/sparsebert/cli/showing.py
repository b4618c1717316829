"""Commands that measure, compare and show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsebert import registry
from sparsebert.cli.errors import cli_errors
from sparsebert.cli.options import (
    COMMON,
    DATA,
    HOW,
    SPEED,
    Data,
    Debug,
    Delimiter,
    Encoding,
    Json,
    OutputFile,
    Recipe,
    Seed,
    Set,
    TextColumn,
    Threads,
    app,
    shipped,
)

_RUNTIMES = ", ".join(registry.names("runtime"))


@app.command()
def bench(
    models: Annotated[list[str], typer.Argument(help="Models or run folders; the first model is the baseline.")],
    batch: Annotated[
        list[int] | None,
        typer.Option(help="Repeatable: every batch with every length. Default 1.", rich_help_panel=SPEED),
    ] = None,
    length: Annotated[
        list[int] | None, typer.Option(metavar="TOKENS", help="Repeatable. Default 128.", rich_help_panel=SPEED)
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Measure at the median length of this task's validation texts.", rich_help_panel=SPEED),
    ] = None,
    data: Data = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"{_RUNTIMES}, or all; repeatable. Default eager.",
            rich_help_panel=HOW,
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Interleaved rounds after warm-up. Default 15.", rich_help_panel=HOW)
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="Also peak memory, in a process of its own.", rich_help_panel=HOW)
    ] = False,
    threads: Threads = None,
    recipe: Recipe = None,
    settings: Set = None,
    output: OutputFile = None,
    seed: Seed = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare the speed and the outputs of models, in interleaved rounds."""
    options = {"task": task, "data": data, "measure.rounds": rounds, "measure.threads": threads, "seed": seed}
    with cli_errors(debug):
        from sparsebert.commands import bench as command
        from sparsebert.commands.settings import recipe_of

        made = recipe_of(recipe, options, settings or [])
        named = any(setting.startswith(("task=", "data=")) for setting in settings or [])
        natural = named or any(given is not None for given in (task, data, recipe))
        command.bench(models, made, batch or [], length or [], runtime or [], natural, memory, output, as_json)


@app.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders of runs as sweeps make them.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Compare this model of every run, for example dense. Default: the last of each; of a single run all.",
            rich_help_panel=HOW,
        ),
    ] = None,
    resamples: Annotated[
        int, typer.Option(min=100, max=1_000_000, help="Draws of the bootstrap.", rich_help_panel=HOW)
    ] = 2000,
    seed: Seed = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say which runs differ from the first one by more than chance, or which models of one run from its first."""
    with cli_errors(debug):
        from sparsebert.commands import compare as command

        command.compare(runs, model, resamples, seed or 0, as_json)


@app.command()
def doctor(
    model: Annotated[
        str, typer.Argument(help="Folder or hub name.", show_default="sentence-transformers/all-MiniLM-L6-v2")
    ] = "sentence-transformers/all-MiniLM-L6-v2",
    batch: Annotated[int, typer.Option(min=1, help="Texts at a time.", rich_help_panel=SPEED)] = 1,
    length: Annotated[int, typer.Option(min=1, metavar="TOKENS", help="Of a text.", rich_help_panel=SPEED)] = 128,
    rounds: Annotated[int, typer.Option(min=3, help="Interleaved rounds.", rich_help_panel=HOW)] = 15,
    threads: Threads = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say whether sparsity would help: what this machine can do with it, measured."""
    with cli_errors(debug):
        from sparsebert.commands import doctor as command

        command.doctor(model, batch, length, rounds, threads, as_json)


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="Run folders, folders of runs as sweeps make them, or record.json files."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Default: report.html in the run's folder, or here for several; its figures go to plots/ beside it, "
            "those of PAGE.html to PAGE-plots/.",
            rich_help_panel=COMMON,
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write one HTML page, and its figures as PNG, about one or several runs."""
    with cli_errors(debug):
        from sparsebert.commands import report as command

        command.report(runs, output, as_json)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="Folder or hub name of a fine-tuned model.")],
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="Texts; - reads lines.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", help="A text a line, or .csv, .tsv, .jsonl, .parquet with --text-column.", rich_help_panel=DATA
        ),
    ] = None,
    text_column: TextColumn = None,
    id_column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Names the rows. Default: numbers from 1.", rich_help_panel=DATA),
    ] = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            metavar="TOKENS",
            help="Cut longer texts. Default: what the model was trained at, if that was saved.",
            rich_help_panel=DATA,
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Texts at a time.", rich_help_panel=HOW)] = 32,
    runtime: Annotated[
        str,
        typer.Option(metavar="NAME", help=f"{_RUNTIMES}.", rich_help_panel=HOW),
    ] = "eager",
    threads: Threads = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the rows here, not to the screen: .csv, .jsonl, or .json for all in one.",
            rich_help_panel=COMMON,
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what a model makes of texts: label and probabilities, or a number for regression."""
    with cli_errors(debug):
        from sparsebert.commands import predict as command
        from sparsebert.data.text import Written

        how = command.How(max_length, batch, runtime, threads)
        written = Written(delimiter, encoding)
        command.predict(model, texts or [], file, text_column or [], id_column, written, how, output, as_json)


@app.command()
def info(
    folder: Annotated[str, typer.Argument(help="A model's folder or hub name, or a run folder.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what is in a folder: shapes, sparsities, and where the parameters are."""
    with cli_errors(debug):
        from sparsebert.commands import info as command

        command.info(folder, as_json)


@app.command()
def tasks(as_json: Json = False, debug: Debug = False) -> None:
    """List the tasks that need no file of yours."""
    with cli_errors(debug):
        from sparsebert.commands import listings

        listings.tasks(as_json)


@app.command()
def models(as_json: Json = False, debug: Debug = False) -> None:
    """List the supported model families."""
    with cli_errors(debug):
        from sparsebert.commands import listings

        listings.models(as_json)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe.", autocompletion=shipped)] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the recipes that come with the package, or print one."""
    with cli_errors(debug):
        from sparsebert.commands import listings

        listings.recipes(name, as_json)

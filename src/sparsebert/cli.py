"""The command line: names, options and help. The work is in `commands`, imported when a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsebert.guard import guard

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Make a BERT-family encoder smaller and faster, and see what it costs.\n\n"
    "Start with: [bold]sparsebert compress --speedup 2[/bold]",
    rich_markup_mode="rich",
)

GOALS, DATA, HOW = "Goal (one kind or several; each target starts from the last)", "Data", "How"
SPEED, COMMON = "Setting that speed is about", "Common to all commands"


def _milliseconds(text: str) -> float:
    return _number(text, "ms")


def _times(text: str) -> float:
    return _number(text, "x")


def _number(text: str, unit: str) -> float:
    try:
        return float(text.strip().lower().removesuffix(unit))
    except ValueError:
        raise typer.BadParameter(f"'{text}' is not a number (with or without '{unit}')") from None


Recipe = Annotated[
    Path | None, typer.Option("--recipe", metavar="FILE", help="Recipe in YAML.", rich_help_panel=COMMON)
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
        help="Your own file (.csv, .jsonl, .parquet) or folder with train.* and validation.*; "
        "for a GLUE task a folder DIR/TASK/*.parquet, else the hub.",
        rich_help_panel=DATA,
    ),
]
TextColumn = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Text column of your file; twice for pairs of texts.", rich_help_panel=DATA),
]
Threads = Annotated[int | None, typer.Option(help="Default: what torch takes.", rich_help_panel=SPEED)]


@app.command()
def compress(
    model: Annotated[
        str | None, typer.Argument(help="Folder or hub name.", show_default="sentence-transformers/all-MiniLM-L6-v2")
    ] = None,
    speedup: Annotated[
        list[float] | None,
        typer.Option(parser=_times, metavar="X", help="Times faster encoder, measured here.", rich_help_panel=GOALS),
    ] = None,
    latency: Annotated[
        list[float] | None,
        typer.Option(parser=_milliseconds, metavar="MS", help="Milliseconds a forward pass.", rich_help_panel=GOALS),
    ] = None,
    size: Annotated[
        list[float] | None,
        typer.Option(metavar="PART", help="Part of the bytes on disk, 0-1.", rich_help_panel=GOALS),
    ] = None,
    sparsity: Annotated[
        list[float] | None,
        typer.Option(metavar="PART", help="Part of the encoder's weights to remove, 0-1.", rich_help_panel=GOALS),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Instead of targets: the smallest model that loses no more points (0-100).",
            rich_help_panel=GOALS,
        ),
    ] = None,
    task: Task = None,
    data: Data = None,
    text_column: TextColumn = None,
    label_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Label column of your file.", rich_help_panel=DATA)
    ] = None,
    regression: Annotated[
        bool, typer.Option("--regression", help="The labels are numbers to predict.", rich_help_panel=DATA)
    ] = False,
    train_examples: Annotated[
        int | None, typer.Option(metavar="N", help="Use only N training rows.", rich_help_panel=DATA)
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(metavar="TOKENS", help="Cut longer texts. Default 128.", rich_help_panel=DATA)
    ] = None,
    criterion: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="obs (default), magnitude, random, gradient, activation, loss_increase.",
            rich_help_panel=HOW,
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="search (default), or layers: whole layers only.", rich_help_panel=HOW),
    ] = None,
    even: Annotated[
        bool,
        typer.Option("--even", help="One width for all layers: loads with plain transformers.", rich_help_panel=HOW),
    ] = False,
    no_finetune: Annotated[
        bool, typer.Option("--no-finetune", help="One-shot: no training after cutting.", rich_help_panel=HOW)
    ] = False,
    batch: Annotated[int | None, typer.Option(help="Default 1.", rich_help_panel=SPEED)] = None,
    length: Annotated[
        int | None,
        typer.Option(metavar="TOKENS", help="Default: median of the validation texts.", rich_help_panel=SPEED),
    ] = None,
    threads: Threads = None,
    recipe: Recipe = None,
    settings: Set = None,
    output: OutputFolder = None,
    seed: Seed = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a family of smaller, faster models for a task, with a report. Run it again to go on after a stop."""
    options = {
        "model": model,
        "task": task,
        "data": data,
        "columns.text": text_column or None,
        "columns.label": label_column,
        "columns.kind": "regression" if regression else None,
        "max_drop": max_drop,
        "criterion": criterion,
        "shape": shape,
        "even": even or None,
        "train_examples": train_examples,
        "max_length": max_length,
        "measure.batch": batch,
        "measure.length": length,
        "measure.threads": threads,
        "seed": seed,
    }
    goals = {"speedup": speedup, "latency_ms": latency, "size": size, "sparsity": sparsity}
    with guard(debug, interrupted="interrupted; the same command goes on from here"):
        from sparsebert.commands import compress as command
        from sparsebert.commands.settings import recipe_of

        options["targets"] = command.targets(goals)
        made = recipe_of(recipe, options, settings or [], cleared=("finetune",) if no_finetune else ())
        command.compress(made, output, as_json)


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
    backend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="eager (default), eager-bf16, compile, or all; repeatable.", rich_help_panel=HOW
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
    with guard(debug):
        from sparsebert.commands import bench as command
        from sparsebert.commands.settings import recipe_of

        made = recipe_of(recipe, options, settings or [])
        natural = task is not None or recipe is not None
        command.bench(models, made, batch or [], length or [], backend or [], natural, memory, output, as_json)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders or record.json files.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Default: report.html in the run's folder; for several runs, here.",
            rich_help_panel=COMMON,
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write one HTML page, and its figures as PNG, about one or several runs."""
    with guard(debug):
        from sparsebert.commands import report as command

        command.report(runs, output, as_json)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="Folder or hub name of a fine-tuned model.")],
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="Texts; - reads lines.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", help="A text a line, or .csv, .jsonl, .parquet with --text-column.", rich_help_panel=DATA
        ),
    ] = None,
    text_column: TextColumn = None,
    max_length: Annotated[
        int | None, typer.Option(metavar="TOKENS", help="Cut longer texts. Default: the model's.", rich_help_panel=DATA)
    ] = None,
    output: OutputFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what a model makes of texts: label and probability, or a number for regression."""
    with guard(debug):
        from sparsebert.commands import predict as command

        command.predict(model, texts or [], file, text_column or [], max_length, output, as_json)


@app.command()
def info(
    folder: Annotated[str, typer.Argument(help="A model's folder or hub name, or a run folder.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what is in a folder: shapes, sparsities, and where the parameters are."""
    with guard(debug):
        from sparsebert.commands import info as command

        command.info(folder, as_json)


@app.command()
def tasks(as_json: Json = False, debug: Debug = False) -> None:
    """List the tasks that need no file of yours."""
    with guard(debug):
        from sparsebert.commands import listings

        listings.tasks(as_json)


@app.command()
def models(as_json: Json = False, debug: Debug = False) -> None:
    """List the supported model families."""
    with guard(debug):
        from sparsebert.commands import listings

        listings.models(as_json)


def main() -> None:
    """Entry point of the `sparsebert` command."""
    app()

"""Commands that make models: compress, train, sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsebert.cli.errors import cli_errors
from sparsebert.cli.options import (
    COMMON,
    DATA,
    GOALS,
    HOW,
    SPEED,
    Data,
    Debug,
    Delimiter,
    Encoding,
    Json,
    LabelColumn,
    OutputFolder,
    Recipe,
    Regression,
    Restart,
    Seed,
    Set,
    Task,
    TextColumn,
    Threads,
    TrainExamples,
    app,
    milliseconds,
    of_task,
    shipped,
    times,
)


@app.command()
def compress(
    model: Annotated[
        str | None, typer.Argument(help="Folder or hub name.", show_default="sentence-transformers/all-MiniLM-L6-v2")
    ] = None,
    speedup: Annotated[
        list[float] | None,
        typer.Option(parser=times, metavar="X", help="Times faster encoder, measured here.", rich_help_panel=GOALS),
    ] = None,
    latency: Annotated[
        list[float] | None,
        typer.Option(parser=milliseconds, metavar="MS", help="Milliseconds a forward pass.", rich_help_panel=GOALS),
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
    label_column: LabelColumn = None,
    regression: Regression = False,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    train_examples: TrainExamples = None,
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
    restart: Restart = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a family of smaller, faster models for a task, with a report. Run it again to go on after a stop."""
    options = {
        "model": model,
        **of_task(task, data, text_column, label_column, regression, delimiter, encoding),
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
    with cli_errors(debug, interrupted="interrupted; the same command goes on from here"):
        from sparsebert.commands import compress as command
        from sparsebert.commands.settings import recipe_of

        options["targets"] = command.targets(goals)
        cleared = ("finetune",) if no_finetune else ()
        made = recipe_of(recipe, options, settings or [], cleared, "compress")
        command.compress(made, output, as_json, restart)


@app.command()
def train(
    model: Annotated[str | None, typer.Argument(help="Folder or hub name.", show_default="the recipe's")] = None,
    sparsity: Annotated[
        float | None,
        typer.Option(metavar="PART", help="Target of every rule that names none, 0-1.", rich_help_panel=HOW),
    ] = None,
    task: Task = None,
    data: Data = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    regression: Regression = False,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    train_examples: TrainExamples = None,
    recipe: Recipe = None,
    settings: Set = None,
    output: OutputFolder = None,
    seed: Seed = None,
    restart: Restart = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a model sparse, by the phases and rules of a recipe. Run it again to go on after a stop."""
    options = {
        "model": model,
        "sparsity": sparsity,
        **of_task(task, data, text_column, label_column, regression, delimiter, encoding),
        "train_examples": train_examples,
        "seed": seed,
    }
    with cli_errors(debug, interrupted="interrupted; the same command goes on from here"):
        from sparsebert.commands import train as command
        from sparsebert.commands.settings import recipe_of

        command.train(recipe_of(recipe, options, settings or [], kind="train"), output, as_json, restart)


@app.command()
def fff(
    model: Annotated[str | None, typer.Argument(help="Folder or hub name.", show_default="the recipe's")] = None,
    trees: Annotated[
        int | None, typer.Option(min=1, help="Trees side by side in a layer. Default 1.", rich_help_panel=HOW)
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Of a tree, which has 2^(depth+1)-1 neurons. Default: as many neurons as there were.",
            rich_help_panel=HOW,
        ),
    ] = None,
    layer: Annotated[
        list[int] | None, typer.Option(help="Layer to change, from 0; repeatable. Default all.", rich_help_panel=HOW)
    ] = None,
    no_controls: Annotated[
        bool, typer.Option("--no-controls", help="Leave out the models to compare with.", rich_help_panel=HOW)
    ] = False,
    no_finetune: Annotated[
        bool, typer.Option("--no-finetune", help="Stop after teaching layer by layer.", rich_help_panel=HOW)
    ] = False,
    task: Task = None,
    data: Data = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    regression: Regression = False,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    train_examples: TrainExamples = None,
    recipe: Recipe = None,
    settings: Set = None,
    output: OutputFolder = None,
    seed: Seed = None,
    restart: Restart = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Put fast feedforward layers in place of dense ones, taught by the model itself, and compare with controls."""
    options = {
        "model": model,
        "trees.trees": trees or (None if recipe else 1),
        "trees.depth": depth,
        "trees.layers": layer or None,
        "trees.controls": False if no_controls else None,
        **of_task(task, data, text_column, label_column, regression, delimiter, encoding),
        "train_examples": train_examples,
        "seed": seed,
    }
    with cli_errors(debug, interrupted="interrupted; the same command goes on from here"):
        from sparsebert.commands import fff as command
        from sparsebert.commands.settings import recipe_of

        cleared = ("finetune",) if no_finetune else ()
        made = recipe_of(recipe, options, settings or [], cleared, "fff")
        command.fff(made, output, as_json, restart)


@app.command()
def pack(
    model: Annotated[str, typer.Argument(help="Folder or hub name of a model with many zeros.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the packed model.", rich_help_panel=COMMON)
    ],
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Round matrices to bfloat16: half the bytes.", rich_help_panel=HOW)
    ] = False,
    unpack: Annotated[
        bool, typer.Option("--unpack", help="The other way round: write plain safetensors.", rich_help_panel=HOW)
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make the file of a model with zeros small: bits for places, and only the values that are left."""
    with cli_errors(debug):
        from sparsebert.commands import pack as command

        command.pack(model, output, bf16, unpack, as_json)


@app.command()
def sweep(
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE", help="Recipe in YAML, or a name of `sparsebert recipes`.", autocompletion=shipped
        ),
    ],
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES",
            help="A value of the recipe and what it takes: sparsity=0:0.9:0.1 or sparsity=0.5,0.9; repeatable.",
            rich_help_panel=HOW,
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Seeds 0 to N-1 of every point, not the recipe's.", rich_help_panel=HOW),
    ] = 1,
    keep_models: Annotated[
        bool, typer.Option("--keep-models", help="Keep every model, not only records.", rich_help_panel=HOW)
    ] = False,
    model: Annotated[str | None, typer.Option(help="Folder or hub name.", rich_help_panel=DATA)] = None,
    task: Task = None,
    data: Data = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    regression: Regression = False,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    train_examples: TrainExamples = None,
    settings: Set = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Default runs/sweep-HASH.", rich_help_panel=COMMON),
    ] = None,
    restart: Restart = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a recipe over a grid of values and seeds. Finished points are skipped, so run it again to go on."""
    options = {
        "model": model,
        **of_task(task, data, text_column, label_column, regression, delimiter, encoding),
        "train_examples": train_examples,
    }
    with cli_errors(debug, interrupted="interrupted; the same command goes on from here"):
        from sparsebert.commands import sweep as command

        command.sweep(recipe, options, settings or [], grid or [], seeds, output, keep_models, as_json, restart)

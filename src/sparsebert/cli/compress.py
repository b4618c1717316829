"""`sparsebert compress`: a model and targets in, a family of smaller models, a table and a report out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sparsebert.cli.errors import GOES_ON, cli_errors
from sparsebert.cli.options import (
    DATA,
    HOW,
    SPEED,
    DataOption,
    DebugOption,
    DelimiterOption,
    EmbeddingWeightsOption,
    EncodingOption,
    JsonOption,
    KindOption,
    LabelColumnOption,
    OutputFolderOption,
    PoolingOption,
    RecipeOption,
    ReportToOption,
    RestartOption,
    SeedOption,
    SetOption,
    TaskOption,
    TextColumnOption,
    ThreadsOption,
    TrainExamplesOption,
    WeightsOption,
)
from sparsebert.cli.settings import task_settings

GOALS = "Goal (one kind or several; each target starts from the last)"


def _times(text: str) -> float:
    """A ratio, with or without `x`."""
    return _number(text, "x")


def _milliseconds(text: str) -> float:
    """A number of milliseconds, with or without `ms`."""
    return _number(text, "ms")


def _number(text: str, unit: str) -> float:
    try:
        return float(text.strip().lower().removesuffix(unit))
    except ValueError:
        raise typer.BadParameter(f"'{text}' is not a number (with or without '{unit}')") from None


SpeedupOption = Annotated[
    list[float] | None,
    typer.Option(parser=_times, metavar="X", help="Times faster encoder, measured here.", rich_help_panel=GOALS),
]
LatencyOption = Annotated[
    list[float] | None,
    typer.Option(parser=_milliseconds, metavar="MS", help="Milliseconds a forward pass.", rich_help_panel=GOALS),
]
SizeOption = Annotated[
    list[float] | None,
    typer.Option(metavar="PART", help="Part of the bytes on disk, 0-1.", rich_help_panel=GOALS),
]
SparsityOption = Annotated[
    list[float] | None,
    typer.Option(metavar="PART", help="Part of the encoder's weights to remove, 0-1.", rich_help_panel=GOALS),
]


def _vocabulary(choice: str | None, texts: list[Path] | None) -> dict[str, Any]:
    """The recipe's keys. Raises BadParameter for texts without a choice."""
    if choice is None:
        if texts:
            raise typer.BadParameter("--vocabulary-text goes with --vocabulary auto or a number")
        return {}
    if choice == "auto":
        return {"vocabulary": {"texts": texts or []}}
    part = {"most": int(choice)} if choice.isdecimal() else {"entries": choice}
    return {"vocabulary": part | ({"texts": texts} if texts else {})}


def compress(
    model: Annotated[
        str | None, typer.Argument(help="Folder or hub name.", show_default="sentence-transformers/all-MiniLM-L6-v2")
    ] = None,
    speedup: SpeedupOption = None,
    latency: LatencyOption = None,
    size: SizeOption = None,
    sparsity: SparsityOption = None,
    max_size: Annotated[
        float | None,
        typer.Option(
            metavar="PART",
            help="Besides each target: part of the bytes on disk, 0-1. Weights are stored in fewer bits where that is "
            "needed, and more is cut.",
            rich_help_panel=GOALS,
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Instead of targets: the smallest model that loses no more points (0-100).",
            rich_help_panel=GOALS,
        ),
    ] = None,
    vocabulary: Annotated[
        str | None,
        typer.Option(
            metavar="auto|N|FILE",
            help="Also leave out entries of the tokenizer: keep those that the texts use, the commonest N, or those of "
            "a file, an entry a line.",
            rich_help_panel=GOALS,
        ),
    ] = None,
    vocabulary_text: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Whose entries stay too, a text a line; may be repeated.", rich_help_panel=GOALS
        ),
    ] = None,
    hidden_size: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Also cut the hidden states of all layers to N dimensions.", rich_help_panel=GOALS
        ),
    ] = None,
    task: TaskOption = None,
    data: DataOption = None,
    text_column: TextColumnOption = None,
    label_column: LabelColumnOption = None,
    kind: KindOption = None,
    pooling: PoolingOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    train_examples: TrainExamplesOption = None,
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
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Measure targets in it, for example onnx; one that runs a model as one program gives speedups of "
            "the whole model. Default eager.",
            rich_help_panel=SPEED,
        ),
    ] = None,
    threads: ThreadsOption = None,
    weights: WeightsOption = None,
    embedding_weights: EmbeddingWeightsOption = None,
    recipe: RecipeOption = None,
    settings: SetOption = None,
    output: OutputFolderOption = None,
    seed: SeedOption = None,
    restart: RestartOption = False,
    report_to: ReportToOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a family of smaller, faster models for a task, with a report. Run it again to go on after a stop."""
    options = {
        "model": model,
        **task_settings(task, data, text_column, label_column, kind, delimiter, encoding),
        "pooling": pooling,
        "speedup": speedup,
        "latency_ms": latency,
        "size": size,
        "sparsity": sparsity,
        "max_size": max_size,
        "max_drop": max_drop,
        **_vocabulary(vocabulary, vocabulary_text),
        "hidden_size": hidden_size,
        "criterion": criterion,
        "shape": shape,
        "even": even or None,
        "train_examples": train_examples,
        "max_length": max_length,
        "measure.batch": batch,
        "measure.length": length,
        "measure.runtime": runtime,
        "measure.threads": threads,
        "weights": weights,
        "embedding_weights": embedding_weights,
        "seed": seed,
    }
    with cli_errors(debug, interrupted=GOES_ON):
        from sparsebert import api
        from sparsebert.cli.runs import How, run_and_show

        how = How(recipe, settings or [], output, restart, as_json, report_to or [])
        run_and_show(api.compress, options, how, cleared={"finetune": "--no-finetune"} if no_finetune else {})

"""`sparsebert pretrain`: text in, a masked language model out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from sparsebert.cli.errors import GOES_ON, cli_errors
from sparsebert.cli.options import (
    DATA,
    HOW,
    DebugOption,
    EmbeddingWeightsOption,
    JsonOption,
    ModelArgument,
    OutputFolderOption,
    RecipeOption,
    ReportToOption,
    RestartOption,
    SeedOption,
    SetOption,
    WeightsOption,
)

TRAININGS = ("phases.0.training", "dense")
VOCABULARIES = ("vocabulary", "train_tokenizer")


def pretrain(
    model: ModelArgument = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="File or folder of text (.txt, .jsonl, .parquet; .txt and .jsonl also .xz, .gz, .zst), or hub:NAME; "
            "repeatable. A blank line of .txt ends a document.",
            rich_help_panel=DATA,
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(help="Of .jsonl and .parquet, where the text is. Default text.", rich_help_panel=DATA),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="New weights in this size, such as bert-mini.", rich_help_panel=HOW),
    ] = None,
    feedforward: Annotated[
        str | None,
        typer.Option(metavar="KxD", help="Trees for the blocks of a crammed config, as 512x2.", rich_help_panel=HOW),
    ] = None,
    vocabulary: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Of a new model: a vocabulary file, or a model with a tokenizer.", rich_help_panel=HOW
        ),
    ] = None,
    train_tokenizer: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of a new model: train a WordPiece vocabulary.", rich_help_panel=HOW),
    ] = None,
    length: Annotated[int | None, typer.Option(help="Tokens a row. Default 128.", rich_help_panel=HOW)] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of the first phase and the dense model; default one pass over the text.", rich_help_panel=HOW
        ),
    ] = None,
    hours: Annotated[float | None, typer.Option(help="The same, in place of steps.", rich_help_panel=HOW)] = None,
    processes: Annotated[
        int | None, typer.Option(help="That turn text into tokens. Default 1.", rich_help_panel=HOW)
    ] = None,
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
    """Pretrain an encoder on text, dense or sparse, from new weights or on from a model. Run it again to go on."""
    options = {
        "model": model,
        "text": text or None,
        "column": column,
        "config": config,
        "feedforward": feedforward,
        "vocabulary": vocabulary,
        "train_tokenizer": train_tokenizer,
        "max_length": length,
        "processes": processes,
        "weights": weights,
        "embedding_weights": embedding_weights,
        "seed": seed,
    }
    with cli_errors(debug, interrupted=GOES_ON):
        from sparsebert import api
        from sparsebert.cli.runs import How, run_and_show

        own = {key: value for key, value in (("max_steps", steps), ("hours", hours)) if value is not None}
        if recipe is None:
            options |= {"phases": [{"name": "pretrain", "training": own}], "dense": own or None}
        else:
            options |= {f"{place}.{key}": value for place in TRAININGS for key, value in own.items()}
        how = How(recipe, settings or [], output, restart, as_json, report_to or [])
        run_and_show(api.pretrain, options, how, {} if recipe is None else _replaced(options, steps))


def _replaced(options: Mapping[str, Any], steps: int | None) -> dict[str, str]:
    """Keys of a recipe whose place is taken by what is given, with the option that takes it.

    Who gives both of a pair is told so by the recipe.
    """
    replaced = {f"{place}.hours": "--steps" for place in TRAININGS} if steps is not None else {}
    for one, other in (VOCABULARIES, VOCABULARIES[::-1]):
        if options[one] is not None and options[other] is None:
            replaced[other] = f"--{one.replace('_', '-')}"
    return replaced

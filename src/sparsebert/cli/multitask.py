"""`sparsebert multitask`: the course's files in, one model with three heads out."""

from __future__ import annotations

from typing import Annotated

import typer

from sparsebert.cli.errors import GOES_ON, cli_errors
from sparsebert.cli.options import (
    DATA,
    HOW,
    DebugOption,
    JsonOption,
    ModelArgument,
    OutputFolderOption,
    RecipeOption,
    ReportToOption,
    RestartOption,
    SeedOption,
    SetOption,
    TrainExamplesOption,
)


def multitask(
    model: ModelArgument = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Folder of the course's files, or of DIR/TASK/*.parquet.", rich_help_panel=DATA
        ),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Default 10.", rich_help_panel=HOW)] = None,
    train_examples: TrainExamplesOption = None,
    recipe: RecipeOption = None,
    settings: SetOption = None,
    output: OutputFolderOption = None,
    seed: SeedOption = None,
    restart: RestartOption = False,
    report_to: ReportToOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Train one encoder for sentiment, paraphrase and similarity in turns (CS224N). Run it again to go on."""
    options = {
        "model": model,
        "data": data,
        "training.epochs": epochs,
        "train_examples": train_examples,
        "seed": seed,
    }
    with cli_errors(debug, interrupted=GOES_ON):
        from sparsebert import api
        from sparsebert.cli.runs import How, run_and_show

        run_and_show(api.multitask, options, How(recipe, settings or [], output, restart, as_json, report_to or []))

"""`sparsebert finetune`: a model and a task in, the model trained for it, a table and a report out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sparsebert.cli.errors import GOES_ON, cli_errors
from sparsebert.cli.options import (
    HOW,
    DataOption,
    DebugOption,
    DelimiterOption,
    EmbeddingWeightsOption,
    EncodingOption,
    JsonOption,
    KindOption,
    LabelColumnOption,
    ModelArgument,
    OutputFolderOption,
    PoolingOption,
    RecipeOption,
    ReportToOption,
    RestartOption,
    SeedOption,
    SetOption,
    TaskOption,
    TextColumnOption,
    TrainExamplesOption,
    WeightsOption,
)
from sparsebert.cli.settings import task_settings

if TYPE_CHECKING:
    pass


def finetune(
    model: ModelArgument = None,
    teacher: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Learn from this fine-tuned model too.", rich_help_panel=HOW),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            help="Passes over the training rows. Default 10 of up to 5,000 rows, 6 of up to 20,000, 3 of up to 80,000, "
            "else 2.",
            rich_help_panel=HOW,
        ),
    ] = None,
    fill_zeros: Annotated[
        bool, typer.Option("--fill-zeros", help="Train weights that are zero like all others.", rich_help_panel=HOW)
    ] = False,
    task: TaskOption = None,
    data: DataOption = None,
    text_column: TextColumnOption = None,
    label_column: LabelColumnOption = None,
    kind: KindOption = None,
    pooling: PoolingOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    train_examples: TrainExamplesOption = None,
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
    """Fine-tune a model for a task, without a change of its shape; zeros are held. Run it again to go on."""
    options = {
        "model": model,
        "teacher": teacher,
        "training.epochs": epochs,
        "hold_zeros": False if fill_zeros else None,
        **task_settings(task, data, text_column, label_column, kind, delimiter, encoding),
        "pooling": pooling,
        "train_examples": train_examples,
        "weights": weights,
        "embedding_weights": embedding_weights,
        "seed": seed,
    }
    with cli_errors(debug, interrupted=GOES_ON):
        from sparsebert import api
        from sparsebert.cli.runs import How, run_and_show

        run_and_show(api.finetune, options, How(recipe, settings or [], output, restart, as_json, report_to or []))

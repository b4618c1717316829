"""`sparsebert train`: a recipe with phases in, a sparse model, a table and a report out."""

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


def train(
    model: ModelArgument = None,
    sparsity: Annotated[
        float | None,
        typer.Option(metavar="PART", help="Target of every rule that names none, 0-1.", rich_help_panel=HOW),
    ] = None,
    task: TaskOption = None,
    data: DataOption = None,
    text_column: TextColumnOption = None,
    label_column: LabelColumnOption = None,
    kind: KindOption = None,
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
    """Train a model sparse, by the phases and rules of a recipe. Run it again to go on after a stop."""
    options = {
        "model": model,
        "sparsity": sparsity,
        **task_settings(task, data, text_column, label_column, kind, delimiter, encoding),
        "train_examples": train_examples,
        "weights": weights,
        "embedding_weights": embedding_weights,
        "seed": seed,
    }
    with cli_errors(debug, interrupted=GOES_ON):
        from sparsebert import api
        from sparsebert.cli.runs import How, run_and_show

        run_and_show(api.train, options, How(recipe, settings or [], output, restart, as_json, report_to or []))

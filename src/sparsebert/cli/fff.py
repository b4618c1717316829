"""`sparsebert fff`: fast feedforward layers in place of a model's feedforward blocks, with their controls."""

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
    from sparsebert.records import Record


def fff(
    model: ModelArgument = None,
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
        bool, typer.Option("--no-finetune", help="Stop after distilling block by block.", rich_help_panel=HOW)
    ] = False,
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
    """Put fast feedforward layers in place of dense ones, distilled from them, and compare with controls."""
    options = {
        "model": model,
        "trees": trees,
        "depth": depth,
        "trees.layers": layer or None,
        "trees.controls": False if no_controls else None,
        **task_settings(task, data, text_column, label_column, kind, delimiter, encoding),
        "train_examples": train_examples,
        "weights": weights,
        "embedding_weights": embedding_weights,
        "seed": seed,
    }
    with cli_errors(debug, interrupted=GOES_ON):
        from sparsebert import api
        from sparsebert.cli.runs import How, run_and_show

        how = How(recipe, settings or [], output, restart, as_json, report_to or [])
        result = run_and_show(api.fff, options, how, cleared={"finetune": "--no-finetune"} if no_finetune else {})
        if not as_json:
            _print_trees(result.record)


def _print_trees(record: Record) -> None:
    from sparsebert.cli.output import say, show
    from sparsebert.reports import as_rich
    from sparsebert.reports.trees import tree_table

    say("Fast feedforward layers, error after block-wise distillation and the rest after training:")
    show(as_rich(tree_table([record])))

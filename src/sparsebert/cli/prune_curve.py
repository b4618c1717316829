"""`sparsebert prune-curve`: what one fine-tuned network loses as more and more of it is removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsebert.cli.errors import GOES_ON, cli_errors
from sparsebert.cli.options import (
    DATA,
    HOW,
    DataOption,
    DebugOption,
    DelimiterOption,
    EncodingOption,
    JsonOption,
    KindOption,
    LabelColumnOption,
    ModelArgument,
    OutputFolderOption,
    RecipeOption,
    RestartOption,
    SeedOption,
    SetOption,
    TaskOption,
    TextColumnOption,
)
from sparsebert.cli.settings import task_settings

if TYPE_CHECKING:
    from sparsebert.records import Record


def prune_curve(
    model: ModelArgument = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="unstructured, layers, or both with a comma. Default both.", rich_help_panel=HOW
        ),
    ] = None,
    criteria: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="l1, loss, or both with a comma, for each method. Default l1 for weights, loss for layers.",
            rich_help_panel=HOW,
        ),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="PARTS",
            help="Parts of the weights to remove, 0-1, with commas. Default 0 to 0.95 by 0.05.",
            rich_help_panel=HOW,
        ),
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Which single weights may go: encoder (default), embeddings, all; several with commas.",
            rich_help_panel=HOW,
        ),
    ] = None,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Rank layers by the loss anew after each removal.", rich_help_panel=HOW)
    ] = False,
    loss_examples: Annotated[
        int | None,
        typer.Option(metavar="N", help="Training rows that the loss is ranked by. Default 1,024.", rich_help_panel=HOW),
    ] = None,
    keep_models: Annotated[
        bool, typer.Option("--keep-models", help="Save the model of every point too.", rich_help_panel=HOW)
    ] = False,
    task: TaskOption = None,
    data: DataOption = None,
    text_column: TextColumnOption = None,
    label_column: LabelColumnOption = None,
    kind: KindOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    train_examples: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Training rows that points are scored on too. Default 2,000.", rich_help_panel=DATA
        ),
    ] = None,
    recipe: RecipeOption = None,
    settings: SetOption = None,
    output: OutputFolderOption = None,
    seed: SeedOption = None,
    restart: RestartOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Remove more and more of a fine-tuned model without retraining, and see where it begins to lose."""
    options = {
        "model": model,
        "methods": _listed(methods),
        "criteria": _listed(criteria),
        "steps": _listed(steps),
        "scope": _listed(scope),
        "greedy": greedy or None,
        "loss_examples": loss_examples,
        "keep_models": keep_models or None,
        **task_settings(task, data, text_column, label_column, kind, delimiter, encoding),
        "train_examples": train_examples,
        "seed": seed,
    }
    with cli_errors(debug, interrupted=GOES_ON):
        from sparsebert import api
        from sparsebert.cli.runs import How, run_and_show

        how = How(recipe, settings or [], output, restart, as_json)
        result = run_and_show(api.prune_curve, options, how, more=_curves)
        if not as_json:
            _print_curves(result.record)


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",")]


def _curves(record: Record) -> dict[str, Any]:
    from sparsebert.reports.prune_curve import prune_groups
    from sparsebert.reports.prune_tables import prune_json

    return {"curves": prune_json(prune_groups([record]))}


def _print_curves(record: Record) -> None:
    from sparsebert.cli.output import show
    from sparsebert.reports import as_rich
    from sparsebert.reports.prune_curve import prune_groups
    from sparsebert.reports.prune_tables import drop_table

    show(as_rich(drop_table(prune_groups([record]))))

"""`sparsebert glue`: a model in, the tasks of GLUE trained and scored, a table and a submission out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsebert.cli.errors import GOES_ON, cli_errors
from sparsebert.cli.options import (
    COMMON,
    DATA,
    HOW,
    DebugOption,
    JsonOption,
    ModelArgument,
    OnOption,
    RecipeOption,
    ReportToOption,
    RestartOption,
    SetOption,
)
from sparsebert.errors import UserError

if TYPE_CHECKING:
    from sparsebert.runs.glue_results import GlueResult


def plans() -> list[str]:
    """Names of the plans that come with the package, for shells that complete words."""
    from sparsebert.runs.glue_plan import shipped_plans

    return shipped_plans()


def glue(
    model: ModelArgument = None,
    tasks: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Such as cola,sst2. Default: those of the plan.", rich_help_panel=DATA),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Folder of the tasks, DIR/TASK/*.parquet. Default: the hub.", rich_help_panel=DATA
        ),
    ] = None,
    runs: Annotated[
        int, typer.Option(min=1, metavar="N", help="Runs of every task, seeds 0 to N-1.", rich_help_panel=HOW)
    ] = 1,
    plan: Annotated[
        str,
        typer.Option(
            "--plan",
            "--preset",
            metavar="NAME",
            help="How tasks are trained: quick, family, devlin, cramming, gordon, or a YAML file.",
            autocompletion=plans,
            rich_help_panel=HOW,
        ),
    ] = "quick",
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Also per cent of this model, or of the runs in this folder.", rich_help_panel=HOW
        ),
    ] = None,
    test: Annotated[
        bool,
        typer.Option("--test", help="Answer the test sets too, and pack what the server takes.", rich_help_panel=HOW),
    ] = False,
    keep_models: Annotated[
        bool, typer.Option("--keep-models", help="Keep every model, not only records.", rich_help_panel=HOW)
    ] = False,
    on: OnOption = None,
    recipe: RecipeOption = None,
    settings: SetOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Default runs/glue-MODEL-HASH.", rich_help_panel=COMMON),
    ] = None,
    restart: RestartOption = False,
    report_to: ReportToOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Train and score a model on the tasks of GLUE, several runs each. Run it again to go on."""
    with cli_errors(debug, interrupted=GOES_ON):
        from sparsebert import api
        from sparsebert.cli.output import quiet_libraries
        from sparsebert.cli.runs import command_line

        with quiet_libraries():
            found = api.glue(
                model,
                tasks=[name.strip() for name in tasks.split(",")] if tasks else (),
                data=data,
                runs=runs,
                plan=plan,
                baseline=baseline,
                test=test,
                keep_models=keep_models,
                on=on,
                recipe=recipe,
                settings=settings or [],
                output=output,
                restart=restart,
                report_to=report_to or [],
                command=command_line(),
            )
        _print(found, as_json)
        if found.failed:
            raise UserError(
                f"{len(found.failed)} runs failed: {', '.join(found.failed)}",
                got=found.folder,
                fix="see the messages above; finished ones are kept",
            )


def _print(found: GlueResult, json_wanted: bool) -> None:
    from sparsebert.cli.output import put_json, remark, say, show
    from sparsebert.reports import as_rich
    from sparsebert.reports.glue import average_table, glue_table

    if json_wanted:
        put_json(found.plain() | {"folder": str(found.folder)})
        return
    if not found.records:
        return
    show(as_rich(glue_table(found.scores)))
    show(as_rich(average_table(found.scores)))
    for note in found.notes:
        say(note)
    remark("Tables: glue.md, glue.tex, glue.html and glue.json beside the report")
    say(f"Report: {found.folder / 'report.html'}")

"""`sparsebert search`: a recipe and a space of values in, the best of so many trials out, run again on all rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsebert.cli.errors import GOES_ON, cli_errors
from sparsebert.cli.options import (
    COMMON,
    DATA,
    HOW,
    DataOption,
    DebugOption,
    DelimiterOption,
    EncodingOption,
    JsonOption,
    KindOption,
    LabelColumnOption,
    OnOption,
    ReportToOption,
    RestartOption,
    SetOption,
    TaskOption,
    TextColumnOption,
    TrainExamplesOption,
    shipped,
)
from sparsebert.cli.settings import task_settings

if TYPE_CHECKING:
    from sparsebert.result import SearchResult


def search(
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE",
            help="Recipe in YAML, a name of `sparsebert recipes`, or a run type with its defaults, such as finetune.",
            autocompletion=shipped,
        ),
    ],
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES",
            help="What to search: KEY=LOW:HIGH, KEY=LOW:HIGH:log, KEY=LOW:HIGH:STEP or KEY=A,B,C (1:5 are whole "
            "numbers, 1.0:5 any), a YAML file of such, numenta-small or numenta-big; repeatable.",
            rich_help_panel=HOW,
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option(metavar="N", help="How many settings; the recipe's own is the first.", rich_help_panel=HOW)
    ] = 20,
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="A metric, latency_ms, size_mb, encoder_sparsity and others; several with commas give a Pareto "
            "front. Default: the main metric.",
            rich_help_panel=HOW,
        ),
    ] = None,
    of: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Which model of a run. Default: the last.", rich_help_panel=HOW)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the search; trials have the recipe's.", min=0, rich_help_panel=HOW)] = 0,
    sampler: Annotated[str, typer.Option(metavar="NAME", help="tpe or random.", rich_help_panel=HOW)] = "tpe",
    prune: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="End bad trials early, by scores while training: median, halving.", rich_help_panel=HOW
        ),
    ] = None,
    repeats: Annotated[
        int,
        typer.Option(
            metavar="N", help="Seeds of the runs of what was chosen; 0 = no look at validation.", rich_help_panel=HOW
        ),
    ] = 3,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|URL",
            help="Where the study is kept: a journal file, or the URL of a data base, as for commands on several "
            "machines, which must share DIR too. Default: DIR/study.log.",
            rich_help_panel=HOW,
        ),
    ] = None,
    on: OnOption = None,
    keep_models: Annotated[
        bool, typer.Option("--keep-models", help="Keep the models of all trials too.", rich_help_panel=HOW)
    ] = False,
    model: Annotated[str | None, typer.Option(help="Folder or hub name.", rich_help_panel=DATA)] = None,
    task: TaskOption = None,
    data: DataOption = None,
    text_column: TextColumnOption = None,
    label_column: LabelColumnOption = None,
    kind: KindOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    train_examples: TrainExamplesOption = None,
    settings: SetOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Default runs/search-HASH.", rich_help_panel=COMMON),
    ] = None,
    restart: RestartOption = False,
    report_to: ReportToOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Search for the best values of a recipe by trials on held-out train rows. Run it again to go on."""
    options = {
        "model": model,
        **task_settings(task, data, text_column, label_column, kind, delimiter, encoding),
        "train_examples": train_examples,
    }
    with cli_errors(debug, interrupted=GOES_ON):
        from sparsebert import api
        from sparsebert.cli.output import quiet_libraries

        with quiet_libraries():
            result = api.search(
                recipe,
                space or [],
                objective=[name.strip() for name in objective.split(",")] if objective else [],
                of=of,
                trials=trials,
                seed=seed,
                sampler=sampler,
                prune=prune,
                storage=storage,
                on=on,
                repeats=repeats,
                keep_models=keep_models,
                settings=settings or [],
                output=output,
                restart=restart,
                report_to=report_to or [],
                command=_command(storage),
                **{key: value for key, value in options.items() if value is not None},
            )
        _print(result, output or Path("runs") / result.folder.name, as_json)


def _command(storage: str | None) -> str:
    """The command as it was typed, without the address of a data base, which may hold a password."""
    from sparsebert.cli.runs import command_line

    typed = command_line()
    return typed if storage is None or "://" not in storage else typed.replace(storage, "URL").replace("'URL'", "URL")


def _print(result: SearchResult, folder: Path, as_json: bool) -> None:
    from sparsebert.cli.output import put_json, say, show
    from sparsebert.records.searched import SEARCH_FILE
    from sparsebert.reports import as_rich
    from sparsebert.reports.search_tables import best_table, chosen_table
    from sparsebert.reports.searched import read_searched

    if as_json:
        put_json(_plain(result, folder, SEARCH_FILE))
        return
    found = read_searched([result.folder])
    show(as_rich(best_table(found)))
    show(as_rich(chosen_table(found)))
    for note in result.record.notes:
        say(f"{note}.")
    for one in result.record.chosen:
        say(f"Recipe: {folder / one.recipe}")
    say(f"Report: {folder / 'report.html'}")


def _plain(result: SearchResult, folder: Path, name: str) -> dict[str, Any]:
    record = result.record
    return {
        "chosen": [
            {
                **one.model_dump(exclude={"recipe", "records"}),
                "values": record.trial(one.trial).values,
                "scores": record.trial(one.trial).scores,
                "recipe": str(folder / one.recipe),
                "records": [str(folder / place / "record.json") for place in one.records],
            }
            for one in record.chosen
        ],
        "trials": [one.model_dump(exclude_none=True) for one in record.trials],
        "notes": list(record.notes),
        "search": str(folder / name),
        "report": str(folder / "report.html"),
    }

"""`sparsebert sweep`: recipes over a grid and seeds in, a table of curves and one report out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from sparsebert.cli.settings import as_settings, task_settings
from sparsebert.errors import UserError

if TYPE_CHECKING:
    from sparsebert.records import Record
    from sparsebert.runs.sweep import Point


def sweep(
    recipe: Annotated[
        list[Path],
        typer.Argument(
            metavar="RECIPE...",
            help="Recipes in YAML, or names of `sparsebert recipes`.",
            autocompletion=shipped,
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
    on: OnOption = None,
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
        typer.Option("--output", "-o", metavar="DIR", help="Default runs/sweep-HASH.", rich_help_panel=COMMON),
    ] = None,
    restart: RestartOption = False,
    report_to: ReportToOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Run recipes over a grid of values and seeds. Finished points are skipped, so run it again to go on."""
    options = {
        "model": model,
        **task_settings(task, data, text_column, label_column, kind, delimiter, encoding),
        "train_examples": train_examples,
    }
    with cli_errors(debug, interrupted=GOES_ON):
        from sparsebert.files import home_of
        from sparsebert.runs.sweep import axis, points_of

        given = [*as_settings(options), *(settings or [])]
        todo = points_of(recipe, given, [axis(text) for text in grid or []], range(seeds))
        folder = home_of(str(output or Path("runs") / f"sweep-{_hash(todo)}"))
        made = _run(todo, folder, keep_models, restart, on, report_to or [])
        if made:
            _print(list(made.values()), [folder / name for name in made], folder, as_json)
        _check(todo, made, folder)


def _hash(todo: Sequence[Point]) -> str:
    import hashlib

    return hashlib.sha256(" ".join(point.recipe.hash for point in todo).encode()).hexdigest()[:12]


def _run(
    todo: Sequence[Point], folder: Path, keep_models: bool, restart: bool, on: str | None, report_to: Sequence[str]
) -> dict[str, Record]:
    """Run every point that is not finished; the records by the names of their points, in the order of these."""
    from sparsebert.cli.output import quiet_libraries
    from sparsebert.cli.runs import command_line
    from sparsebert.runs import sweep as points

    with quiet_libraries():
        made = {
            point.name: record
            for point, record in points.sweep(todo, folder, command_line(), keep_models, restart, on, report_to)
        }
    return {point.name: made[point.name] for point in todo if point.name in made}


def _print(records: Sequence[Record], runs: Sequence[Path], folder: Path, json_wanted: bool) -> None:
    from sparsebert.cli.output import put_json, say, show
    from sparsebert.reports import (
        as_json,
        as_rich,
        curve_table,
        curves,
        families,
        family_rows,
        family_table,
        write_report,
    )

    page = write_report(records, folder / "report.html", folder / "plots", runs)
    groups, found = families(records), curves(records)
    if json_wanted:
        put_json({"models": as_json(family_rows(groups)), "report": str(page)})
        return
    show(as_rich(curve_table(found) if found else family_table(groups, compact=True)))
    say(f"Report: {page}")


def _check(todo: Sequence[Point], made: Mapping[str, Record], folder: Path) -> None:
    """Raises UserError if points failed."""
    failed = len(todo) - sum(record.status == "finished" for record in made.values())
    if failed:
        raise UserError(
            f"{failed} of {len(todo)} points failed", got=folder, fix="see the messages above; finished ones are kept"
        )

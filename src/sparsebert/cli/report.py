"""`sparsebert report`: records in, one HTML page out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsebert.cli.errors import cli_errors
from sparsebert.cli.options import COMMON, DebugOption, JsonOption

if TYPE_CHECKING:
    from sparsebert.records import Record


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Run folders, folders of runs as sweeps make them, those of searches, or record.json files.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Default: report.html in the run's folder, or here for several; its figures go to plots/ beside it, "
            "those of PAGE.html to PAGE-plots/.",
            rich_help_panel=COMMON,
        ),
    ] = None,
    threshold: Annotated[
        list[float] | None,
        typer.Option(metavar="SCORE", help="Of searches: count the steps to this score (accuracy 0-1); repeatable."),
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write one HTML page, and its figures as PNG, about one or several runs, or searches side by side."""
    with cli_errors(debug):
        from sparsebert import api
        from sparsebert.reports.searched import is_search

        if any(map(is_search, runs)):
            _say_page(api.report_searches(runs, output, threshold or ()), as_json)
            return
        page, files, records = api.report_records(runs, output)
        _print(records, files, page, as_json)


def _say_page(page: Path, json_wanted: bool) -> None:
    from sparsebert.cli.output import put_json, say

    if json_wanted:
        put_json({"report": str(page)})
        return
    say(f"Report: {page}")


def _print(records: Sequence[Record], files: Sequence[Path], page: Path, json_wanted: bool) -> None:
    from sparsebert.cli.output import put_json, say, show
    from sparsebert.reports import as_json, as_rich, curve_table, curves, families, family_rows, family_table
    from sparsebert.reports.verdict import sentences

    groups, found = families(records), curves(records)
    if json_wanted:
        put_json({"models": as_json(family_rows(groups)), "report": str(page)})
        return
    if found:
        show(as_rich(curve_table(found)))
    if groups:
        show(as_rich(family_table(groups, compact=True)))
    for family in groups:
        for name, sentence in sentences(family):
            say(f"{family.label}, {name}: {sentence}" if len(groups) > 1 else f"{name}: {sentence}")
    for record, file in zip(records, files, strict=True):
        if record.status == "failed":
            say(f"{file} is of a run that failed: {record.message}")
    say(f"Report: {page}")

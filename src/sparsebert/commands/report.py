"""`sparsebert report`: records in, one HTML page out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparsebert.commands.output import put_json, say, show
from sparsebert.records import read_record
from sparsebert.report import as_json, as_rich, families, family_rows, family_table, write_report
from sparsebert.report.verdict import sentences


def report(runs: Sequence[Path], output: Path | None, json_wanted: bool) -> None:
    """Write the page and print the table. Raises UserError for a record that is missing or not readable."""
    records = [read_record(run) for run in runs]
    page = output or _default(runs)
    write_report(records, page, page.parent / "plots", runs)
    groups = families(records)
    if json_wanted:
        put_json({"models": as_json(family_rows(groups)), "report": str(page)})
        return
    if groups:
        show(as_rich(family_table(groups, compact=True)))
    for family in groups:
        for name, sentence in sentences(family):
            say(f"{family.label}, {name}: {sentence}" if len(groups) > 1 else f"{name}: {sentence}")
    for record, run in zip(records, runs, strict=True):
        if record.status == "failed":
            say(f"{run} failed: {record.message}")
    say(f"Report: {page}")


def _default(runs: Sequence[Path]) -> Path:
    if len(runs) > 1:
        return Path("report.html")
    return (runs[0] if runs[0].is_dir() else runs[0].parent) / "report.html"

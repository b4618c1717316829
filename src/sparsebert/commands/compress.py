"""`sparsebert compress`: a recipe in, a family of models, a table and a report out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsebert.commands.output import put_json, quiet_libraries, remark, say, show
from sparsebert.files import home_of
from sparsebert.progress import busy
from sparsebert.recipe.base import Recipe
from sparsebert.records import FILE_NAME, Record
from sparsebert.reports import as_json, as_rich, families, family_rows, family_table
from sparsebert.reports.verdict import sentences

# A higher speedup or sparsity asks for more; a higher latency or size for less.
FALLING = ("latency_ms", "size")


def targets(goals: Mapping[str, Sequence[float] | None]) -> list[dict[str, Any]] | None:
    """Targets as plain values, kind by kind, the weakest of a kind first; None when no goal is given."""
    found = [
        {"kind": kind, "value": value}
        for kind, values in goals.items()
        for value in sorted(values or [], reverse=kind in FALLING)
    ]
    return found or None


def compress(recipe: Recipe, output: Path | None, json_wanted: bool, restart: bool = False) -> None:
    """Run the recipe in `output` (none = a folder named after it) and print what came out."""
    run_and_show(recipe, output, json_wanted, restart)


def run_and_show(recipe: Recipe, output: Path | None, json_wanted: bool, restart: bool = False) -> Record:
    """Run the recipe in `output` (none = a folder named after it), and print what it gave as a table or as JSON."""
    folder = home_of(str(output or default_folder(recipe)))
    with busy("Starting"):
        from sparsebert.runs.run import run
    with quiet_libraries():
        record = run(recipe, folder, shlex.join(["sparsebert", *sys.argv[1:]]), restart=restart)
    if json_wanted:
        put_json(_plain(record, folder))
    else:
        _print(record, folder)
    return record


def default_folder(recipe: Recipe) -> Path:
    """`runs/MODEL-TASK-HASH`: the same recipe always finds the same folder."""
    model = home_of(recipe.model)
    name = (model.resolve() if model.is_dir() else model).name
    return Path("runs") / f"{name}-{recipe.task}-{recipe.hash}"


def _print(record: Record, folder: Path) -> None:
    groups = families([record])
    show(as_rich(family_table(groups, compact=True)))
    for family in groups:
        for name, sentence in sentences(family):
            say(f"{name}: {sentence}")
    for note in record.notes:
        say(f"Note: {note}")
    say(f"Report: {folder / 'report.html'}")


def _plain(record: Record, folder: Path) -> dict[str, Any]:
    for note in record.notes:
        remark(f"Note: {note}")
    return {
        "models": as_json(family_rows(families([record]))),
        "notes": list(record.notes),
        "record": str(folder / FILE_NAME),
        "report": str(folder / "report.html"),
    }

"""`sparsebert sweep`: a recipe over a grid and seeds in, a table of curves and one report out."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsebert.commands.output import put_json, quiet_libraries, say, show
from sparsebert.commands.settings import as_settings
from sparsebert.errors import UserError
from sparsebert.files import home_of
from sparsebert.records import Record
from sparsebert.reports import as_json, as_rich, curve_table, curves, families, family_rows, family_table, write_report


def sweep(
    file: Path | None,
    options: Mapping[str, Any],
    settings: Sequence[str],
    grids: Sequence[str],
    seeds: int,
    output: Path | None,
    keep_models: bool,
    json_wanted: bool,
    restart: bool = False,
) -> None:
    """Run every point that is not finished and print the curves. Raises UserError at the end if points failed."""
    from sparsebert.runs import sweep as points

    todo = points.points(file, [*as_settings(options), *settings], [points.axis(text) for text in grids], range(seeds))
    folder = home_of(str(output or Path("runs") / f"sweep-{_hash([point.recipe.hash for point in todo])}"))
    with quiet_libraries():
        command = shlex.join(["sparsebert", *sys.argv[1:]])
        made = list(points.sweep(todo, folder, command, keep_models, restart))
    if made:
        _finish([record for _, record in made], [folder / point.name for point, _ in made], folder, json_wanted)
    failed = len(todo) - sum(record.status == "finished" for _, record in made)
    if failed:
        raise UserError(
            f"{failed} of {len(todo)} points failed", got=folder, fix="see the messages above; finished ones are kept"
        )


def _finish(records: Sequence[Record], runs: Sequence[Path], folder: Path, json_wanted: bool) -> None:
    page = write_report(records, folder / "report.html", folder / "plots", runs)
    groups, found = families(records), curves(records)
    if json_wanted:
        put_json({"models": as_json(family_rows(groups)), "report": str(page)})
        return
    show(as_rich(curve_table(found) if found else family_table(groups, compact=True)))
    say(f"Report: {page}")


def _hash(parts: Sequence[str]) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]

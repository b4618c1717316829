"""What the commands that make models have in common: run a recipe in its folder, and print what came out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsebert.api import RUNS
from sparsebert.cli.output import put_json, quiet_libraries, remark, say, show
from sparsebert.cli.settings import check_contradiction
from sparsebert.files import home_of
from sparsebert.records import FILE_NAME, Record
from sparsebert.reports import as_json, as_rich, families, family_rows, family_table
from sparsebert.reports.verdict import sentences
from sparsebert.result import RunResult


@dataclass(frozen=True)
class How:
    """What all of these commands are given besides the keys of the recipe."""

    recipe: Path | None
    settings: Sequence[str]
    output: Path | None
    restart: bool
    as_json: bool
    report_to: Sequence[str] = ()


def run_and_show(
    entry: Callable[..., RunResult],
    options: Mapping[str, Any],
    how: How,
    cleared: Mapping[str, str] | None = None,
    more: Callable[[Record], Mapping[str, Any]] = lambda record: {},
) -> RunResult:
    """Call one of the package's functions with what was given, and print what it gave as a table or as JSON.

    `options` are keys of the recipe, None = not given; `cleared` are keys that become none, each with the option that
    says so; `more` gives what this command alone has to say in JSON. Raises UserError for a setting that gives a value
    to a key that is cleared.
    """
    none = cleared or {}
    for key, option in none.items():
        check_contradiction(key, option, how.settings)
    given = {key: value for key, value in options.items() if value is not None} | dict.fromkeys(none)
    with quiet_libraries():
        result = entry(
            **given,
            recipe=how.recipe,
            settings=how.settings,
            output=how.output,
            restart=how.restart,
            report_to=how.report_to,
            command=command_line(),
        )
    # As it was typed, or from here: the result has the whole path.
    folder = home_of(str(how.output)) if how.output else RUNS / result.folder.name
    if how.as_json:
        put_json({**_plain(result.record, folder), **more(result.record)})
    else:
        _print(result.record, folder)
    return result


def command_line() -> str:
    """This command as a shell would take it again."""
    return shlex.join(["sparsebert", *sys.argv[1:]])


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

"""`sparsebert compare`: runs in, which differences are larger than chance out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from sparsebert.commands.output import put_json, remark, say, show
from sparsebert.progress import busy
from sparsebert.studies.significance import LEVEL, Difference, contenders, differences


def compare(runs: Sequence[Path], model: str | None, resamples: int, seed: int, json_wanted: bool) -> None:
    """Test the model named `model` of every run (see `contenders`) against the first one and print what was found."""
    rivals = contenders(runs, model, remark)
    with busy("Resampling") as update:
        found = differences(rivals, resamples, seed, update)
    if json_wanted:
        put_json([asdict(one) for one in found])
    else:
        _print(found)


def _print(found: Sequence[Difference]) -> None:
    first = found[0]
    say(f"Against {first.against}: {first.metric}, {first.examples:,} examples, points of the mean over seeds")
    table = Table(box=SIMPLE_HEAD, show_edge=False)
    for column in ("Model", "Seeds", "Difference", "95 % interval", "p, corrected", "Verdict"):
        table.add_column(column, justify="left" if column in ("Model", "Verdict") else "right", overflow="fold")
    for one in found:
        table.add_row(
            Text(one.name),
            f"{one.seeds}{'' if one.paired else ' (others)'}",
            f"{one.points:+.1f}",
            f"{one.low:+.1f} to {one.high:+.1f}",
            f"{one.p_corrected:.3g}",
            _verdict(one),
        )
    show(table)
    for test in dict.fromkeys(one.test for one in found):
        say(f"Test: {test}; {first.resamples:,} resamples, level {LEVEL:g}.")


def _verdict(one: Difference) -> str:
    if one.p_corrected >= LEVEL:
        return "could be chance"
    return "better" if one.points > 0 else "worse"

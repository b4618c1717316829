"""`sparsebert compare`: runs in, which differences are larger than chance out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsebert.cli.errors import cli_errors
from sparsebert.cli.options import HOW, DebugOption, JsonOption, SeedOption
from sparsebert.errors import UserError

if TYPE_CHECKING:
    from sparsebert.studies.ingredients import Judged
    from sparsebert.studies.significance import Difference


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders of runs as sweeps make them.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Compare this model of every run, for example dense. Default: the last of each, of `fff` the first "
            "after dense, as its controls come last; of a single run all.",
            rich_help_panel=HOW,
        ),
    ] = None,
    resamples: Annotated[
        int, typer.Option(min=100, max=1_000_000, help="Draws of the bootstrap.", rich_help_panel=HOW)
    ] = 2000,
    ingredients: Annotated[
        bool,
        typer.Option(
            "--ingredients",
            help="Of recipes of sparse training: what each setting that differs costs and gains, beside the dense "
            "model and the recipe that the others differ least from.",
            rich_help_panel=HOW,
        ),
    ] = False,
    seed: SeedOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say which runs differ from the first one by more than chance, or which models of one run from its first."""
    with cli_errors(debug):
        from sparsebert.cli.output import put_json, remark
        from sparsebert.progress import busy
        from sparsebert.studies.significance import contenders, differences

        if ingredients:
            _ingredients(runs, model, resamples, seed or 0, as_json)
            return
        rivals = contenders(runs, model, remark)
        with busy("Resampling") as update:
            found = differences(rivals, resamples, seed or 0, update)
        if as_json:
            put_json([asdict(one) for one in found])
        else:
            _print(found)


def _ingredients(runs: Sequence[Path], model: str | None, resamples: int, seed: int, json_wanted: bool) -> None:
    from sparsebert.cli.output import put_json, remark, say, show
    from sparsebert.progress import busy
    from sparsebert.reports import as_rich
    from sparsebert.reports.ingredient_tables import component_table, ingredient_table
    from sparsebert.studies.ingredients import judged_arms
    from sparsebert.studies.significance import LEVEL

    if model is not None:
        raise UserError("Ingredients are of the trained models", got=f"--model {model}", fix="leave one of them out")
    with busy("Resampling") as update:
        found = judged_arms(runs, resamples, seed, remark, update)
    if json_wanted:
        put_json([_plain(one) for one in found])
        return
    ranges = "Ranges beside change, worth: 95% intervals over examples and seeds; cost, score: minimum–maximum."
    for drawn in (ingredient_table([one.arm for one in found], ranges), component_table([one.arm for one in found])):
        if drawn is not None:
            show(as_rich(drawn))
    for one in found:
        verdict = "" if one.worth is None else f"; against the base: {_verdict(one.worth, LEVEL)}"
        say(f"{one.arm.label}: against dense: {_verdict(one.change, LEVEL)}{verdict}")
    say(f"Test: {found[0].change.test}; {resamples:,} resamples, level {LEVEL:g}.")


def _plain(one: Judged) -> dict[str, object]:
    """An arm as JSON, with what could not be computed left out."""
    from sparsebert.reports import as_json

    row = as_json([one.arm.row])[0]
    found = {"recipe": one.arm.label, "settings": one.arm.settings, "change": asdict(one.change), "row": row}
    return found if one.worth is None else found | {"worth": asdict(one.worth)}


def _print(found: Sequence[Difference]) -> None:
    from rich.text import Text

    from sparsebert.cli.output import say, show, table
    from sparsebert.studies.significance import LEVEL

    first = found[0]
    say(f"Against {first.against}: {first.metric}, {first.examples:,} examples, points of the mean over seeds")
    drawn = table("Model", "Seeds", "Difference", "95 % interval", "p, corrected", "Verdict", right=range(1, 5))
    for one in found:
        drawn.add_row(
            Text(one.name),
            f"{one.seeds}{'' if one.paired else ' (others)'}",
            f"{one.points:+.1f}",
            f"{one.low:+.1f} to {one.high:+.1f}",
            f"{one.p_corrected:.3g}",
            _verdict(one, LEVEL),
        )
    show(drawn)
    for test in dict.fromkeys(one.test for one in found):
        say(f"Test: {test}; {first.resamples:,} resamples, level {LEVEL:g}.")


def _verdict(one: Difference, level: float) -> str:
    if one.p_corrected >= level:
        return "could be chance"
    return "better" if one.points > 0 else "worse"

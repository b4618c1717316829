"""`sparsebert check`: two deployed models and the user's texts in, a verdict and an exit code out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsebert.cli.errors import cli_errors
from sparsebert.cli.options import (
    DATA,
    HOW,
    DebugOption,
    DelimiterOption,
    EncodingOption,
    JsonOption,
    LabelColumnOption,
    TextColumnOption,
    ThreadsOption,
)

if TYPE_CHECKING:
    from sparsebert.records import Score
    from sparsebert.runs.checked import CheckedTexts, CheckResult

SHOWN_FLIPS = 5
BATCH = 32
PLAIN = ("loss", "pseudo_perplexity")
"""Scores that are no fractions."""


def check(
    dense: Annotated[str, typer.Argument(help="What is deployed now: a model, or an exported folder.")],
    small: Annotated[str, typer.Argument(help="What would take its place.")],
    data: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            help="Texts: .csv, .tsv, .jsonl, .parquet, or .txt with one a line; questions about texts also as .json of "
            "SQuAD. For embeddings also pairs, with how alike they are as labels, or a folder of documents and queries "
            "as BEIR has them.",
            rich_help_panel=DATA,
        ),
    ],
    text_column: TextColumnOption = None,
    label_column: LabelColumnOption = None,
    by_query: Annotated[
        bool,
        typer.Option(
            "--by-query",
            help="Of rerankers: the second texts of each first one are put in order, and labels above 0 are right.",
            rich_help_panel=DATA,
        ),
    ] = False,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="POINTS",
            help="Exit with 1 if the main metric, or the recall of a label of 20 rows or more, falls by more. Without "
            "labels: if more of 100 texts are decided otherwise, or the cosine of embeddings falls by more.",
            rich_help_panel=HOW,
        ),
    ] = None,
    runtime: Annotated[
        str, typer.Option(metavar="NAME", help="Of both; a name of `sparsebert models`, or auto.", rich_help_panel=HOW)
    ] = "auto",
    small_runtime: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the second. Default: as --runtime.", rich_help_panel=HOW)
    ] = None,
    threads: ThreadsOption = None,
    trust_head: Annotated[
        bool,
        typer.Option(
            "--trust-head",
            help="Open the pickled heads of two SetFit models, and compare classes. A pickle runs any code in it.",
            rich_help_panel=HOW,
        ),
    ] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare two deployed models on your texts: scores, labels that get worse, answers that change, latency."""
    with cli_errors(debug):
        from sparsebert.cli.output import put_json, quiet_libraries
        from sparsebert.data.meant import label_of
        from sparsebert.data.text import Written
        from sparsebert.deployment.plain import is_masked_lm
        from sparsebert.runs.checked import CheckedTexts

        label = label_of(label_column or [])
        given = CheckedTexts(data, tuple(text_column or ["text"]), label, Written(delimiter, encoding), by_query)
        with quiet_libraries():
            runtimes = runtime, small_runtime or runtime
            if all(map(is_masked_lm, (dense, small))):
                found = _masked((dense, small), runtimes, given, max_drop, threads)
            else:
                found = _fine_tuned((dense, small), runtimes, given, max_drop, threads, trust_head)
        if as_json:
            put_json(found.model_dump(mode="json", exclude_none=True))
        else:
            _show(found, max_drop)
    if found.failures:
        raise typer.Exit(1)


def _fine_tuned(
    names: tuple[str, str],
    runtimes: tuple[str, str],
    given: CheckedTexts,
    max_drop: float | None,
    threads: int | None,
    trust_head: bool,
) -> CheckResult:
    from sparsebert.deployment.predictor import Predictor
    from sparsebert.progress import bar_if_slow
    from sparsebert.runs.check import check as compare
    from sparsebert.runs.check_heads import open_head, untrusted_note

    first, second = (Predictor(name, runtime, threads=threads) for name, runtime in zip(names, runtimes, strict=True))
    heads = (open_head(names[0]), open_head(names[1])) if trust_head else None
    # Only vectors are of each side by itself.
    sides = len(given.text) if first.kind.texts == 1 else 1
    known = not given.file.is_dir() and not first.kind.of_tokens
    total = 2 * sides * len(given.table) if known else None
    with bar_if_slow("Asking both", total) as done:
        found = compare(first, second, given, max_drop, done, heads)
    return found if trust_head else found.model_copy(update={"notes": (*found.notes, *untrusted_note(names))})


def _masked(
    names: tuple[str, str],
    runtimes: tuple[str, str],
    given: CheckedTexts,
    max_drop: float | None,
    threads: int | None,
) -> CheckResult:
    from sparsebert.deployment.plain import inference_of, masked_lm
    from sparsebert.deployment.predictor import AUTO
    from sparsebert.progress import bar_if_slow
    from sparsebert.runs.check_masked import check_masked
    from sparsebert.timing import torch_threads

    chosen = ("eager" if runtime == AUTO else runtime for runtime in runtimes)
    first, second = (
        inference_of(masked_lm(name), None, runtime, BATCH) for name, runtime in zip(names, chosen, strict=True)
    )
    total = None if given.file.is_dir() else 2 * len(given.table)
    with torch_threads(threads), bar_if_slow("Asking both", total) as done:
        return check_masked(first, second, given, max_drop, done)


def _changed(one: Score, other: Score) -> tuple[str, str]:
    """The value of another model, and the points by which it is more, with their interval; of nats these themselves."""
    unit = 1 if other.metric in PLAIN else 100
    low, high = other.change_low, other.change_high
    interval = "" if low is None or high is None else f" ({unit * low:+.2f} to {unit * high:+.2f})"
    return _value(other), f"{unit * (other.value - one.value):+.2f}{interval}"


def _value(one: Score) -> str:
    from sparsebert.reports import values as v

    return f"{one.value:,.3f}" if one.metric in PLAIN else v.fraction(one.value)


def _show(found: CheckResult, max_drop: float | None) -> None:
    from sparsebert.cli.output import say, show, table
    from sparsebert.reports import values as v
    from sparsebert.runs.check import FEWEST_ROWS

    rows = table("", "First", "Second", "Change", whole=(1, 2, 3))
    rows.add_row("runtime", *found.runtimes, "")
    for one, other in zip(found.first, found.second, strict=True):
        rows.add_row(one.metric, _value(one), *_changed(one, other))
    for one, other in zip(found.first, found.mixed, strict=False):
        rows.add_row(f"{one.metric}, stored by the first", _value(one), *_changed(one, other))
    for label in found.recalls:
        rows.add_row(
            f"recall of {label.label} ({label.rows})",
            v.fraction(label.first),
            v.fraction(label.second),
            f"{round(-label.drop, 2) + 0.0:+.2f}",
        )
    first, second = found.latency.first_ms, found.latency.second_ms
    rows.add_row("ms a text, median", f"{first[0]:.2f}", f"{second[0]:.2f}", f"{found.latency.speedup:.2f}x")
    rows.add_row("ms a text, p95", f"{first[1]:.2f}", f"{second[1]:.2f}", "")
    show(rows)
    for flip in found.flips[:SHOWN_FLIPS]:
        right = f" ({flip.label} is right)" if found.first and not found.by_head else ""
        say(f"{flip.dense} -> {flip.own}{right}: {flip.text}")
    judged = (
        f"{found.rows} texts are decided alike" if found.words is None else f"{found.words:,} words get the same tag"
    )
    alike = "" if found.agreement is None else f"{found.agreement:.1%} of {judged}. "
    apart = found.largest_difference
    say(f"{alike}" + ("" if apart is None else f"Outputs differ by {apart:.2g} at most."))
    for note in found.notes:
        say(f"Note: {note}")
    if found.failures:
        say(f"FAILS --max-drop {max_drop:g}: {'; '.join(found.failures)}.")
    elif max_drop is not None:
        judged = any(one.rows >= FEWEST_ROWS for one in found.recalls) or not found.recalls
        rest = "" if judged else f" No label has {FEWEST_ROWS} rows, so that no recall was judged."
        say(f"Passes --max-drop {max_drop:g}.{rest}")

"""`sparsebert predict`: texts in, labels with probabilities (or values) out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsebert import registry
from sparsebert.cli.errors import cli_errors
from sparsebert.cli.options import (
    COMMON,
    DATA,
    HOW,
    DebugOption,
    DelimiterOption,
    EncodingOption,
    JsonOption,
    TextColumnOption,
    ThreadsOption,
)

if TYPE_CHECKING:
    from rich.table import Table

    from sparsebert.cli.answers import Answer, Destination
    from sparsebert.cli.texts import Texts
    from sparsebert.training.inference import Inference


def predict(
    model: Annotated[str, typer.Argument(help="Folder or hub name of a fine-tuned model.")],
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="Texts; - reads lines.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", help="A text a line, or .csv, .tsv, .jsonl, .parquet with --text-column.", rich_help_panel=DATA
        ),
    ] = None,
    text_column: TextColumnOption = None,
    id_column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Names the rows. Default: numbers from 1.", rich_help_panel=DATA),
    ] = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            metavar="TOKENS",
            help="Cut longer texts. Default: what the model was trained at, if that was saved.",
            rich_help_panel=DATA,
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Texts at a time.", rich_help_panel=HOW)] = 32,
    runtime: Annotated[
        str,
        typer.Option(metavar="NAME", help=f"{', '.join(registry.names('runtime'))}.", rich_help_panel=HOW),
    ] = "eager",
    threads: ThreadsOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the rows here, not to the screen: .csv, .jsonl, or .json for all in one.",
            rich_help_panel=COMMON,
        ),
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say what a model makes of texts: label and probabilities, or a number for regression."""
    with cli_errors(debug):
        from sparsebert.cli.answers import Destination, check_output
        from sparsebert.cli.output import quiet_libraries
        from sparsebert.cli.predict_model import fine_tuned, inference_of
        from sparsebert.cli.texts import texts_of
        from sparsebert.data.text import Written

        registry.get("runtime", runtime)
        if output:
            check_output(output, file)
        with quiet_libraries():
            source = fine_tuned(model)
            read = texts_of(texts or [], file, text_column or [], id_column, Written(delimiter, encoding))
            # A runtime chooses kernels by the tokens of a batch, so it must not wait for more texts than there are.
            inference = inference_of(source, max_length, runtime, min(batch, len(read.first)))
            _answer(inference, read, threads, Destination(model, output, as_json, show_ids=id_column is not None))


def _answer(inference: Inference, texts: Texts, threads: int | None, to: Destination) -> None:
    """One row a text, in order: an empty line is an empty text and has its row; a note says how many there are."""
    from sparsebert.cli.answers import write_rows
    from sparsebert.cli.output import remark, say
    from sparsebert.progress import bar_if_slow
    from sparsebert.timing import torch_threads

    notes = [texts.note] if texts.note else []
    with torch_threads(threads), bar_if_slow("Predicting", len(texts.first)) as done:
        rows = _rows(inference, texts, notes, done)
        if to.file and to.file.suffix.lower() != ".json" and not to.as_json:
            said = f"{write_rows(rows, to.file)} rows written to {to.file}"
        else:
            said = _put(list(rows), notes, to)
    for note in notes:
        remark(f"Note: {note}")
    if said:
        say(said)


def _rows(inference: Inference, texts: Texts, notes: list[str], done: Callable[[int], None]) -> Iterator[Answer]:
    """The answers, in order; what was cut is added to the notes at the end."""
    from sparsebert.cli.answers import answers
    from sparsebert.data.tokens import cut_note

    start = truncated = 0
    for logits, cut in inference.logits(texts.first, texts.second, done):
        yield from answers(inference.model.config, texts, start, logits)
        start, truncated = start + len(logits), truncated + cut
    notes += [note for note in [cut_note(truncated, start, inference.reader.limit)] if note]


def _put(rows: list[Answer], notes: list[str], to: Destination) -> str:
    """Show all rows, or write them; gives what is left to say."""
    from sparsebert.cli.answers import write_rows
    from sparsebert.cli.output import put_json, show, write_json

    plain = {"model": to.model, "predictions": rows, "notes": notes}
    if to.file and to.file.suffix.lower() == ".json":
        write_json(plain, to.file)
    elif to.file:
        write_rows(rows, to.file)
    if to.as_json:
        put_json(plain)
        return ""
    if to.file:
        return f"{len(rows)} rows written to {to.file}"
    show(_table(rows, to.show_ids))
    return ""


def _table(rows: Sequence[Answer], show_ids: bool) -> Table:
    from rich.markup import escape

    from sparsebert.cli.answers import flat
    from sparsebert.cli.output import table

    hidden = {"probabilities"} if show_ids else {"probabilities", "id"}
    shown = [flat({key: value for key, value in row.items() if key not in hidden}) for row in rows]
    drawn = table(*(escape(name[:1].upper() + name[1:].replace("_", " ")) for name in shown[0]))
    for row in shown:
        drawn.add_row(*(f"{value:.3f}" if isinstance(value, float) else escape(str(value)) for value in row.values()))
    return drawn

"""`sparsebert predict`: texts in, labels with probabilities (or values, or losses) out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from sparsebert.cli.stopwatch import Stopwatch
from sparsebert.errors import UserError

SHOWN_NUMBERS = 4

if TYPE_CHECKING:
    from rich.table import Table

    from sparsebert.cli.answers import Answer, AnsweredTexts, Destination
    from sparsebert.cli.texts import Texts
    from sparsebert.data.text import Written
    from sparsebert.training.inference import Inference


def predict(
    model: Annotated[
        str,
        typer.Argument(
            help="Folder or hub name of a fine-tuned model, an exported folder, or a masked language model for --loss."
        ),
    ],
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="Texts; - reads lines.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            help="A text a line, or .csv, .tsv, .jsonl, .parquet with --text-column, or of questions SQuAD's .json; - "
            "reads JSON lines from stdin.",
            rich_help_panel=DATA,
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
    batch: Annotated[
        int, typer.Option(min=1, help="Texts at a time; masked tokens with --loss.", rich_help_panel=HOW)
    ] = 32,
    runtime: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"{', '.join(registry.names('runtime'))}; auto measures what is there, and takes the fastest.",
            rich_help_panel=HOW,
        ),
    ] = "auto",
    stats: Annotated[
        bool,
        typer.Option("--stats", help="Also texts per second, and percentiles of a batch's time.", rich_help_panel=HOW),
    ] = False,
    loss: Annotated[
        bool,
        typer.Option(
            "--loss",
            help="Of a masked language model: mean loss of a text's tokens, each masked once, in nats.",
            rich_help_panel=HOW,
        ),
    ] = False,
    threads: ThreadsOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the rows here, not to the screen: .csv, .jsonl, or .json for all in one; - prints JSON lines "
            "as they come.",
            rich_help_panel=COMMON,
        ),
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say what a model makes of texts: labels, vectors, hidden words."""
    with cli_errors(debug):
        from sparsebert.cli.answers import Destination, check_output
        from sparsebert.cli.output import quiet_where_needed
        from sparsebert.data.text import Written

        if output:
            check_output(output, file)
        to = Destination(model, output, as_json, show_ids=id_column is not None)
        if as_json and to.streams:
            raise UserError(
                "--json prints one object, and --output - a line for each text", fix="leave out one of both"
            )
        if loss and len(text_column or []) > 1:
            raise UserError("--loss takes one text a row", got=f"{len(text_column or [])} text columns")
        with quiet_where_needed(model):
            asked = _open(model, loss, max_length, runtime, batch, threads)
            columns = text_column or _usual_columns(asked, file)
            read = _read(texts or [], file, columns, id_column, Written(delimiter, encoding), asked.finds_answers)
            _answer(asked, read, to, stats)


def _usual_columns(asked: _Asked, file: Path | None) -> Sequence[str]:
    from sparsebert.cli.texts import STDIN
    from sparsebert.data.read import has_columns

    return asked.columns if file is not None and (has_columns(file) or str(file) == STDIN) else ()


def _read(
    given: Sequence[str],
    file: Path | None,
    columns: Sequence[str],
    id_column: str | None,
    written: Written,
    answers: bool,
) -> tuple[Iterable[Texts], int | None]:
    """The texts, all at once or as they come, and how many there are where that is known; pairs to find `answers`."""
    from sparsebert.cli.texts import STDIN, texts_of, texts_of_squad, texts_of_stdin
    from sparsebert.data.squad import CONTEXT, JSON, QUESTION
    from sparsebert.data.text import Written

    if file is not None and str(file) == STDIN and not given:
        if written != Written():
            raise UserError("JSON lines are UTF-8", fix="leave out --encoding and --delimiter")
        return texts_of_stdin(columns, id_column), None
    if answers and file is not None and file.suffix.lower() == JSON and not (given or columns or id_column):
        texts = texts_of_squad(file, written)
    else:
        texts = texts_of(given, file, columns, id_column, written)
    if answers and texts.second is None:
        raise UserError(
            "The model finds answers to questions in texts",
            got="single texts" if file is None else file.name,
            allowed=f"--file with columns {QUESTION} and {CONTEXT} (.jsonl, .parquet, .csv, .tsv), or SQuAD's {JSON}",
        )
    return [texts], len(texts.first)


@dataclass(frozen=True)
class _Asked:
    """What gives a model's rows for texts, what makes it ready for them, and how much it reads of each.

    `columns` are the usual ones of files for such a model, none = those of single texts.
    """

    rows: Callable[[Texts, Callable[[int], None]], AnsweredTexts]
    choose: Callable[[Texts], None]
    limit: int
    columns: Sequence[str] = ()
    finds_answers: bool = False


def _fine_tuned(model: str, max_length: int | None, runtime: str, batch: int, threads: int | None) -> _Asked:
    from sparsebert.cli.answers import answers
    from sparsebert.cli.output import remark
    from sparsebert.data.squad import CONTEXT, QUESTION
    from sparsebert.deployment.predictor import Predictor

    predictor = Predictor(model, runtime, max_length=max_length, batch=batch, threads=threads)

    def choose(texts: Texts) -> None:
        predictor.choose(texts.first, texts.second)
        if predictor.measured_ms:
            times = ", ".join(f"{name} {ms:.1f} ms" for name, ms in predictor.measured_ms.items())
            remark(f"Runtime {predictor.runtime}, the fastest here: {times} for {min(batch, len(texts.first))} texts")

    by_span = predictor.kind.by_span
    columns = (QUESTION, CONTEXT) if by_span else ()
    return _Asked(partial(answers, predictor), choose, predictor.max_length, columns, by_span)


def _open(model: str, loss: bool, max_length: int | None, runtime: str, batch: int, threads: int | None) -> _Asked:
    from sparsebert.cli.answers import fills, losses
    from sparsebert.deployment.plain import is_masked_lm

    if not loss and not is_masked_lm(model):
        return _fine_tuned(model, max_length, runtime, batch, threads)
    return _masked_lm(losses if loss else fills, model, max_length, runtime, batch, threads)


def _masked_lm(
    answers: Callable[[Inference, Texts, Callable[[int], None]], AnsweredTexts],
    model: str,
    max_length: int | None,
    runtime: str,
    batch: int,
    threads: int | None,
) -> _Asked:
    from sparsebert.deployment.plain import inference_of, masked_lm
    from sparsebert.deployment.predictor import AUTO
    from sparsebert.timing import torch_threads

    name = "eager" if runtime == AUTO else runtime
    registry.get("runtime", name)
    inference = inference_of(masked_lm(model), max_length, name, batch)

    def rows(texts: Texts, done: Callable[[int], None]) -> AnsweredTexts:
        with torch_threads(threads):
            yield from answers(inference, texts, done)

    return _Asked(rows, lambda texts: None, inference.reader.limit)


def _answer(asked: _Asked, texts: tuple[Iterable[Texts], int | None], to: Destination, stats: bool) -> None:
    """One row a text, in order: an empty text has its row; notes say how many are empty, and how many were cut."""
    from sparsebert.cli.answers import print_rows, write_rows
    from sparsebert.cli.output import remark, say
    from sparsebert.progress import bar_if_slow

    parts, total = texts
    notes: list[str] = []
    every: list[Answer] = []
    clock, said = Stopwatch(), ""
    with bar_if_slow("Predicting", total) as done:
        rows = _rows(asked, parts, notes, lambda: clock.watching(done))
        if to.streams:
            print_rows(rows)
        elif to.file and to.file.suffix.lower() != ".json" and not to.as_json:
            said = f"{write_rows(rows, to.file)} rows written to {to.file}"
        else:
            every = list(rows)
    if every:
        said = _put(every, notes, to)
    for note in [*notes, *([clock.said()] if stats else [])]:
        remark(f"Note: {note}")
    if said:
        say(said)


def _rows(
    asked: _Asked, parts: Iterable[Texts], notes: list[str], watch: Callable[[], Callable[[int], None]]
) -> Iterator[Answer]:
    """The answers, in order; what is empty or was cut is added to the notes at the end.

    `watch` starts the clock, which stands while texts are waited for and while a runtime is chosen.
    """
    from sparsebert.data.tokens import cut_note

    count = empty = truncated = 0
    for texts in parts:
        asked.choose(texts)
        count, empty = count + len(texts.first), empty + texts.empty
        for rows, cut in asked.rows(texts, watch()):
            yield from rows
            truncated += cut
    if not count:
        raise UserError("There is no text", fix="give texts, or JSON lines on stdin")
    notes += [f"{empty} of {count} texts are empty"] if empty else []
    notes += [note for note in [cut_note(truncated, count, asked.limit)] if note]


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
    shown = [flat({key: value for key, value in _short(row).items() if key not in hidden}) for row in rows]
    drawn = table(*(escape(name[:1].upper() + name[1:].replace("_", " ")) for name in shown[0]))
    for row in shown:
        drawn.add_row(*(escape(_cell(value)) for value in row.values()))
    return drawn


def _short(row: Answer) -> Answer:
    """The same with the first numbers of a vector alone, and spans in words."""
    if "spans" in row:
        told = "; ".join(f"{one['label']}: {one['text']} ({one['probability']:.2f})" for one in row["spans"])
        return {key: value for key, value in row.items() if key != "spans"} | {"tagged": told or "none"}
    if "masks" in row:
        told = "; ".join(
            ", ".join(f"{one['token']} ({one['probability']:.2f})" for one in mask) for mask in row["masks"]
        )
        return {key: value for key, value in row.items() if key not in ("text", "masks")} | {"likeliest": told}
    if "embedding" not in row:
        return row
    vector = row["embedding"]
    first = ", ".join(f"{number:.3f}" for number in vector[:SHOWN_NUMBERS])
    return {key: value for key, value in row.items() if key != "embedding"} | {
        "vector": f"{first}, ... ({len(vector)} numbers)"
    }


def _cell(value: Any) -> str:
    from sparsebert.reports.values import DASH

    if value is None:
        return DASH
    return f"{value:.3f}" if isinstance(value, float) else str(value)

"""`sparsebert predict`: texts in, labels with probabilities (or values) out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from sparsebert import registry
from sparsebert.commands.answers import Answer, answers, check_output, flat, write_rows
from sparsebert.commands.models import is_run, open_model, sources
from sparsebert.commands.output import put_json, quiet_libraries, remark, say, show, write_json
from sparsebert.commands.texts import Texts, texts_of
from sparsebert.data.text import Written
from sparsebert.data.tokens import Reader, cut_note
from sparsebert.errors import UserError
from sparsebert.models.heads import TASKS, foreign_head, saved_kind
from sparsebert.models.limits import SHORTEST, position_limit, reading_length, segment_types
from sparsebert.models.load import load_config, load_tokenizer
from sparsebert.models.source import ModelSource, resolve
from sparsebert.progress import bar_if_slow
from sparsebert.timing import torch_threads
from sparsebert.training.collate import padding_collator
from sparsebert.training.inference import Inference


@dataclass(frozen=True)
class How:
    """How texts are read and the model is run; none = the length that the model reads, and what torch takes."""

    max_length: int | None = None
    batch: int = 32
    runtime: str = "eager"
    threads: int | None = None


def predict(
    model: str,
    given: Sequence[str],
    file: Path | None,
    text_columns: Sequence[str],
    id_column: str | None,
    written: Written,
    how: How,
    output: Path | None,
    json_wanted: bool,
) -> None:
    """Print one row a text, in order, or write them into a file of the format that its suffix says.

    An empty line is an empty text and has its row; a note says how many there are. Raises UserError without texts, and
    for a model without a head for one label or value a text.
    """
    registry.get("runtime", how.runtime)
    if output:
        check_output(output, file)
    with quiet_libraries():
        source = _fine_tuned(model)
        texts = texts_of(given, file, text_columns, id_column, written)
        inference = _inference(source, how, len(texts.first))
        notes = [texts.note] if texts.note else []
        with torch_threads(how.threads), bar_if_slow("Predicting", len(texts.first)) as done:
            rows = _rows(inference, texts, notes, done)
            if output and output.suffix.lower() != ".json" and not json_wanted:
                said = f"{write_rows(rows, output)} rows written to {output}"
            else:
                said = _written(model, list(rows), notes, output, json_wanted, show_ids=id_column is not None)
    for note in notes:
        remark(f"Note: {note}")
    if said:
        say(said)


def _fine_tuned(model: str) -> ModelSource:
    if is_run(model):
        raise UserError("That is a run, not a model", got=model, allowed=", ".join(sources([model])))
    source = resolve(model)
    config = load_config(source)
    head = foreign_head(config)
    if head is not None:
        raise UserError(f"predict does not know the head of {model}", got=head, allowed=f"models for {TASKS}")
    kind = saved_kind(config)
    if kind not in ("classification", "regression"):
        got = ", ".join(config.architectures or ()) or "no architectures in its config.json"
        raise UserError(f"{model} is not fine-tuned for a task", got=got, fix="run `sparsebert compress` first")
    if kind == "classification" and config.num_labels == 1:
        raise UserError(
            f"{model} has a single class, which every text would get",
            got=f"problem_type {config.problem_type} with one label",
            allowed="two labels or more, or problem_type regression",
        )
    return source


def _inference(source: ModelSource, how: How, texts: int) -> Inference:
    model, tokenizer = open_model(source), load_tokenizer(source)
    config, limit = model.config, position_limit(model.config)
    if how.max_length is not None and how.max_length < SHORTEST:
        allowed = f"{SHORTEST} or more" if limit is None else f"{SHORTEST} to {limit}"
        raise UserError("--max-length is too short for a text", got=how.max_length, allowed=allowed)
    wanted = how.max_length or reading_length(config, tokenizer)
    reader = Reader(tokenizer, min(wanted, limit or wanted), config.vocab_size, segment_types(config))
    # A runtime chooses kernels by the tokens of a batch, so it must not wait for more texts than there are.
    return Inference(model, reader, padding_collator(tokenizer), how.runtime, min(how.batch, texts))


def _rows(inference: Inference, texts: Texts, notes: list[str], done: Callable[[int], None]) -> Iterator[Answer]:
    """The answers, in order; what was cut is added to the notes at the end."""
    start = truncated = 0
    for logits, cut in inference.logits(texts.first, texts.second, done):
        yield from answers(inference.model.config, texts, start, logits)
        start, truncated = start + len(logits), truncated + cut
    notes += [note for note in [cut_note(truncated, start, inference.reader.limit)] if note]


def _written(
    model: str, rows: list[Answer], notes: list[str], output: Path | None, json_wanted: bool, show_ids: bool
) -> str:
    """Show all rows, or write them; gives what is left to say."""
    plain = {"model": model, "predictions": rows, "notes": notes}
    if output and output.suffix.lower() == ".json":
        write_json(plain, output)
    elif output:
        write_rows(rows, output)
    if json_wanted:
        put_json(plain)
        return ""
    if output:
        return f"{len(rows)} rows written to {output}"
    show(_table(rows, show_ids))
    return ""


def _table(rows: Sequence[Answer], show_ids: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False)
    hidden = {"probabilities"} if show_ids else {"probabilities", "id"}
    shown = [flat({key: value for key, value in row.items() if key not in hidden}) for row in rows]
    for name in shown[0]:
        table.add_column(escape(name[:1].upper() + name[1:].replace("_", " ")), overflow="fold")
    for row in shown:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else escape(str(value)) for value in row.values()))
    return table

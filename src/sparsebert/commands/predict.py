"""`sparsebert predict`: texts in, labels with probabilities (or values) out."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from scipy.special import softmax

from sparsebert.commands.models import is_run, open_model, sources
from sparsebert.commands.output import put_json, quiet_libraries, remark, show, write_json
from sparsebert.data.encode import Encoded, encode
from sparsebert.data.read import SUFFIXES, has_columns, read_file
from sparsebert.data.rows import column
from sparsebert.errors import UserError
from sparsebert.models.heads import TASKS, foreign_head, saved_kind
from sparsebert.models.limits import position_limit
from sparsebert.models.load import load_config, load_tokenizer
from sparsebert.models.source import ModelSource, resolve
from sparsebert.train.collate import padding_collator
from sparsebert.train.evaluate import predict_logits

STDIN = "-"


def predict(
    model: str,
    texts: Sequence[str],
    file: Path | None,
    text_columns: Sequence[str],
    max_length: int | None,
    output: Path | None,
    json_wanted: bool,
) -> None:
    """Print one row a text, in order.

    Stdin and a file without columns are UTF-8 with one text a line. An empty line is an empty text and has its row,
    so that rows and lines stay side by side; a note says how many there are. Raises UserError without texts, and for a
    model without a task head or with one for several labels at once.
    """
    with quiet_libraries():
        source = _fine_tuned(model)
        rows = _texts(texts, file, text_columns)
        encoded, logits = _logits(source, rows, max_length)
    found = _rows(source, rows, logits)
    notes = [note for note in (_empty_note(rows["text_a"]), encoded.note) if note]
    for note in notes:
        remark(f"Note: {note}")
    plain = {"model": model, "predictions": found, "notes": notes}
    if output:
        write_json(plain, output)
    if json_wanted:
        put_json(plain)
    else:
        show(_table(found))


def _fine_tuned(model: str) -> ModelSource:
    if is_run(model):
        raise UserError("That is a run, not a model", got=model, allowed=", ".join(sources([model])))
    source = resolve(model)
    config = load_config(source)
    head = foreign_head(config)
    if head is not None:
        raise UserError(f"predict does not know the head of {model}", got=head, allowed=f"models for {TASKS}")
    if saved_kind(config) not in ("classification", "regression"):
        raise UserError("The model is not fine-tuned for a task", got=model, fix="run `sparsebert compress` first")
    return source


def _texts(texts: Sequence[str], file: Path | None, columns: Sequence[str]) -> dict[str, list[str]]:
    """Columns `text_a` and maybe `text_b`."""
    if file is not None and texts:
        raise UserError("Give texts or --file, not both")
    if columns and (file is None or not has_columns(file)):
        raise UserError("--text-column needs --file with columns", allowed=", ".join(SUFFIXES))
    if file is not None and has_columns(file):
        return _from_table(file, columns or ["text"])
    lines = _lines(file.read_bytes(), file) if file is not None else _given(texts)
    if not lines:
        raise UserError("There is no text", fix="give texts, --file FILE, or - to read lines from stdin")
    return {"text_a": lines}


def _from_table(file: Path, columns: Sequence[str]) -> dict[str, list[str]]:
    if len(columns) > 2:
        raise UserError("A task has one or two text columns", got=", ".join(columns))
    raw = read_file(file, columns)
    found = {key: column(raw, name, file.name) for key, name in zip(("text_a", "text_b"), columns, strict=False)}
    for name, values in zip(columns, found.values(), strict=True):
        for row, value in enumerate(values, start=1):
            if not isinstance(value, str):
                raise UserError(f"{file.name}, column '{name}', row {row}: the text must be a string", got=value)
    return found


def _given(texts: Sequence[str]) -> list[str]:
    parts = (_lines(sys.stdin.buffer.read(), "stdin") if text == STDIN else [text] for text in texts)
    return [line for part in parts for line in part]


def _lines(content: bytes, where: object) -> list[str]:
    # Only a line break ends a line: `str.splitlines` splits at form feeds and U+2028 too.
    try:
        return [line.removesuffix("\n") for line in io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig")]
    except UnicodeDecodeError as error:
        raise UserError(f"The texts are not UTF-8 ({error.reason})", got=where) from None


def _empty_note(texts: Sequence[str]) -> str:
    count = sum(not text.strip() for text in texts)
    return f"{count} of {len(texts)} texts are empty" if count else ""


def _logits(source: ModelSource, rows: dict[str, list[str]], max_length: int | None) -> tuple[Encoded, np.ndarray]:
    model, tokenizer = open_model(source), load_tokenizer(source)
    limit = position_limit(model.config)
    if max_length is not None and max_length < 4:
        allowed = "4 or more" if limit is None else f"4 to {limit}"
        raise UserError("--max-length is too short for a text", got=max_length, allowed=allowed)
    dataset = Dataset.from_dict({**rows, "label": [0] * len(rows["text_a"])})
    # Where positions end nowhere, the length that the model was made for is still the one it is known to work at.
    wanted = max_length or limit or model.config.max_position_embeddings
    encoded = encode(dataset, tokenizer, wanted, limit, model.config.vocab_size)
    return encoded, predict_logits(model, encoded.dataset, padding_collator(tokenizer))


def _rows(source: ModelSource, texts: dict[str, list[str]], logits: np.ndarray) -> list[dict[str, Any]]:
    named = [{"text": a} for a in texts["text_a"]]
    if "text_b" in texts:
        named = [{"text": a, "text_2": b} for a, b in zip(texts["text_a"], texts["text_b"], strict=True)]
    if logits.shape[1] == 1:
        return [{**text, "value": float(row[0])} for text, row in zip(named, logits, strict=True)]
    labels = [name for _, name in sorted((load_config(source).id2label or {}).items())]
    chances = softmax(logits.astype(np.float64), axis=1)
    return [
        {**text, "label": labels[int(row.argmax())], "probability": float(row.max())}
        for text, row in zip(named, chances, strict=True)
    ]


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False)
    for name in rows[0]:
        table.add_column(name.capitalize().replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(name, value) for name, value in row.items()))
    return table


def _cell(name: str, value: object) -> str:
    return f"{value:.3f}" if name in ("probability", "value") else escape(str(value))

"""What a model says of texts, as rows: for tables, JSON, and files of one row a text."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert.cli.texts import Texts, is_number
from sparsebert.errors import UserError
from sparsebert.files import atomic_file

if TYPE_CHECKING:
    from sparsebert.deployment.predictor import Predictor
    from sparsebert.measurement.text_loss import TextLoss
    from sparsebert.training.inference import Inference

SEPARATOR = "|"
STDOUT = Path("-")
OUTPUTS = (".csv", ".jsonl", ".json")
Answer = dict[str, Any]
AnsweredTexts = Iterator[tuple[list[Answer], int]]
"""The rows of some texts at a time, in order, and how many of these texts were cut."""


@dataclass(frozen=True)
class Destination:
    """Where the answers of a model go: into a file (none = the screen), as JSON or not, with the ids of rows or not."""

    model: str
    file: Path | None
    as_json: bool
    show_ids: bool

    @property
    def streams(self) -> bool:
        """Whether rows go to stdout as they come."""
        return self.file == STDOUT


def check_output(file: Path, read: Path | None) -> None:
    """Raise UserError for a suffix that says no format, for a folder, and for the file that the texts are read from."""
    if file == STDOUT:
        return
    if file.suffix.lower() not in OUTPUTS:
        raise UserError("Cannot tell the format of the output", got=file.name, allowed=f"{', '.join(OUTPUTS)}, or -")
    if file.is_dir():
        raise UserError("The output is a folder", got=file, fix="name a file")
    if read is not None and read.exists() and file.exists() and file.samefile(read):
        raise UserError("The output would replace the file of the texts", got=file, fix="choose another --output")


def answers(predictor: Predictor, texts: Texts, done: Callable[[int], None]) -> AnsweredTexts:
    """Of a fine-tuned model: `id`, `text`, `text_2` of a pair, and what the kind of its task makes of the outputs."""
    start = 0
    for found, cut in predictor.answers(texts.first, texts.second, done):
        yield [_row(texts, row) | answer for row, answer in enumerate(found, start=start)], cut
        start += len(found)


def losses(inference: Inference, texts: Texts, done: Callable[[int], None]) -> AnsweredTexts:
    """Of a masked language model: `id`, `text`, `tokens`, `loss` and `pseudo_perplexity`, none where it has no loss."""
    from sparsebert.measurement.text_loss import text_losses

    start = 0
    for found, cut in text_losses(inference, texts.first, done):
        yield [_row(texts, row) | _loss(one) for row, one in enumerate(found, start=start)], cut
        start += len(found)


def fills(inference: Inference, texts: Texts, done: Callable[[int], None]) -> AnsweredTexts:
    """Of a masked language model: `id`, `text`, `filled` and the likeliest tokens of each of its `masks`."""
    from sparsebert.deployment.fill_mask import fill_masks

    if texts.second is not None:
        raise UserError("A masked language model reads single texts", got="pairs", fix="give each text by itself")
    start = 0
    for found, cut in fill_masks(inference, texts.first, done):
        yield [_row(texts, row) | one for row, one in enumerate(found, start=start)], cut
        start += len(found)


def _loss(one: TextLoss) -> Answer:
    return {"tokens": one.tokens, "loss": one.loss, "pseudo_perplexity": one.pseudo_perplexity}


def _row(texts: Texts, row: int) -> Answer:
    found = {"id": _plain(texts.ids[row]), "text": texts.first[row]}
    return found if texts.second is None else found | {"text_2": texts.second[row]}


def _plain(value: Any) -> Any:
    """An id as JSON has it; what it has no kind for, such as a date, as text."""
    return value if is_number(value) or value is None else str(value)


def flat(answer: Answer) -> Answer:
    """A row without parts: `probabilities` and `values` stand beside the others, by name; lists become text.

    Vectors, spans and masks are written as JSON.
    """
    single = {"probabilities": "probability", "values": "value"}
    found: Answer = {}
    for key, value in answer.items():
        if key in single:
            found |= {f"{single[key]}_{name}": part for name, part in value.items()}
        elif key in ("embedding", "spans", "masks"):
            found[key] = json.dumps(value, ensure_ascii=False)
        else:
            found[key] = SEPARATOR.join(value) if isinstance(value, list) else value
    return found


def write_rows(rows: Iterable[Answer], file: Path) -> int:
    """Write CSV or JSON lines as the rows come; a reader sees the whole file or what was there before. Gives the count.

    A link in the place of the file is replaced, not followed.
    """
    count = 0
    with atomic_file(file) as out:
        for count, row in enumerate(rows, start=1):
            out.write(_line(row, file.suffix.lower(), with_header=count == 1).encode("utf-8"))
    return count


def print_rows(rows: Iterable[Answer]) -> None:
    """JSON lines on stdout, each as it comes."""
    for row in rows:
        sys.stdout.write(_line(row, ".jsonl", with_header=False))
        sys.stdout.flush()


def _line(row: Answer, suffix: str, with_header: bool) -> str:
    if suffix == ".jsonl":
        return json.dumps(row, ensure_ascii=False) + "\n"
    line = io.StringIO(newline="")
    plain: Mapping[str, Any] = flat(row)
    writer = csv.writer(line, lineterminator="\n")
    writer.writerows([list(plain), plain.values()] if with_header else [plain.values()])
    return line.getvalue()

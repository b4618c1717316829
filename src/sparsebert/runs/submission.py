"""Answers to the test sets of GLUE, by the best run of each task, in the zip that the server takes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sparsebert.data.glue_test import ServerRows, missing_test_files, server_rows
from sparsebert.data.tokens import Reader
from sparsebert.errors import UserError
from sparsebert.files import write_bytes_atomically, write_text_atomically
from sparsebert.models.limits import reading_length, segment_types
from sparsebert.models.load import load_config, load_model, load_tokenizer
from sparsebert.progress import bar_if_slow
from sparsebert.tasks.glue import GLUE, GlueTask, ServerFile
from sparsebert.tasks.pair import HIGHEST, LOWEST
from sparsebert.tasks.table import TaskSpec, task_spec
from sparsebert.training.collate import padding_collator
from sparsebert.training.inference import Inference

BATCH = 64
# So that equal answers give equal bytes.
DATE = (1980, 1, 1, 0, 0, 0)


def check_test_files(tasks: Iterable[GlueTask], data: Path | None) -> None:
    """Raises UserError for test splits that are not in the folder, which names them all; the hub is asked later."""
    if data is None:
        return
    missing = missing_test_files([file for task in tasks for file in task.files], data)
    if missing:
        raise UserError(
            f"Test splits are missing: {', '.join(missing)}",
            got=data,
            fix="put them there, leave their tasks out with --tasks, or leave --test out",
        )


def answer(model: Path, task: GlueTask, data: Path | None, folder: Path) -> list[Path]:
    """Write the files of a task that a fine-tuned model answers into `folder`, and give their paths."""
    written = []
    for file in task.files:
        rows = server_rows(file, data)
        outputs = _outputs(model, rows, f"Answering {file.name}")
        write_text_atomically(
            path := folder / f"{file.name}.tsv", as_tsv(file, task_spec(task.name), rows.index, outputs)
        )
        written.append(path)
    return written


def as_tsv(file: ServerFile, spec: TaskSpec, index: Sequence[int], outputs: np.ndarray) -> str:
    """`index` and `prediction` as the server reads them: classes by name or number, similarities as 0-5.

    `outputs` [rows, outputs] are in the order of `index`, and their classes in that of the task's labels.
    """
    if not spec.labels:
        said = [f"{value:.3f}" for value in np.clip(outputs.reshape(-1), LOWEST, HIGHEST)]
    else:
        classes = outputs.argmax(axis=-1).tolist()
        said = [spec.labels[one] if file.named else str(one) for one in classes]
    lines = [f"{number}\t{value}" for number, value in zip(index, said, strict=True)]
    return "\n".join(["index\tprediction", *lines, ""])


def pack_answers(folder: Path, out: Path) -> tuple[Path | None, list[str]]:
    """Put the answers in `folder` into a zip, if all files of the server are there; and what is wrong with them.

    The same answers give the same bytes. Without all files no zip is written, and one of before is removed.
    """
    files = [file for task in GLUE.values() for file in task.files]
    missing = [file.name for file in files if not (folder / f"{file.name}.tsv").is_file()]
    if missing:
        out.unlink(missing_ok=True)
        return None, [f"no {out.name}, as the server wants all eleven files; missing: {', '.join(missing)}"]
    content = io.BytesIO()
    short = []
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in files:
            text = (folder / f"{file.name}.tsv").read_bytes()
            packed.writestr(_entry(f"{file.name}.tsv"), text, zipfile.ZIP_DEFLATED)
            if (rows := text.count(b"\n") - 1) != file.rows:
                short.append(f"{file.name}.tsv has {rows:,} rows, of which the server wants {file.rows:,}")
    write_bytes_atomically(out, content.getvalue())
    return out, short


def _outputs(model: Path, rows: ServerRows, title: str) -> np.ndarray:
    config, tokenizer = load_config(model), load_tokenizer(model)
    reader = Reader(tokenizer, reading_length(config, tokenizer), config.vocab_size, segment_types(config))
    inference = Inference(load_model(model), reader, padding_collator(tokenizer), "eager", BATCH)
    with bar_if_slow(title, len(rows.first)) as done:
        return np.concatenate([read.outputs for read in inference.logits(rows.first, rows.second, done)])


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, DATE)
    entry.external_attr = 0o644 << 16
    return entry

"""The test splits of GLUE, which have no labels, from `DIR/<task>/<split>.parquet` or from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import constants

from sparsebert.data.glue import reach_hub
from sparsebert.data.read import column, read_file
from sparsebert.errors import UserError
from sparsebert.tasks.glue import AX, ServerFile
from sparsebert.tasks.table import task_spec

INDEX = "idx"


@dataclass(frozen=True)
class ServerRows:
    """The texts that a file of a submission answers, `second` none for single texts, and the server's index of each."""

    index: list[int]
    first: list[str]
    second: list[str] | None


def missing_test_files(files: Sequence[ServerFile], folder: Path) -> list[str]:
    """Names, relative to `folder`, of the test splits that are not there."""
    return [name for file in files if not (folder / (name := _name(file))).is_file()]


def server_rows(file: ServerFile, folder: Path | None) -> ServerRows:
    """The rows of one file of a submission, from the `folder` of the tasks, none = from the hub.

    A row's index is its `idx`, where there is such a column, else its place from 0. Raises UserError for a file that is
    missing or damaged, for texts that are none, and for an index that is there twice.
    """
    columns = task_spec("mnli" if file is AX else file.folder).columns
    rows = _from_hub(file) if folder is None else _from_folder(folder / _name(file), columns)
    texts = [_texts(rows, name, f"{file.folder} {file.split}") for name in columns]
    index = rows.column(INDEX).to_pylist() if INDEX in rows.column_names else list(range(len(rows)))
    if len(set(index)) < len(index) or not all(isinstance(one, int) for one in index):
        raise UserError(f"The column {INDEX} of {file.folder} {file.split} does not number the rows")
    return ServerRows(index, texts[0], texts[1] if len(texts) > 1 else None)


def _name(file: ServerFile) -> str:
    return f"{file.folder}/{file.split}.parquet"


def _from_folder(path: Path, columns: tuple[str, ...]) -> pa.Table:
    rows = read_file(path, columns)
    if INDEX not in pq.read_schema(path).names:
        return rows
    return read_file(path, (*columns, INDEX))


def _from_hub(file: ServerFile) -> pa.Table:
    try:
        if not constants.HF_HUB_OFFLINE:
            reach_hub()
        loaded = load_dataset(*file.source, split=file.split)
    except (OSError, ValueError, DatasetGenerationError) as error:
        raise UserError(
            f"Cannot load the test split of '{file.folder}' from the Hugging Face hub ({type(error).__name__})",
            got=":".join(file.source),
            fix=f"give a local folder with --data DIR, in which is DIR/{_name(file)}",
        ) from None
    assert isinstance(loaded, Dataset)
    return loaded.data.table


def _texts(rows: pa.Table, name: str, where: str) -> list[str]:
    values = column(rows, name, where)
    for place, value in enumerate(values, 1):
        if not isinstance(value, str):
            raise UserError(f"{where}, column '{name}', row {place}: the text must be a string", got=value)
    return values

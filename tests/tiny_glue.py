"""A folder of tiny GLUE tasks as the hub has them: a word decides the label; test splits have none."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sparsebert.tasks.glue import GLUE, ServerFile
from sparsebert.tasks.table import TaskSpec, task_spec
from tiny_run import WORDS

UNLABELLED = -1


def write_glue(folder: Path, tasks: Iterable[str] = GLUE, train: int = 32, dev: int = 16, test: int = 4) -> Path:
    """`folder`/TASK/SPLIT.parquet, MNLI's mismatched dev split and the diagnostic set included."""
    for name in tasks:
        spec, task = task_spec(name), GLUE[name]
        for split, rows in ((spec.train_split, train), *((split, dev) for split, _ in task.dev_rows)):
            _write(folder / name / f"{split}.parquet", spec, f"{name} {split}", rows, labelled=True)
        for file in task.files if test else ():
            write_test(folder, file, spec, test)
    return folder


def write_test(folder: Path, file: ServerFile, spec: TaskSpec, rows: int) -> None:
    """One test split."""
    _write(folder / file.folder / f"{file.split}.parquet", spec, f"{file.name} test", rows, labelled=False)


def _write(path: Path, spec: TaskSpec, seed: str, rows: int, labelled: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw, classes = random.Random(seed), len(spec.labels)
    columns: dict[str, list[Any]] = {name: [] for name in (*spec.columns, "label", "idx")}
    for row in range(rows):
        kind = row % (classes or 6)
        first, *second = ([*draw.choices(WORDS[10:], k=4), WORDS[kind]] for _ in spec.columns)
        for name, words in zip(spec.columns, (first, *second), strict=True):
            columns[name].append(" ".join(words))
        label = kind if classes else float(kind)
        columns["label"].append(label if labelled else UNLABELLED)
        columns["idx"].append(row)
    pq.write_table(pa.table(columns), path)

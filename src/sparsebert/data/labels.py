"""The labels of encoded rows as one array, out of a data set and into it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from datasets import Dataset

from sparsebert.tasks.kind import IGNORED


def labels_of(rows: Dataset) -> np.ndarray:
    """The column `label`: [rows], or [rows, numbers] where a row has several, of words filled up with IGNORED."""
    column = rows.select_columns(["label"]).with_format("arrow")[:]["label"].combine_chunks()
    if pa.types.is_fixed_size_list(column.type):
        return column.flatten().to_numpy().reshape(len(column), column.type.list_size)
    if not pa.types.is_list(column.type) or not pa.types.is_integer(column.type.value_type):
        return np.array(column.to_pylist())
    return filled_labels(column.to_pylist())


def filled_labels(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Numbers of the labels of words, as many as each row has, filled up with IGNORED [rows, most of them]."""
    labels = np.full((len(rows), max(map(len, rows))), IGNORED)
    for place, row in enumerate(rows):
        labels[place, : len(row)] = row
    return labels


def with_labels(rows: Dataset, labels: np.ndarray) -> Dataset:
    """The rows with `labels` [rows, numbers] in the column `label`; a single number stands there by itself."""
    numbers = pa.array(labels.reshape(-1))
    single = labels.size == len(labels)
    column = numbers if single else pa.FixedSizeListArray.from_arrays(numbers, labels.shape[1])
    return rows.with_format(None).add_column("label", column)

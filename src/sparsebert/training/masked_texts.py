"""Texts of a task whose tokens are hidden: once and for all where they are scored, anew in every pass of a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from sparsebert.tasks.kind import IGNORED
from sparsebert.training.collate import EpochOrder
from sparsebert.training.text_rows import Hider


def hidden_once(rows: Dataset, hider: Hider) -> Dataset:
    """Token rows with some tokens hidden, by the number of each row; `label` holds these, IGNORED elsewhere."""
    hidden = [hider.hide(np.asarray(ids, dtype=np.int64), row) for row, ids in enumerate(rows["input_ids"])]
    read, labels = ([each.tolist() for each in side] for side in zip(*hidden, strict=True))
    return rows.remove_columns("input_ids").add_column("input_ids", read).add_column("label", labels)


@dataclass(frozen=True)
class MaskedTexts(TorchDataset[dict[str, Any]]):
    """The rows of a training by position: that of a row in a pass, plus all rows of the passes before.

    `rows` are as `hidden_once` gives them. Which tokens are hidden follows from the position alone, as in TextRows.
    """

    rows: Dataset
    hider: Hider

    def __len__(self) -> int:
        """Rows of one pass."""
        return len(self.rows)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The row, with other tokens hidden."""
        row: Any = self.rows[position % len(self.rows)]
        read, labels = self.hider.hide(shown(row), position)
        return {**row, "input_ids": read.tolist(), "label": labels.tolist()}


def shown(row: Mapping[str, Sequence[int]]) -> np.ndarray:
    """The tokens of a row as they are in its text, int64 [length]."""
    labels = np.asarray(row["label"], dtype=np.int64)
    return np.where(labels == IGNORED, np.asarray(row["input_ids"], dtype=np.int64), labels)


class PassOrder(Sampler[int]):
    """Positions of all rows, in the order of a sampler of one pass."""

    def __init__(self, one_pass: EpochOrder) -> None:
        self._one_pass, self._epoch = one_pass, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the pass that the next iteration is of; accelerate's data loader calls this."""
        self._epoch = epoch
        self._one_pass.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._one_pass)

    def __iter__(self) -> Iterator[int]:
        return (row + self._epoch * len(self._one_pass) for row in self._one_pass)

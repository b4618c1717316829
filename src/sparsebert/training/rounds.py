"""Several sets of rows trained on in turns: a batch of the first, one of the second, and so on, then again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from sparsebert.training.collate import Batch, Collator, EpochOrder

EpochOf = Literal["longest", "shortest"]


@dataclass(frozen=True)
class HeadRows:
    """Encoded rows that one head of a model is trained on, so many a step."""

    head: str
    rows: Dataset
    batch_size: int

    @property
    def batches(self) -> int:
        """Batches in one pass over the rows."""
        return math.ceil(len(self.rows) / self.batch_size)


@dataclass(frozen=True)
class HeadBatch:
    """Which rows of which set make a batch; `place` is that of the set."""

    place: int
    rows: tuple[int, ...]


class RoundRobin(Sampler[HeadBatch]):
    """Batches of all sets in turns, each step one batch; seed and epoch alone decide them.

    An epoch lasts as many rounds as the longest set has batches, so that all rows are seen, or as the shortest has. A
    set whose batches are used up begins anew, in another order, and goes on where it was in the next epoch.
    """

    def __init__(self, sets: Sequence[HeadRows], seed: int, epoch_of: EpochOf = "longest") -> None:
        self._sets = tuple(sets)
        counts = [one.batches for one in self._sets]
        self._rounds = max(counts) if epoch_of == "longest" else min(counts)
        self._orders = [EpochOrder(one.rows["length"], one.batch_size, seed) for one in self._sets]
        self._passes: dict[int, tuple[int, list[int]]] = {}
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration is of; accelerate's data loader calls this."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._rounds * len(self._sets)

    def __iter__(self) -> Iterator[HeadBatch]:
        for turn in range(self._epoch * self._rounds, (self._epoch + 1) * self._rounds):
            for place in range(len(self._sets)):
                yield self._batch(place, turn)

    def _batch(self, place: int, turn: int) -> HeadBatch:
        size = self._sets[place].batch_size
        number, batch = divmod(turn, self._sets[place].batches)
        order = self._order(place, number)
        return HeadBatch(place, tuple(order[batch * size : (batch + 1) * size]))

    def _order(self, place: int, number: int) -> list[int]:
        """The rows of a set in the order of its pass of that number."""
        if self._passes.get(place, (-1, []))[0] != number:
            self._orders[place].set_epoch(number)
            self._passes[place] = (number, list(self._orders[place]))
        return self._passes[place][1]


class RoundRows(TorchDataset[Any]):
    """What a data loader takes the batches of a RoundRobin from: an item is a whole batch, and the head it is for."""

    def __init__(self, sets: Sequence[HeadRows], order: RoundRobin) -> None:
        self._sets, self._order = tuple(sets), order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, batch: HeadBatch) -> tuple[str, list[dict[str, Any]]]:
        found = self._sets[batch.place]
        return found.head, [found.rows[row] for row in batch.rows]


@dataclass(frozen=True)
class RoundCollator:
    """One item of RoundRows to a batch with `head`, the name of the head that it is for."""

    collate: Collator

    def __call__(self, items: Sequence[tuple[str, list[dict[str, Any]]]]) -> Batch:
        """As the collator makes it of the rows, without their numbers."""
        [(head, rows)] = items
        batch: dict[str, Any] = {key: value for key, value in self.collate(rows).items() if key != "rows"}
        return batch | {"head": head}

"""Batches: padding, and the order that keeps padding small."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase

from sparsebert.data.tokens import SECOND
from sparsebert.errors import UserError

if TYPE_CHECKING:
    # Predicting needs neither rows on disk nor a trainer, and they take long to import.
    from datasets import Dataset

MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
Batch = dict[str, torch.Tensor]
Collator = Callable[[Sequence[dict[str, Any]]], Batch]


def inputs_of(batch: Mapping[str, Any], *more: str) -> dict[str, Any]:
    """What a model takes of a batch or row, and `more` keys; it may also hold row numbers and a teacher's outputs."""
    return {key: batch[key] for key in (*MODEL_INPUTS, *more) if key in batch}


@dataclass(frozen=True)
class PaddingCollator:
    """Rows of an encoded data set to one batch with `labels`, and `rows` when known.

    A pair that is read apart takes two rows of the batch, its first side and below it the second.

    Padding is always on the right and always masked, whatever the tokenizer does by itself: positions count from the
    left, so that a text would otherwise be read differently in other company. Plain values, so that workers of a data
    loader can be given one.
    """

    token: int
    segment: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """The batch: values [rows, longest row], [2 rows, longest side] of pairs that are read apart, or [rows]."""
        texts = [text for row in rows for text in _sides(row)] if SECOND in rows[0] else rows
        masks = [text.get("attention_mask") or [1] * len(text["input_ids"]) for text in texts]
        batch = {
            "input_ids": _padded([text["input_ids"] for text in texts], self.token),
            "attention_mask": _padded(masks, 0),
        }
        if "token_type_ids" in rows[0]:
            batch["token_type_ids"] = _padded([text["token_type_ids"] for text in texts], self.segment)
        for name, key in (("labels", "label"), ("rows", "row")):
            if key in rows[0]:
                batch[name] = torch.tensor([row[key] for row in rows])
        return batch


def padding_collator(tokenizer: PreTrainedTokenizerBase) -> PaddingCollator:
    """The collator for what a tokenizer gives. Raises UserError for a tokenizer without a padding token."""
    padding: Any = tokenizer.pad_token_id
    if padding is None:
        raise UserError(
            "The tokenizer has no padding token, so texts cannot be put into batches",
            got=type(tokenizer).__name__,
            fix="set tokenizer.pad_token to one that the model knows, and save the tokenizer",
        )
    return PaddingCollator(padding, tokenizer.pad_token_type_id)


def _sides(row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two sides of a pair that is read apart."""
    place, inputs = row[SECOND], inputs_of(row)
    return {k: v[:place] for k, v in inputs.items()}, {k: v[place:] for k, v in inputs.items()}


def _padded(rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
    padded = torch.full((len(rows), max(len(row) for row in rows)), filler)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = torch.as_tensor(row)
    return padded


class EpochOrder(Sampler[int]):
    """Row numbers with texts of like length together, shuffled anew each epoch.

    Seed and epoch alone decide the order. The sampler of transformers draws from torch's global generator, so a run
    that goes on after its first epoch would see other batches than one that was never interrupted.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = list(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration is of; accelerate's data loader calls this."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        from transformers.trainer_pt_utils import get_length_grouped_indices

        state = np.random.SeedSequence([self._seed, self._epoch]).generate_state(1)
        generator = torch.Generator().manual_seed(int(state[0]))
        return iter(get_length_grouped_indices(self._lengths, self._batch_size, generator=generator))


def batches_by_length(encoded: Dataset, collate: Collator, batch_size: int) -> Iterator[tuple[list[int], Batch]]:
    """Yield (row numbers, batch) from the shortest text to the longest; the same rows always meet."""
    lengths = list(encoded["length"])
    order = sorted(range(len(encoded)), key=lambda row: (lengths[row], row))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        yield rows, collate([encoded[row] for row in rows])

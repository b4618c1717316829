"""Batches: padding, and the order that keeps padding small."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
Batch = dict[str, torch.Tensor]
Collator = Callable[[Sequence[dict[str, Any]]], Batch]


def padding_collator(tokenizer: PreTrainedTokenizerBase) -> Collator:
    """A function from rows of an encoded data set to one padded batch with `labels`, and `rows` when known."""

    def collate(rows: Sequence[dict[str, Any]]) -> Batch:
        inputs = [{key: row[key] for key in MODEL_INPUTS if key in row} for row in rows]
        batch: Batch = dict(tokenizer.pad(inputs, return_tensors="pt"))
        for name, key in (("labels", "label"), ("rows", "row")):
            if key in rows[0]:
                batch[name] = torch.tensor([row[key] for row in rows])
        return batch

    return collate


def batches_by_length(encoded: Dataset, collate: Collator, batch_size: int) -> Iterator[tuple[list[int], Batch]]:
    """Yield (row numbers, batch) from the shortest text to the longest; the same rows always meet."""
    lengths = list(encoded["length"])
    order = sorted(range(len(encoded)), key=lambda row: (lengths[row], row))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        yield rows, collate([encoded[row] for row in rows])

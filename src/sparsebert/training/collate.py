"""Batches: padding, and the order that keeps padding small."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase

from sparsebert.data.batches import groups_by_length, padded
from sparsebert.data.tokens import TARGETS, WORDS
from sparsebert.errors import UserError
from sparsebert.tasks.kind import IGNORED

if TYPE_CHECKING:
    # Predicting needs neither rows on disk nor a trainer, and they take long to import.
    from datasets import Dataset

Batch = dict[str, torch.Tensor]
Collator = Callable[[Sequence[dict[str, Any]]], Batch]


@dataclass(frozen=True)
class PaddingCollator:
    """Rows of an encoded data set to one batch with `labels`, and `rows` when known.

    A pair that is read apart takes two rows of the batch, its first side and below it the second. Padding is as
    `data.batches.padded` has it. Labels of words stand at their first tokens, whose numbers are in `words`. With
    `every_token` a row has a label for each of its tokens. Plain values, so that workers of a data loader can be given
    one.
    """

    token: int
    segment: int
    every_token: bool = False

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """The batch: values [rows, longest row], [2 rows, longest side] of pairs that are read apart, or [rows]."""
        arrays = padded(rows, self.token, self.segment)
        batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if "row" in rows[0]:
            batch["rows"] = torch.tensor([row["row"] for row in rows])
        if WORDS in rows[0]:
            batch[WORDS] = _filled([row[WORDS] for row in rows], -1)
        if TARGETS in rows[0]:
            batch |= _span_labels([row[TARGETS] for row in rows], batch)
        elif "label" in rows[0] and self.every_token:
            batch["labels"] = _filled([row["label"] for row in rows], IGNORED)
        elif "label" in rows[0]:
            batch["labels"] = _labels([row["label"] for row in rows], batch)
        return batch


def _labels(rows: Sequence[Any], batch: Batch) -> torch.Tensor:
    """Of texts [rows], or [rows, numbers]; of words those of their first tokens [rows, length], IGNORED elsewhere."""
    if WORDS not in batch:
        return torch.tensor(rows)
    return at_tokens(_filled(rows, IGNORED), batch[WORDS], batch["input_ids"].shape[1], IGNORED)


def _span_labels(targets: Sequence[Sequence[int]], batch: Batch) -> Batch:
    """Labels [rows, length, 2] of starts and ends (see tasks/spans.py), and the same as heads of transformers want it.

    `targets` are the places, in `words`, of the answer's start and end.
    """
    marks = torch.zeros_like(batch[WORDS])
    marks.scatter_(1, torch.tensor(targets)[:, None], 1)
    labels = at_tokens(marks, batch[WORDS], batch["input_ids"].shape[1], IGNORED)
    start, end = (labels == 1).int().argmax(dim=1).unbind(dim=-1)
    return {"labels": labels, "start_positions": start, "end_positions": end}


def at_tokens(values: torch.Tensor, words: torch.Tensor, length: int, filler: float) -> torch.Tensor:
    """Values of words [rows, words, ...] at their first tokens [rows, length, ...]; `words` is -1 for none.

    Where `words` [rows, words, outputs] has a token for each output, each value stands at its own.
    """
    found = values.new_full((len(words), length, *values.shape[2:]), filler)
    if words.dim() > 2:
        row, word, output = torch.nonzero(words >= 0, as_tuple=True)
        found[row, words[row, word, output], output] = values[row, word, output]
        return found
    row, word = torch.nonzero(words >= 0, as_tuple=True)
    found[row, words[row, word]] = values[row, word]
    return found


def _filled(rows: Sequence[Sequence[Any]], filler: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, filler)


def padding_collator(tokenizer: PreTrainedTokenizerBase, every_token: bool = False) -> PaddingCollator:
    """The collator for what a tokenizer gives. Raises UserError for a tokenizer without a padding token."""
    padding: Any = tokenizer.pad_token_id
    if padding is None:
        raise UserError(
            "The tokenizer has no padding token, so texts cannot be put into batches",
            got=type(tokenizer).__name__,
            fix="set tokenizer.pad_token to one that the model knows, and save the tokenizer",
        )
    return PaddingCollator(padding, tokenizer.pad_token_type_id, every_token)


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
    for rows in groups_by_length(list(encoded["length"]), batch_size):
        yield rows, collate([encoded[row] for row in rows])

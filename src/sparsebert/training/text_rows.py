"""Rows of text for masked language modelling: which tokens are hidden follows from seed and place alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase

from sparsebert.data.masking import Masking, mask_row
from sparsebert.data.shards import Shards
from sparsebert.errors import UserError
from sparsebert.recipe.masking import Hidden
from sparsebert.training.collate import Batch

# Rows that follow each other, which often are of one document.
BLOCK = 32


@dataclass(frozen=True)
class Hider:
    """Hides tokens of the rows that a tokenizer made; its numbers are all that is needed of it."""

    masking: Masking
    seed: int
    mask_token: int
    vocabulary: int
    special: frozenset[int]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, hidden: Hidden, seed: int) -> Hider:
        """For this tokenizer. Raises UserError for one without a mask token."""
        mask: Any = tokenizer.mask_token_id
        if mask is None:
            raise UserError(
                "The tokenizer has no mask token, so nothing can be hidden",
                got=type(tokenizer).__name__,
                fix="give a masked language model with its own tokenizer",
            )
        masking = Masking(hidden.rate, (hidden.masked, hidden.random, 1 - hidden.masked - hidden.random))
        return cls(masking, seed, mask, len(tokenizer), frozenset(tokenizer.all_special_ids))

    def hide(self, ids: np.ndarray, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and labels [length] of a row at its position of the training."""
        return mask_row(
            ids,
            position,
            self.seed,
            self.masking,
            mask_token=self.mask_token,
            vocab_size=self.vocabulary,
            special=self.special,
        )


@dataclass(frozen=True)
class TextRows(TorchDataset[dict[str, Any]]):
    """The rows of a training by position: that of a row in a pass, plus all rows of the passes before.

    The same row is masked anew in every pass, and alike whatever process or worker reads it, and after every
    interruption.
    """

    shards: Shards
    hider: Hider

    def __len__(self) -> int:
        """Rows of one pass."""
        return len(self.shards)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """`input_ids` and `label` [length]."""
        ids, labels = self.hider.hide(self.shards[position % len(self.shards)], position)
        return {"input_ids": ids, "label": labels}


class TextOrder(Sampler[int]):
    """Positions of all rows, shuffled anew in every pass; seed and pass alone decide."""

    def __init__(self, rows: int, seed: int) -> None:
        self._rows, self._seed, self._epoch = rows, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the pass that the next iteration is of; accelerate's data loader calls this."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(self._rows)
        # One by one: as objects of Python all of them would take five times the memory.
        return (int(row) + self._epoch * self._rows for row in order)


def collate_text(rows: Sequence[dict[str, Any]]) -> Batch:
    """A batch of rows of one length, so without padding: values [rows, length]."""
    ids, labels = (torch.from_numpy(np.stack([row[key] for row in rows])) for key in ("input_ids", "label"))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def held_out_rows(shards: Shards, hider: Hider, most: int, to_choose: bool = False) -> Dataset:
    """At most so many rows, spread over all, each masked once and for all.

    Blocks of rows take turns: the first of two is for scores, the second, `to_choose`, for what is chosen by scores.
    Columns: `input_ids`, `attention_mask`, `label` [length], and `length`.
    """
    block = min(BLOCK, -(-len(shards) // 2))
    own = [row for row in range(len(shards)) if row // block % 2 == int(to_choose)]
    chosen = [own[place] for place in np.linspace(0, len(own) - 1, min(most, len(own))).round().astype(int)]
    hidden = [hider.hide(shards[row], row) for row in chosen]
    return Dataset.from_dict(
        {
            "input_ids": [ids.tolist() for ids, _ in hidden],
            "attention_mask": [[1] * len(ids) for ids, _ in hidden],
            "label": [labels.tolist() for _, labels in hidden],
            "length": [len(ids) for ids, _ in hidden],
        }
    )

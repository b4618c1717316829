"""Text rows to token rows. No padding here: a collator pads at batch time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from sparsebert.errors import UserError

CHUNK_ROWS = 1000


@dataclass(frozen=True)
class Encoded:
    """Token rows: `input_ids`, `attention_mask`, `token_type_ids` if the model has them, `label`, `length` (tokens).

    `truncated` of the rows were longer than `max_length` tokens and lost their end.
    """

    dataset: Dataset
    max_length: int
    truncated: int

    @property
    def note(self) -> str:
        """One sentence for the user; empty if nothing was cut."""
        if not self.truncated:
            return ""
        return (
            f"{self.truncated} of {len(self.dataset)} texts were longer than {self.max_length} tokens "
            "and were truncated"
        )


def encode(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    model_limit: int | None = None,
    vocab_size: int | None = None,
) -> Encoded:
    """Tokenise `text_a` (and `text_b`) of every row, special tokens included, in memory and in order.

    Rows longer than `max_length`, or than `model_limit` if that is less, are cut to it; the longer text of a pair
    loses first. Equal input gives an equal fingerprint. Raises UserError for a token id that a model with `vocab_size`
    embeddings does not have; None leaves that unchecked.
    """
    limit = max_length if model_limit is None else min(max_length, model_limit)
    tables, truncated = [], 0
    for start in range(0, len(dataset), CHUNK_ROWS):
        rows = dataset[start : start + CHUNK_ROWS]
        tokens, cut = _tokens(rows, tokenizer, limit)
        truncated += cut
        if vocab_size is not None:
            _check_ids(tokens["input_ids"], tokenizer, vocab_size)
        lengths = [len(ids) for ids in tokens["input_ids"]]
        tables.append(pa.table({**tokens, "label": rows["label"], "length": lengths}))
    return Encoded(Dataset(pa.concat_tables(tables)), limit, truncated)


def _tokens(rows: dict[str, Any], tokenizer: PreTrainedTokenizerBase, limit: int) -> tuple[dict[str, Any], int]:
    # Whole first, so that cut rows can be counted with every kind of tokenizer; then only the long ones again.
    tokens = dict(_call(tokenizer, rows, range(len(rows["text_a"])), None))
    long = [row for row, ids in enumerate(tokens["input_ids"]) if len(ids) > limit]
    if long:
        for name, values in _call(tokenizer, rows, long, limit).items():
            for row, value in zip(long, values, strict=True):
                tokens[name][row] = value
    return tokens, len(long)


def _check_ids(rows: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> None:
    padding: Any = tokenizer.pad_token_id
    largest = max([padding or 0, *(max(ids, default=0) for ids in rows)])
    if largest >= vocab_size:
        raise UserError(
            "The tokenizer does not fit the model: it gives a token id that the model has no embedding for",
            got=largest,
            allowed=f"0 to {vocab_size - 1}, as vocab_size is {vocab_size}",
            fix="use the model's own tokenizer, or resize the model with resize_token_embeddings and save it",
        )


def _call(tokenizer: PreTrainedTokenizerBase, rows: dict[str, Any], which: Any, limit: int | None) -> dict[str, Any]:
    first = [rows["text_a"][row] for row in which]
    second = [rows["text_b"][row] for row in which] if "text_b" in rows else None
    # `verbose=False`: the warning about over-long text would come before it is cut.
    return dict(tokenizer(first, second, truncation=limit is not None, max_length=limit, verbose=False))

"""Text rows to token rows."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from sparsebert.data.tokens import Reader, cut_note

CHUNK_ROWS = 1000


@dataclass(frozen=True)
class Encoded:
    """Token rows: `input_ids`, `attention_mask`, `token_type_ids` if the model has them, `label` if any, `length`.

    `length` is in tokens. Of pairs that are read apart, `second` says where in a row the other side begins, and
    `length` is that of the longer side. `truncated` of the rows were longer than `max_length` tokens and were cut.
    """

    dataset: Dataset
    max_length: int
    truncated: int

    @property
    def note(self) -> str:
        """One sentence for the user; empty if nothing was cut."""
        return cut_note(self.truncated, len(self.dataset), self.max_length)


def encode(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    model_limit: int | None = None,
    vocab_size: int | None = None,
    segments: int | None = None,
    apart: bool = False,
) -> Encoded:
    """Tokenise `text_a` (and `text_b`) of every row, special tokens included, in memory and in order.

    Rows longer than `max_length`, or than `model_limit` if that is less, are cut to it; the longer text of a pair
    loses first. Equal input gives an equal fingerprint. `vocab_size` and `segments` are how many token ids and segment
    types the model has, none = unchecked; `apart`: the sides of a pair are read on their own (see Reader). Raises
    UserError for a text without tokens, and for an id that the model does not have.
    """
    limit = max_length if model_limit is None else min(max_length, model_limit)
    reader = Reader(tokenizer, limit, vocab_size, segments, apart)
    tables, truncated = [], 0
    for start in range(0, len(dataset), CHUNK_ROWS):
        rows = dataset[start : start + CHUNK_ROWS]
        tokens, cut = reader.read(rows["text_a"], rows.get("text_b"), start)
        truncated += len(cut)
        label = {"label": rows["label"]} if "label" in rows else {}
        tables.append(pa.table({**tokens, **label, "length": reader.longest(tokens)}))
    return Encoded(Dataset(pa.concat_tables(tables)), limit, truncated)

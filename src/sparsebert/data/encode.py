"""Text rows to token rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from sparsebert.data.passages import Letters
from sparsebert.data.squad import LABEL_TYPE
from sparsebert.data.tokens import OFFSETS, TARGETS, WORDS, Reader, cut_note
from sparsebert.tasks.answers import piece_tokens, pieces_in
from sparsebert.tasks.entities import first_tokens
from sparsebert.tasks.kind import Passage, TaskKind
from sparsebert.tasks.spans import target_of

CHUNK_ROWS = 1000


@dataclass(frozen=True)
class Encoded:
    """Token rows: `input_ids`, `attention_mask`, `token_type_ids` if the model has them, `label` if any, `length`.

    `length` is in tokens. Of pairs that are read apart, `second` says where in a row the other side begins, and
    `length` is that of the longer side. `truncated` of the rows were longer than `max_length` tokens and were cut.
    Where labels are of words, `words` holds the first token of each, -1 for none; `unread` words of `every` have none.
    Where they are of spans, it holds the tokens that begin and end with each piece, and `targets` the answer's places.
    """

    dataset: Dataset
    max_length: int
    truncated: int
    unread: int = 0
    every: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user about what was cut, and what was not read."""
        unread = f"{self.unread} of {self.every} words have no token of their own, so that their tags are not learned"
        cut = cut_note(self.truncated, len(self.dataset), self.max_length)
        return (*((cut,) if cut else ()), *((unread,) if self.unread else ()))


def encode(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    model_limit: int | None = None,
    vocab_size: int | None = None,
    segments: int | None = None,
    kind: TaskKind | None = None,
) -> Encoded:
    """Tokenise `text_a` (and `text_b`) of every row, special tokens included, in memory and in order.

    Rows longer than `max_length`, or than `model_limit` if that is less, are cut to it; the longer text of a pair
    loses first. Equal input gives an equal fingerprint. `vocab_size` and `segments` are how many token ids and segment
    types the model has, none = unchecked. The `kind` of the task says whether the sides of a pair are read on their
    own, and whether labels are of words. Raises UserError for a text without tokens, an id that the model does not
    have, and a tokenizer that does not say where tokens stand.
    """
    reader = Reader.of_kind(kind, tokenizer, max_length, model_limit, vocab_size, segments)
    tables, truncated, unread, every = [], 0, 0, 0
    for start in range(0, len(dataset), CHUNK_ROWS):
        rows = dataset[start : start + CHUNK_ROWS]
        tokens, cut = reader.read(rows["text_a"], rows.get("text_b"), start)
        truncated += len(cut)
        label = {"label": rows["label"]} if "label" in rows else {}
        offsets = tokens.pop(OFFSETS, None)
        if offsets is not None and kind is not None and kind.by_span:
            label = _spans(rows["label"], offsets)
        elif offsets is not None:
            label = _words(rows["label"], map(Passage, rows["text_a"], offsets))
            unread += sum(row.count(-1) for row in label[WORDS])
            every += sum(map(len, label[WORDS]))
        tables.append(pa.table({**tokens, **label, "length": reader.longest(tokens)}))
    return Encoded(Dataset(pa.concat_tables(tables)), reader.limit, truncated, unread, every)


def _spans(labels: Sequence[dict[str, Any]], offsets: Sequence[Sequence[Letters]]) -> dict[str, Any]:
    """Labels of windows, what tokens their pieces begin and end with, and which of these are to be learned."""
    words, targets = [], []
    for label, places in zip(labels, offsets, strict=True):
        tokens = [[0, 0], *piece_tokens(label["text"], pieces_in(label["text"]), places)]
        words.append(tokens)
        targets.append(_learnable(target_of(label), tokens))
    return {"label": pa.array(labels, LABEL_TYPE), WORDS: words, TARGETS: targets}


def _learnable(target: tuple[int, int], tokens: Sequence[Sequence[int]]) -> tuple[int, int]:
    """The nearest places around an answer that have tokens; that of no answer where there are none."""
    first, last = target
    while tokens[first][0] < 0:
        first -= 1
    while last < len(tokens) and tokens[last][1] < 0:
        last += 1
    return (first, last) if first > 0 and last < len(tokens) else (0, 0)


def _words(labels: Sequence[Sequence[Sequence[int]]], passages: Iterable[Passage]) -> dict[str, list[list[int]]]:
    """Labels of words that are (start, end, label), and their first tokens."""
    places = [[(start, end) for start, end, _ in words] for words in labels]
    return {
        "label": [[label for *_, label in words] for words in labels],
        WORDS: [first_tokens(*row) for row in zip(places, passages, strict=True)],
    }

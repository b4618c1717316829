"""From texts to token ids, as one model takes them. No padding here: a collator pads at batch time."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparsebert.data.passages import Letters, parts_of
from sparsebert.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from sparsebert.data.file_tokenizer import FileTokenizer
    from sparsebert.tasks.kind import TaskKind

TokenColumns = dict[str, Any]
"""Lists of numbers by name, one a text; `second`, of pairs that are read apart, holds one number a text."""
SECOND, OFFSETS, WORDS, TARGETS = "second", "offset_mapping", "words", "targets"
SHORTEST = 4
"""Tokens: the special ones of a pair, and one more."""
WINDOW_TEXTS = 4096
"""So many texts are read and answered before the next are looked at."""


@dataclass(frozen=True)
class ReadTexts:
    """What a model says of some texts: `outputs` [texts, ...] in fp32, which of them were `cut`, and their `offsets`.

    Offsets are where the tokens of each text stand in it, none where a reader does not ask for them.
    """

    outputs: np.ndarray
    cut: set[int]
    offsets: Sequence[Sequence[tuple[int, int]]] | None = None


@dataclass(frozen=True)
class Reader:
    """A tokenizer within what its model takes: at most `limit` tokens a text, and ids below those of its tables.

    `vocab_size` none leaves token ids unchecked. `segments` is how many segment types the model tells apart; none
    leaves them as the tokenizer gives them, and with fewer than two there is nothing to tell, so they are left out.
    With `apart` the sides of a pair are read on their own: a row holds the tokens of both, one after the other, and
    `second` says where the other begins. With `offsets` there is also where in its text each token stands; of a pair
    that is where it stands in the second text, and the same place twice for tokens of the first.
    """

    tokenizer: PreTrainedTokenizerBase | FileTokenizer
    limit: int
    vocab_size: int | None = None
    segments: int | None = None
    apart: bool = False
    offsets: bool = False

    @classmethod
    def of_kind(
        cls,
        kind: TaskKind | None,
        tokenizer: PreTrainedTokenizerBase | FileTokenizer,
        max_length: int,
        model_limit: int | None = None,
        vocab_size: int | None = None,
        segments: int | None = None,
    ) -> Reader:
        """The one for texts of a kind of task, none = of no known one; up to `model_limit` tokens if that is less."""
        limit = max_length if model_limit is None else min(max_length, model_limit)
        apart, offsets = (kind.apart, kind.of_tokens) if kind else (False, False)
        return cls(tokenizer, limit, vocab_size, segments, apart, offsets)

    def read(
        self, first: Sequence[str], second: Sequence[str] | None = None, start: int = 0
    ) -> tuple[TokenColumns, set[int]]:
        """Token rows of texts or pairs by column name, special tokens included, and which of the rows were cut.

        The longer text of a pair loses first. `start` is the number of texts before these. Raises UserError for a text
        without tokens, for an id that the model has no embedding for, and for single texts where pairs are read apart.
        """
        if not self.apart:
            return self._read(first, second, start)
        if second is None:
            raise UserError(
                "The model reads pairs of texts",
                got="single texts",
                fix="give both sides of each: a `text_pair`, or --text-column twice",
            )
        (one, cut), (other, also) = (self._read(side, None, start) for side in (first, second))
        joined: TokenColumns = {name: [a + b for a, b in zip(one[name], other[name], strict=True)] for name in one}
        return joined | {SECOND: [len(ids) for ids in one["input_ids"]]}, cut | also

    def windows(
        self, first: Sequence[str], second: Sequence[str] | None = None, size: int | None = None
    ) -> Iterator[tuple[TokenColumns, set[int]]]:
        """As `read`, for `size` texts at a time, none = WINDOW_TEXTS, in their order; rows count within a window."""
        step = size or WINDOW_TEXTS
        for start in range(0, len(first), step):
            part = slice(start, start + step)
            yield self.read(first[part], None if second is None else second[part], start)

    def parts(self, texts: Sequence[str]) -> list[list[Letters]]:
        """For each text where the parts of it that can be read whole begin and end, in characters."""
        found = [[(0, len(text))] for text in texts]
        # A token is a byte at least, of text that a tokenizer's normaliser does not make longer.
        long = [
            row
            for row, text in enumerate(texts)
            if len(text.encode()) + SHORTEST > self.limit or not unicodedata.is_normalized("NFKC", text)
        ]
        if long:
            for row, places in zip(long, self.places([texts[row] for row in long]), strict=True):
                found[row] = parts_of(texts[row], places, self.limit)
        return found

    def places(self, texts: Sequence[str]) -> Sequence[Sequence[Letters]]:
        """Where the tokens of whole texts stand, the same place twice for special ones; asks for `offsets`."""
        return self._call(texts, None, None)[OFFSETS]

    def longest(self, columns: TokenColumns) -> list[int]:
        """Tokens of each row that has been read; of a pair that is read apart those of its longer side."""
        lengths = [len(ids) for ids in columns["input_ids"]]
        seconds = columns.get(SECOND, [0] * len(lengths))
        return [max(place, length - place) for place, length in zip(seconds, lengths, strict=True)]

    def _read(self, first: Sequence[str], second: Sequence[str] | None, start: int) -> tuple[TokenColumns, set[int]]:
        """The token rows, and which of them were cut."""
        # Whole first, so that cut rows can be counted with every kind of tokenizer; then only the long ones again.
        columns = self._call(first, second, None)
        long = [row for row, ids in enumerate(columns["input_ids"]) if len(ids) > self.limit]
        if long:
            pairs = None if second is None else [second[row] for row in long]
            for name, values in self._call([first[row] for row in long], pairs, self.limit).items():
                for row, value in zip(long, values, strict=True):
                    columns[name][row] = value
        self._check(columns, start)
        return columns, set(long)

    def _call(self, first: Sequence[str], second: Sequence[str] | None, limit: int | None) -> TokenColumns:
        if self.offsets and not self.tokenizer.is_fast:
            raise UserError(
                "The tokenizer does not say where in a text its tokens stand",
                got=type(self.tokenizer).__name__,
                fix="use a fast one (a tokenizer.json)",
            )
        # `verbose=False`: the warning about over-long text would come before it is cut.
        given = self.tokenizer(
            list(first),
            None if second is None else list(second),
            truncation=limit is not None,
            max_length=limit,
            return_attention_mask=True,
            verbose=False,
            return_offsets_mapping=self.offsets,
        )
        found: dict[str, Any] = dict(given)
        if self.offsets and second is not None:
            found[OFFSETS] = [in_second(places, given.sequence_ids(row)) for row, places in enumerate(found[OFFSETS])]
        if self.segments is not None and self.segments < 2:
            found.pop("token_type_ids", None)
        return found

    def _check(self, columns: TokenColumns, start: int) -> None:
        for row, ids in enumerate(columns["input_ids"], start=start + 1):
            if not ids:
                raise UserError(
                    f"Text {row} gives no tokens: it is empty for this tokenizer, which adds no special tokens",
                    fix="leave the text out, or use a tokenizer that marks the beginning and end of a text",
                )
        padding: Any = self.tokenizer.pad_token_id
        self._check_ids("token", max(padding or 0, _largest(columns["input_ids"])), "vocab_size", self.vocab_size)
        if "token_type_ids" in columns:
            self._check_ids("segment", _largest(columns["token_type_ids"]), "type_vocab_size", self.segments)

    def _check_ids(self, what: str, largest: int, key: str, size: int | None) -> None:
        if size is not None and largest >= size:
            raise UserError(
                f"The tokenizer does not fit the model: it gives a {what} id that the model has no embedding for",
                got=largest,
                allowed=f"0 to {size - 1}, as {key} is {size}",
                fix="use the model's own tokenizer, or resize the model with resize_token_embeddings and save it",
            )


def in_second(places: Sequence[Letters], sides: Sequence[int | None]) -> list[Letters]:
    """The places of tokens of the second text of a pair, the same place twice for others; `sides` are 0 and 1."""
    return [place if side == 1 else (0, 0) for place, side in zip(places, sides, strict=True)]


def cut_note(truncated: int, texts: int, limit: int) -> str:
    """One sentence about texts that were cut; empty if none was."""
    return f"{truncated} of {texts} texts were longer than {limit} tokens and were truncated" if truncated else ""


def _largest(rows: Sequence[Sequence[int]]) -> int:
    return max(max(ids, default=0) for ids in rows)

"""A tokenizer read from its file alone, for a service that has neither torch nor transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from sparsebert.data.tokens import OFFSETS
from sparsebert.errors import UserError

FILE = "tokenizer.json"


class FileTokenizer:
    """What `tokenizer.json` says, called as a tokenizer of transformers is called by a Reader."""

    is_fast = True

    def __init__(self, file: Path, pad_token_id: int, pad_token_type_id: int) -> None:
        self.pad_token_id, self.pad_token_type_id = pad_token_id, pad_token_type_id
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:
            # The library raises the base class itself.
            if type(error) is not Exception:
                raise
            raise UserError(f"{file} is no tokenizer: {error}", fix="export the model again") from None
        # A file may say how its texts are cut and padded; here the caller says it.
        self._tokenizer.no_padding()

    def __call__(
        self,
        first: Sequence[str],
        second: Sequence[str] | None = None,
        *,
        truncation: bool,
        max_length: int | None,
        return_attention_mask: bool,
        verbose: bool,
        return_offsets_mapping: bool = False,
    ) -> FileTokens:
        """Token rows by name; the longer text of a pair loses first."""
        if truncation:
            assert max_length is not None
            self._tokenizer.enable_truncation(max_length)
        else:
            self._tokenizer.no_truncation()
        texts = list(first) if second is None else list(zip(first, second, strict=True))
        if not return_offsets_mapping:
            return FileTokens(self._tokenizer.encode_batch_fast(texts))
        found = FileTokens(self._tokenizer.encode_batch(texts))
        found[OFFSETS] = [one.offsets for one in found.rows]
        return found


class FileTokens(dict[str, Any]):
    """Columns by name, as a tokenizer of transformers gives them, and the rows that they are of."""

    def __init__(self, rows: Sequence[Any]) -> None:
        super().__init__(
            input_ids=[one.ids for one in rows],
            token_type_ids=[one.type_ids for one in rows],
            attention_mask=[one.attention_mask for one in rows],
        )
        self.rows = rows

    def sequence_ids(self, row: int) -> list[int | None]:
        """For each token of a row the text of a pair that it is of, none for special ones."""
        return self.rows[row].sequence_ids

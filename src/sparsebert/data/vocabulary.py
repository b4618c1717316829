"""What packing needs to know of a tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from sparsebert.errors import UserError

_SMALL, _LARGE = "<u2", "<i4"


@dataclass(frozen=True)
class Vocabulary:
    """A fast tokenizer, serialised, with the ids of [CLS] and [SEP] and the largest there is."""

    serialised: str
    cls: int
    sep: int
    largest: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
        """That of a tokenizer. Raises UserError for one that is not fast or lacks [CLS], [SEP] or [MASK]."""
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            got = type(tokenizer).__name__
            raise UserError("The tokenizer is not a fast one", got=got, fix="use one with a tokenizer.json")
        ids: list[Any] = [tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id]
        if missing := [name for name, found in zip(("CLS", "SEP", "MASK"), ids, strict=True) if found is None]:
            raise UserError(f"The tokenizer has no [{'], ['.join(missing)}]", fix="use one of a BERT-like model")
        # A copy: how the tokenizer was last asked to cut and pad is no matter of the text.
        plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        plain.no_truncation()
        plain.no_padding()
        return cls(plain.to_str(), ids[0], ids[1], max(plain.get_vocab(with_added_tokens=True).values()))

    @property
    def kind(self) -> str:
        """The smallest kind of number, as numpy names it, that holds every id."""
        return _SMALL if self.largest <= np.iinfo(_SMALL).max else _LARGE

"""A model's word embeddings with what its tokenizer knows of each token."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.models.load import load_tokenizer
from sparsebert.models.source import ModelSource
from sparsebert.studies.checkpoints import array
from sparsebert.studies.embedding_magnitudes import TokenEmbeddings
from sparsebert.studies.task_rows import TokenRows

_UNUSED = re.compile(r"\[unused\d+\]")
# What marks a piece that goes on a word (WordPiece), or one that begins it (SentencePiece, byte-level BPE).
_MARKS = ("##", "▁", "Ġ")


def token_embeddings(name: str, model: PreTrainedModel, source: ModelSource, tokens: TokenRows) -> TokenEmbeddings:
    """The tokens with letters that are neither special nor unused, and how often they occur in the rows.

    Raises UserError where there is none.
    """
    tokenizer: Any = load_tokenizer(source)
    embeddings: Any = model.get_input_embeddings()
    values = array(embeddings.weight)
    counts = np.zeros(len(values), dtype=np.int64)
    for ids in tokens.rows["input_ids"]:
        np.add.at(counts, ids, 1)
    special = set(tokenizer.all_special_ids)
    lengths = {
        number: _letters(token)
        for token, number in tokenizer.get_vocab().items()
        if number < len(values) and number not in special and not _UNUSED.fullmatch(token)
    }
    chosen = np.array(sorted(number for number, length in lengths.items() if length), dtype=int)
    if not len(chosen):
        raise UserError("The tokenizer has no tokens with letters", got=name)
    own = np.array([lengths[number] for number in chosen.tolist()])
    return TokenEmbeddings(name, values[chosen], own, counts[chosen])


def _letters(token: str) -> int:
    """Of a token, without its mark."""
    for mark in _MARKS:
        if token.startswith(mark) and token != mark:
            return len(token) - len(mark)
    return 0 if token in _MARKS else len(token)

"""A tokenizer whose ids can be told by hand, and texts for it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, UNK, CLS, SEP, MASK = range(5)
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def word_tokenizer(words: int = 30, **special: Any) -> PreTrainedTokenizerFast:
    """Every word of a text is a token: w0 has id 5, w1 has 6, and so on; others are [UNK]."""
    ids = {token: number for number, token in enumerate([*SPECIAL.values(), *(f"w{n}" for n in range(words))])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **(SPECIAL | special))


def some_documents(count: int, seed: int = 0, longest: int = 40) -> list[str]:
    """Documents of 1 to `longest` words."""
    draw = random.Random(seed)
    return [" ".join(f"w{draw.randrange(30)}" for _ in range(draw.randint(1, longest))) for _ in range(count)]


def write_text(file: Path, documents: list[str]) -> Path:
    """A .txt file of documents."""
    file.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return file

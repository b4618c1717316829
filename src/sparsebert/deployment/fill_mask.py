"""What a masked language model puts in the place of each mask of a text, as the fill-mask pipeline of transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from sparsebert.data.batches import groups_by_length, rows_of
from sparsebert.data.tokens import TokenColumns
from sparsebert.errors import UserError
from sparsebert.training.inference import Inference

TOP = 5
"""Tokens that are given for a mask."""
WINDOW_TEXTS = 256
Filled = dict[str, Any]


def fill_masks(
    inference: Inference, texts: Sequence[str], done: Callable[[int], None]
) -> Iterator[tuple[list[Filled], int]]:
    """Yield what is said of some texts at a time, in their order, and how many of them were cut.

    Of a text `filled` is it with the likeliest token in the place of each mask, and `masks` holds for each of them the
    TOP likeliest, as `{"token": ..., "probability": ...}`. Masks of one text are filled each by itself. `done` is told
    how many texts are ready. Raises UserError for a text without a mask that is read, and for a runtime that cannot run
    here.
    """
    tokenizer = inference.reader.tokenizer
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    mask: Any = tokenizer.mask_token_id
    if mask is None:
        raise UserError("The tokenizer has no mask token, so there is nothing to fill", got=type(tokenizer).__name__)
    start = 0
    for columns, cut in inference.reader.windows(texts, size=WINDOW_TEXTS):
        part = texts[start : start + len(columns["input_ids"])]
        _check_masks(columns, part, mask, tokenizer, start)
        chosen = _chosen(inference, columns, mask, done)
        yield [_filled(text, chosen[row], tokenizer) for row, text in enumerate(part)], len(cut)
        start += len(part)


def _check_masks(
    columns: TokenColumns, texts: Sequence[str], mask: int, tokenizer: PreTrainedTokenizerBase, start: int
) -> None:
    for row, ids in enumerate(columns["input_ids"]):
        if mask not in ids:
            behind = str(tokenizer.mask_token) in texts[row]
            raise UserError(
                f"Text {start + row + 1} has no {tokenizer.mask_token} "
                f"{'among the tokens that are read' if behind else 'to be filled'}",
                got=repr(texts[row][:60]),
                fix="give a larger --max-length" if behind else "write one where a word is missing, or add --loss",
            )


def _chosen(
    inference: Inference, columns: TokenColumns, mask: int, done: Callable[[int], None]
) -> dict[int, list[list[tuple[int, float]]]]:
    """For each text and each of its masks the likeliest tokens with their probabilities."""
    groups = groups_by_length([len(ids) for ids in columns["input_ids"]], inference.batch)
    inference.prepare(rows_of(columns, groups[len(groups) // 2]))
    found: dict[int, list[list[tuple[int, float]]]] = {}
    for group in groups:
        logits = inference.run(rows_of(columns, group))
        for place, row in enumerate(group):
            at = [number for number, token in enumerate(columns["input_ids"][row]) if token == mask]
            # Chosen before they become float32: a vocabulary is large.
            best = torch.softmax(logits[place, at].float(), dim=-1).topk(min(TOP, logits.shape[-1]), dim=-1)
            found[row] = [
                list(zip(*pair, strict=True)) for pair in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
        done(len(group))
    return found


def _filled(text: str, masks: list[list[tuple[int, float]]], tokenizer: PreTrainedTokenizerBase) -> Filled:
    named = [
        [{"token": str(tokenizer.decode([token])).strip(), "probability": chance} for token, chance in one]
        for one in masks
    ]
    parts = text.split(str(tokenizer.mask_token))
    # Of a text that was cut the masks behind stay as they are.
    words = [one[0]["token"] for one in named] + [str(tokenizer.mask_token)] * (len(parts) - 1 - len(named))
    filled = parts[0] + "".join(word + part for word, part in zip(words, parts[1:], strict=True))
    return {"filled": filled, "masks": named}

"""Batches of texts as arrays: padding, and the order that keeps padding small."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sparsebert.data.tokens import SECOND, WORDS, TokenColumns

MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TokenRow = dict[str, Any]


def inputs_of(batch: Mapping[str, Any], *more: str) -> dict[str, Any]:
    """What a model takes of a batch or row, and `more` keys; it may also hold row numbers and a teacher's outputs."""
    return {key: batch[key] for key in (*MODEL_INPUTS, *more) if key in batch}


def padded(
    rows: Sequence[Mapping[str, Any]], token: int, segment: int, length: Callable[[int], int] = lambda longest: longest
) -> dict[str, np.ndarray]:
    """What a model takes of some rows, int64 [rows, longest row]; of pairs that are read apart [2 rows, longest side].

    `length` says how long rows become, by the longest.

    Padding is always on the right and always masked, whatever the tokenizer does by itself: positions count from the
    left, so that a text would otherwise be read differently in other company.
    """
    texts = [text for row in rows for text in _sides(row)] if SECOND in rows[0] else rows
    masks = [text.get("attention_mask") or [1] * len(text["input_ids"]) for text in texts]
    batch = {
        "input_ids": _padded([text["input_ids"] for text in texts], token, length),
        "attention_mask": _padded(masks, 0, length),
    }
    if "token_type_ids" in rows[0]:
        batch["token_type_ids"] = _padded([text["token_type_ids"] for text in texts], segment, length)
    return batch


def rounded_rows(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def rounded_length(length: int) -> int:
    """The next multiple of 4, and from 33 tokens on of an eighth of the next power of two."""
    step = max(4, 1 << max(0, (length - 1).bit_length() - 3))
    return -(-length // step) * step


def groups_by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Row numbers in groups of `size`, from the shortest text to the longest; the same rows always meet."""
    order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    return [order[start : start + size] for start in range(0, len(order), size)]


def cheapest_groups(
    lengths: Sequence[int],
    size: int,
    call: int,
    rows: Callable[[int], int] = lambda count: count,
    length: Callable[[int], int] = lambda longest: longest,
) -> list[list[int]]:
    """Row numbers in groups of at most `size`, from the shortest text to the longest, that cost a CPU the least.

    A group costs its tokens, padding included, and `call` tokens; `rows` and `length` say what its shape is rounded to.
    The cheapest of all ways to cut the sorted texts, by dynamic programming (Fang et al. 2021, TurboTransformers).
    """
    order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    padded_rows = np.array([rows(count) for count in range(1, size + 1)])
    best, starts = np.zeros(len(order) + 1), [0] * len(order)
    for end, row in enumerate(order, start=1):
        counts = padded_rows[: min(size, end)]
        # For groups of 1, 2, ... rows that end here.
        costs = best[end - len(counts) : end][::-1] + counts * length(lengths[row]) + call
        count = int(costs.argmin()) + 1
        best[end], starts[end - 1] = costs[count - 1], end - count
    groups: list[list[int]] = []
    end = len(order)
    while end:
        groups.append(order[starts[end - 1] : end])
        end = starts[end - 1]
    return groups[::-1]


def outputs_in_groups(
    columns: TokenColumns,
    groups: Sequence[Sequence[int]],
    run: Callable[[list[TokenRow]], np.ndarray],
    done: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """What `run` gives for each row [rows, ...], in their order, asked for a group at a time.

    Of an output for every token those of the first tokens of words, where columns name these, else of all tokens of a
    row (see `stacked`). `done` is told how many rows are ready after each group.
    """
    found: dict[int, np.ndarray] = {}
    for group in groups:
        found.update(zip(group, run(rows_of(columns, group)), strict=True))
        done(len(group))
    tokens = columns[WORDS] if WORDS in columns else [range(len(ids)) for ids in columns["input_ids"]]
    return stacked(found, tokens)


def stacked(found: Mapping[int, np.ndarray], tokens: Sequence[Sequence[Any]]) -> np.ndarray:
    """Outputs by row number as one array [rows, ...].

    Of outputs for every token those of the `tokens` of each row are taken [rows, most of them, ...]; 0 stands where
    such a number is -1, and behind the last one. Where `tokens` are lists of a token for each output, each output is
    taken of its own.
    """
    rows = [found[row] for row in range(len(found))]
    if rows[0].ndim < 2:
        return np.stack(rows)
    array = np.zeros((len(rows), max(map(len, tokens)), *rows[0].shape[1:]), dtype=rows[0].dtype)
    for row, (values, chosen) in enumerate(zip(rows, tokens, strict=True)):
        own = np.asarray(chosen, dtype=np.int64)
        if own.ndim < 2:
            array[row, np.flatnonzero(own >= 0)] = values[own[own >= 0]]
        else:
            place, output = np.nonzero(own >= 0)
            array[row, place, output] = values[own[place, output], output]
    return array


def rows_of(columns: TokenColumns, chosen: Sequence[int]) -> list[TokenRow]:
    """The chosen rows, each with its columns by name."""
    return [{name: values[row] for name, values in columns.items()} for row in chosen]


def _sides(row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two sides of a pair that is read apart."""
    place, inputs = row[SECOND], inputs_of(row)
    return {k: v[:place] for k, v in inputs.items()}, {k: v[place:] for k, v in inputs.items()}


def _padded(rows: Sequence[Sequence[int]], filler: int, length: Callable[[int], int]) -> np.ndarray:
    array = np.full((len(rows), length(max(len(row) for row in rows))), filler, dtype=np.int64)
    for place, row in enumerate(rows):
        array[place, : len(row)] = row
    return array

"""Which texts go together, and in what shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from sparsebert.data.batches import cheapest_groups, outputs_in_groups, rounded_length, rounded_rows

CALL = 16
Round = Callable[[int], int]
LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=8)


def exact(count: int) -> int:
    return count


def cost(groups: Sequence[int], lengths: Sequence[int], rows: Round, length: Round) -> int:
    """Of the sorted lengths in groups of such sizes."""
    total, start = 0, 0
    for size in groups:
        total += CALL + rows(size) * length(lengths[start + size - 1])
        start += size
    return total


def compositions(count: int, largest: int) -> Iterator[tuple[int, ...]]:
    """All ways to cut `count` rows in their order."""
    if count == 0:
        yield ()
    for first in range(1, min(count, largest) + 1):
        for rest in compositions(count - first, largest):
            yield (first, *rest)


@pytest.mark.parametrize(
    ("lengths", "groups"),
    [
        # 16 + 3 x 12 against three calls of 16 more tokens each.
        ([10, 12, 11], [[0, 2, 1]]),
        # 16 + 3 x 10 + 16 + 100 against 16 + 4 x 100.
        ([100, 10, 10, 10], [[1, 2, 3], [0]]),
        # No more than four together.
        ([5, 5, 5, 5, 5], [[0, 1, 2, 3], [4]]),
        ([7], [[0]]),
    ],
)
def test_texts_go_together_where_padding_costs_less_than_a_call(lengths: list[int], groups: list[list[int]]):
    assert cheapest_groups(lengths, 4, CALL) == groups


@pytest.mark.parametrize(("rows", "length"), [(exact, exact), (rounded_rows, rounded_length)])
@hypothesis.given(lengths=LENGTHS, size=st.integers(1, 8))
def test_no_other_cut_is_cheaper(rows: Round, length: Round, lengths: list[int], size: int):
    groups = cheapest_groups(lengths, size, CALL, rows, length)
    in_order = sorted(lengths)
    assert [lengths[row] for group in groups for row in group] == in_order
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    least = min(cost(one, in_order, rows, length) for one in compositions(len(lengths), size))
    assert cost([len(group) for group in groups], in_order, rows, length) == least
    assert all(len(group) <= size for group in groups)


def test_without_texts_there_are_no_groups():
    assert cheapest_groups([], 4, CALL) == []


@hypothesis.given(lengths=LENGTHS)
def test_outputs_come_in_the_order_of_the_texts(lengths: list[int]):
    columns: dict[str, Any] = {"input_ids": [[row] * length for row, length in enumerate(lengths)]}
    ready: list[int] = []
    found = outputs_in_groups(
        columns,
        cheapest_groups(lengths, 3, CALL),
        lambda rows: np.array([[row["input_ids"][0], len(row["input_ids"])] for row in rows]),
        ready.append,
    )
    assert found.tolist() == [[row, length] for row, length in enumerate(lengths)]
    assert sum(ready) == len(lengths) and max(ready) <= 3


def test_few_numbers_of_rows_and_lengths():
    """Six numbers of rows up to 32, twenty lengths up to 256 tokens."""
    rows = {count: rounded_rows(count) for count in range(1, 33)}
    assert sorted(set(rows.values())) == [1, 2, 4, 8, 16, 32]
    assert all(count <= rounded < 2 * count for count, rounded in rows.items())
    lengths = {count: rounded_length(count) for count in range(1, 257)}
    expected = [*range(4, 33, 4), *range(40, 65, 8), *range(80, 129, 16), *range(160, 257, 32)]
    assert sorted(set(lengths.values())) == expected
    assert all(0 <= rounded - count < max(4, count / 4) for count, rounded in lengths.items())

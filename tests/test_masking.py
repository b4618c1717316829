"""Masks of rows: how many, where, what is read there, and that nothing but seed and position decides."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsebert.data.masking import Masking, mask_row
from sparsebert.errors import UserError

MASK, VOCAB = 4, 40
SPECIAL = frozenset({0, 2, 3, MASK, 17, VOCAB - 1})
ORDINARY = [token for token in range(VOCAB) if token not in SPECIAL]
BERT = Masking()
CRAMMED = Masking(0.25, (1.0, 0.0, 0.0))


def mask(ids: np.ndarray, position: int = 0, seed: int = 0, masking: Masking = BERT) -> tuple[np.ndarray, np.ndarray]:
    return mask_row(ids, position, seed, masking, mask_token=MASK, vocab_size=VOCAB, special=SPECIAL)


def row(length: int, seed: int = 0) -> np.ndarray:
    body = np.random.default_rng(seed).choice(ORDINARY, length - 2)
    return np.array([2, *body, 3], np.int64)


@given(
    ids=st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=80),
    rate=st.floats(0.01, 0.99),
    shares=st.sampled_from([(0.8, 0.1, 0.1), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]),
    position=st.integers(0, 2**64 - 1),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_row_keeps_the_rules(
    ids: list[int], rate: float, shares: tuple[float, float, float], position: int, seed: int
) -> None:
    given_ids = np.array(ids, np.int64)
    read, labels = mask(given_ids, position, seed, Masking(rate, shares))
    assert given_ids.tolist() == ids and read.dtype == labels.dtype == np.int64
    ordinary = [token for token in ids if token not in SPECIAL]
    predicted = labels != -100
    assert predicted.sum() == (max(1, round(rate * len(ordinary))) if ordinary else 0)
    assert (labels[predicted] == given_ids[predicted]).all()
    assert not set(labels[predicted].tolist()) & SPECIAL
    assert (read[~predicted] == given_ids[~predicted]).all()
    assert set(read[predicted].tolist()) <= {MASK, *ORDINARY}
    if shares[0] == 1:
        assert (read[predicted] == MASK).all()
    if shares[1] == 1:
        assert (read[predicted] != MASK).all()
    if shares[2] == 1:
        assert (read == given_ids).all()


def test_the_number_of_predicted_tokens_is_exact() -> None:
    # 126 ordinary tokens: 0.15 of them are 18.9, a quarter 31.5, which is rounded to the even 32.
    assert (mask(row(128))[1] != -100).sum() == 19
    assert (mask(row(128), masking=CRAMMED)[1] != -100).sum() == 32
    assert (mask(row(4))[1] != -100).sum() == 1


def test_shares_are_within_four_deviations_over_many_rows() -> None:
    kinds = np.zeros(3)
    for position in range(1500):
        ids = np.full(102, 30, np.int64)
        ids[[0, -1]] = 2, 3
        read, labels = mask(ids, position)
        found = read[labels != -100]
        kinds += ((found == MASK).sum(), ((found != MASK) & (found != 30)).sum(), (found == 30).sum())
    total = kinds.sum()
    assert total == 1500 * 15
    # Of random tokens one in 34 ordinary ones is the token itself.
    same = 0.1 / len(ORDINARY)
    for count, share in zip(kinds, (0.8, 0.1 - same, 0.1 + same), strict=True):
        assert abs(count - share * total) < 4 * math.sqrt(share * (1 - share) * total)


def test_every_place_and_every_ordinary_token_is_drawn_alike() -> None:
    rows, places, tokens = 4000, np.zeros(22), np.zeros(VOCAB)
    swap = Masking(0.5, (0.0, 1.0, 0.0))
    for position in range(rows):
        read, labels = mask(row(22), position, masking=swap)
        places += labels != -100
        np.add.at(tokens, read[labels != -100], 1)
    assert places[[0, -1]].tolist() == [0, 0]
    assert np.abs(places[1:-1] - rows / 2).max() < 4.5 * math.sqrt(rows / 4)
    assert tokens[sorted(SPECIAL)].sum() == 0
    expected = rows * 10 / len(ORDINARY)
    assert np.abs(tokens[ORDINARY] - expected).max() < 4.5 * math.sqrt(expected)


def test_seed_and_position_alone_decide() -> None:
    ids = row(128)
    places = [tuple(np.flatnonzero(mask(ids, *pair)[1] != -100)) for pair in ((5, 7), (5, 7), (7, 5), (5, 8), (6, 7))]
    assert places[0] == places[1]
    assert len(set(places)) == 4
    # The text of a row changes what is read, not where.
    assert tuple(np.flatnonzero(mask(row(128, seed=1), 5, 7)[1] != -100)) == places[0]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rate": 0.0}, "above 0 and below 1"),
        ({"rate": 1.0}, "above 0 and below 1"),
        ({"rate": math.nan}, "above 0 and below 1"),
        ({"replace": (0.8, 0.1, 0.2)}, "whose sum is 1"),
        ({"replace": (1.2, -0.1, -0.1)}, "at least 0"),
        ({"replace": (0.5, 0.5)}, "three shares"),
        ({"replace": (math.nan, 0.5, 0.5)}, "at least 0"),
    ],
)
def test_shares_that_are_none(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Masking(**wrong)

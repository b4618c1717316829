"""Which tokens of a row a masked language model predicts, and what it reads in their places."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sparsebert.errors import UserError
from sparsebert.tasks.kind import IGNORED


@dataclass(frozen=True)
class Masking:
    """The share of tokens that are predicted, and the shares of these read as [MASK], a random token, and unchanged.

    The values here are BERT's (Devlin et al. 2019, arXiv:1810.04805, section 3.1). Crammed BERT has a rate of 0.25 and
    replaces by (1, 0, 0) (Geiping & Goldstein 2022, arXiv:2212.14034). Raises UserError for what are no shares.
    """

    rate: float = 0.15
    replace: tuple[float, float, float] = (0.8, 0.1, 0.1)

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise UserError("The share of masked tokens does not fit", got=self.rate, allowed="above 0 and below 1")
        if len(self.replace) != 3 or not all(share >= 0 for share in self.replace):
            allowed = "three shares of at least 0: mask, random token, unchanged"
            raise UserError("Shares of replaced tokens do not fit", got=self.replace, allowed=allowed)
        if not math.isclose(sum(self.replace), 1, abs_tol=1e-6):
            raise UserError("Shares of replaced tokens do not fit", got=self.replace, allowed="three whose sum is 1")


def mask_row(
    ids: np.ndarray,
    position: int,
    seed: int,
    masking: Masking,
    *,
    mask_token: int,
    vocab_size: int,
    special: frozenset[int],
) -> tuple[np.ndarray, np.ndarray]:
    """What the model reads and what it is to predict, for one row of token ids int64 [length]; both are like it.

    Of the tokens that are not `special`, round(rate * their number) are predicted (halves to even), at least one if
    there is any; labels elsewhere are `IGNORED`. What replaces a token is drawn for each by itself, and a random token
    is any of the vocabulary but the special ones, its own among them. Nothing decides the draw but `seed` and
    `position`, both of 64 bits and not negative: the place of the row in the order of training, so that every epoch
    masks anew.
    """
    ordinary = np.ones(len(ids), bool)
    for token in special:
        ordinary &= ids != token
    maskable = np.flatnonzero(ordinary)
    read, labels = ids.copy(), np.full_like(ids, IGNORED)
    if not len(maskable):
        return read, labels
    # A counter-based generator is made in microseconds for any pair of numbers, without a sequence before it.
    draw = np.random.Generator(np.random.Philox(key=np.array([seed, position], np.uint64)))
    count = max(1, round(masking.rate * len(maskable)))
    chosen = draw.choice(maskable, count, replace=False)
    labels[chosen] = ids[chosen]
    masked, swapped, _ = masking.replace
    fate = draw.random(count)
    other = _ordinary(draw, count, vocab_size, special)
    read[chosen] = np.where(fate < masked, mask_token, np.where(fate < masked + swapped, other, ids[chosen]))
    return read, labels


def _ordinary(draw: np.random.Generator, count: int, vocab_size: int, special: frozenset[int]) -> np.ndarray:
    """Token ids int64 [count], each of the ordinary ones as likely as the others."""
    inner = sorted(token for token in special if 0 <= token < vocab_size)
    drawn = draw.integers(vocab_size - len(inner), size=count)
    # The n-th ordinary token lies behind every special one that is not above it.
    for token in inner:
        drawn += drawn >= token
    return drawn

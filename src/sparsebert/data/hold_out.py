"""Rows that are held out of the train rows: of every stratum a like share, and no text on both sides."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset

from sparsebert.errors import UserError
from sparsebert.tasks.kind import TaskKind

HELD_OUT_SPLIT = "held_out"
HELD_OUT = 0.1
"""Fraction of the rows that validates where the user gives no validation file."""
WHOLE = "whole"
"""Column of rows that are parts of texts: the number of the whole text."""


def hold_out(rows: Dataset, seed: int, kind: TaskKind, share: float = HELD_OUT) -> tuple[Dataset, Dataset]:
    """The rows that stay, and those that `held_rows` names; order within the two parts is kept."""
    held = held_rows(rows, seed, kind, share)
    parts = (np.flatnonzero(~held), np.flatnonzero(held))
    train, validation = (Dataset.from_dict(rows[part.tolist()]) for part in parts)
    return train, validation


def held_rows(rows: Dataset, seed: int, kind: TaskKind, share: float = HELD_OUT) -> np.ndarray:
    """Which rows to hold out [rows], about `share` (0-1) of each of the kind's strata.

    Rows of equal texts, of some kinds of one equal text, and all parts of one text stay together, and count for the
    stratum of the first of them. A stratum with one text stays in train; of any other at least one text is held out.
    Raises UserError if nothing can be held out.
    """
    # Labels of words are lists of many lengths.
    by_text = kind.labelled and not kind.by_word
    strata = kind.strata(np.array(rows["label" if by_text else "text_a"][:]))
    first: dict[tuple[Any, ...], int] = {}
    texts = _staying_together(rows, kind)
    leader = np.array([first.setdefault(text, row) for row, text in enumerate(texts)])
    copies = np.bincount(leader)
    leaders = np.flatnonzero(copies)
    generator = np.random.default_rng(seed)
    chosen: list[int] = []
    for stratum in np.unique(strata):
        chosen += _choose(generator.permutation(leaders[strata[leaders] == stratum]), copies, share)
    if not chosen:
        raise UserError(
            "Too few different texts to hold some out", got=len(leaders), fix="add a file of validation rows"
        )
    return np.isin(leader, chosen)


def row_texts(rows: Dataset) -> list[tuple[str, ...]]:
    """The one or two texts of each row."""
    sides = [rows[name][:] for name in ("text_a", "text_b") if name in rows.column_names]
    return list(zip(*sides, strict=True))


def _staying_together(rows: Dataset, kind: TaskKind) -> list[tuple[Any, ...]]:
    """What is equal in rows that stay together."""
    if WHOLE in rows.column_names:
        return [(number,) for number in rows[WHOLE][:]]
    return [text if kind.together is None else (text[kind.together],) for text in row_texts(rows)]


def _choose(order: np.ndarray, copies: np.ndarray, share: float) -> list[int]:
    """Texts of `order` that together have `share` of its rows, or a little less; one at least, unless it is alone."""
    if len(order) < 2:
        return []
    room = max(round(share * int(copies[order].sum())), 1)
    chosen: list[int] = []
    for text in order.tolist():
        if copies[text] <= room:
            chosen.append(text)
            room -= copies[text]
    return chosen or [min(order.tolist(), key=lambda text: copies[text])]

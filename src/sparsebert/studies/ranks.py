"""Rank correlation, where there is one."""

from __future__ import annotations

import numpy as np


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's of two lists of numbers, -1 to 1; equal ones share their mean rank. None as `correlation` has it."""
    from scipy.stats import rankdata

    return correlation(rankdata(first), rankdata(second))


def correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Pearson's; None of fewer than two numbers, and where a side is constant."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])

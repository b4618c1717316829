"""Where a curve bends: least squares of a level, a straight way, and a second level, with the interval of the bend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PARAMETERS = 4
"""Of the three pieces: both levels and both bends."""
FEWEST_POINTS = PARAMETERS + 2
STEPS = 200
"""Places between the first point and the last one where a bend is looked for."""
_PART = 0.95


@dataclass(frozen=True)
class BrokenStick:
    """Level `before` up to `start`, straight to `after` at `end`, and level from there.

    `low` and `high` are of `start`: the interval holds every start whose best fit is no worse than F allows at 95 %
    (Seber & Wild 2003, section 5.10, profile of one parameter); independent errors of one variance are assumed.
    """

    start: float
    low: float
    high: float
    end: float
    before: float
    after: float

    def at(self, x: Sequence[float]) -> tuple[float, ...]:
        """Heights of the stick."""
        return tuple(np.interp(x, [self.start, self.end], [self.before, self.after]).tolist())


def broken_stick(x: Sequence[float], y: Sequence[float]) -> BrokenStick | None:
    """The fit of points in the order of `x`; None for fewer than six, and where all heights are equal."""
    places, heights = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(places) < FEWEST_POINTS or np.ptp(heights) == 0:
        return None
    grid = np.linspace(places[0], places[-1], STEPS + 1)
    fits = [_best_end(places, heights, grid, place) for place in range(STEPS)]
    errors = np.array([error for error, *_ in fits])
    best = int(errors.argmin())
    _, end, before, after = fits[best]
    inside = np.flatnonzero(errors <= _bearable(float(errors[best]), len(places)))
    return BrokenStick(
        float(grid[best]), float(grid[inside[0]]), float(grid[inside[-1]]), end, float(before), float(after)
    )


def _best_end(
    places: np.ndarray, heights: np.ndarray, grid: np.ndarray, start: int
) -> tuple[float, float, float, float]:
    """Of a start on the grid: the least squared error over all ends behind it, that end, and the two levels."""
    ends = grid[start + 1 :, None]
    # [ends, points]: how far each point is on the way from one level to the other.
    way = np.clip((places - grid[start]) / (ends - grid[start]), 0.0, 1.0)
    mean = way.mean(axis=1, keepdims=True)
    spread = ((way - mean) ** 2).sum(axis=1)
    slope = np.divide(
        ((way - mean) * (heights - heights.mean())).sum(axis=1), spread, out=np.zeros_like(spread), where=spread > 0
    )
    before = heights.mean() - slope * mean[:, 0]
    errors = ((heights - before[:, None] - slope[:, None] * way) ** 2).sum(axis=1)
    best = int(errors.argmin())
    return float(errors[best]), float(ends[best, 0]), float(before[best]), float(before[best] + slope[best])


def _bearable(least: float, points: int) -> float:
    """The largest squared error of a start inside the interval."""
    from scipy.stats import f

    freedom = points - PARAMETERS
    # A fit without error has an interval of its own start alone, but for what rounding leaves.
    return least * (1 + float(f.ppf(_PART, 1, freedom)) / freedom) + 1e-15

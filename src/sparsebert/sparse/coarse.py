"""A mask as a coarse picture. Plain numpy: what reads records draws by it too."""

from __future__ import annotations

import numpy as np


def coarse(zero: np.ndarray, most: int) -> np.ndarray:
    """The share of True in cells of a matrix [rows, columns], at most so many each way, of about the same size.

    No cell is left out, and none counts a weight twice; a matrix with fewer rows or columns has one cell for each.
    """
    rows, columns = (_edges(count, most) for count in zero.shape)
    sums = np.add.reduceat(np.add.reduceat(zero.astype(np.int64), rows, axis=0), columns, axis=1)
    heights, widths = (
        np.diff(np.append(edges, count)) for edges, count in zip((rows, columns), zero.shape, strict=True)
    )
    return sums / np.outer(heights, widths)


def _edges(count: int, most: int) -> np.ndarray:
    """Where cells begin."""
    cells = min(most, count)
    return np.arange(cells) * count // cells

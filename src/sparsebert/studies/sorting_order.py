"""How far weights move in the order of their magnitudes, from one checkpoint to others such as fine-tuned ones.

Gordon et al. 2020, arXiv:2002.08307, table 2 and figures 4 and 6.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparsebert.reports.charts import ChartLine, LinePanel, Panel, StudyChart, written
from sparsebert.reports.study import StudyColumn, StudyResult, StudyRow
from sparsebert.studies.ranks import correlation
from sparsebert.studies.study import CheckpointStudy
from sparsebert.studies.weights import EncoderWeights, MatrixName, check_comparable, layer_panel

if TYPE_CHECKING:
    from sparsebert.studies.checkpoints import AskedCheckpoints

QUESTION = "How far do weights move in the order of their magnitudes?"
DEFINITION = (
    "Movement of a weight: |rank after - rank before| / n, its ranks among the n magnitudes of its own matrix in the "
    "first checkpoint and in the other; equal magnitudes share their mean rank. A weight that was 59th of 100 and is "
    "63rd has moved 4%. In an order that is shuffled at random the mean is 33.3% and the standard deviation 23.6%. "
    "Tenths are of the magnitudes in the first checkpoint, in each matrix. Rank correlation: Spearman's, of magnitudes."
)
TENTHS = 10
# Of the histograms that quartiles are read from: they are exact to a twentieth of a percent.
_BINS = 2000
_MOST_PANELS = 5
_COLUMNS = (
    StudyColumn("weights_of", "Weights of"),
    StudyColumn("weights", "Weights", form="count"),
    StudyColumn("mean_movement", "Movement", "mean; quartiles", "percent"),
    StudyColumn("low_quartile", "Quartile", "", "percent", True),
    StudyColumn("high_quartile", "Quartile", "", "percent", True),
    StudyColumn("sd_movement", "Movement", "sd", "percent"),
    StudyColumn("rank_correlation", "Rank corr.", form="correlation"),
)


@dataclass(frozen=True)
class RankMovement:
    """Sums over weights: how many, of movements, of their squares, and a histogram of them over 0 to 1 [_BINS]."""

    count: int
    total: float
    squares: float
    histogram: np.ndarray

    @classmethod
    def of(cls, moved: np.ndarray) -> RankMovement:
        """Of the movements of some weights, 0-1."""
        return cls(
            moved.size,
            float(moved.sum()),
            float(np.square(moved).sum()),
            np.histogram(moved, bins=_BINS, range=(0, 1))[0],
        )

    @classmethod
    def of_all(cls, parts: Iterable[RankMovement]) -> RankMovement:
        """Of all weights of several parts."""
        kept = list(parts)
        return cls(
            sum(one.count for one in kept),
            sum(one.total for one in kept),
            sum(one.squares for one in kept),
            np.sum([one.histogram for one in kept], axis=0),
        )

    @property
    def mean(self) -> float | None:
        """The mean movement; None of no weights."""
        return self.total / self.count if self.count else None

    @property
    def sd(self) -> float | None:
        """The standard deviation over weights."""
        if not self.count:
            return None
        return max(0.0, self.squares / self.count - (self.total / self.count) ** 2) ** 0.5

    def quantile(self, level: float) -> float | None:
        """The upper end of the histogram's bin in which a part of `level` of the weights is reached."""
        if not self.count:
            return None
        reached = int(np.searchsorted(np.cumsum(self.histogram), level * self.count))
        # In the first bin are those that have not moved, too.
        return 0.0 if reached == 0 else (reached + 1) / _BINS


@dataclass(frozen=True)
class MatrixMovement:
    """One matrix: the movement of the weights of each tenth of magnitudes, smallest first, and Spearman's rank corr."""

    tenths: tuple[RankMovement, ...]
    correlation: float | None

    @property
    def whole(self) -> RankMovement:
        """Of all weights."""
        return RankMovement.of_all(self.tenths)


def movement(before: np.ndarray, after: np.ndarray) -> MatrixMovement:
    """Of the weights of one matrix in two checkpoints."""
    from scipy.stats import rankdata

    ranks = [rankdata(np.abs(values).ravel()) for values in (before, after)]
    count = len(ranks[0])
    moved = np.abs(ranks[1] - ranks[0]) / count
    tenth = np.minimum((ranks[0] - 0.5) * TENTHS / count, TENTHS - 1).astype(int)
    tenths = tuple(RankMovement.of(moved[tenth == place]) for place in range(TENTHS))
    return MatrixMovement(tenths, correlation(*ranks))


def sorting_order(weights: Sequence[EncoderWeights]) -> StudyResult:
    """From the first checkpoint to each of the others. Raises UserError for other architectures."""
    check_comparable(weights)
    first, *others = weights
    found = {
        other.name: {
            name: movement(values, other.matrices[name]) for name, values in first.matrices.items() if values.size
        }
        for other in others
    }
    headings = {name: f"{first.name} to {name}" for name in found}
    rows = [StudyRow(headings[name], values) for name, parts in found.items() for values in _rows(parts)]
    zeros = max(float(np.mean(values == 0)) for one in weights for values in one.matrices.values() if values.size)
    tied = f"Up to {written(zeros, 'percent')} of a matrix is zero, and zeros share one rank."
    return StudyResult(
        "sorting-order",
        QUESTION,
        _sentence({headings[name]: parts for name, parts in found.items()}),
        DEFINITION,
        tuple(one.name for one in weights),
        _COLUMNS,
        tuple(rows),
        _chart({headings[name]: parts for name, parts in found.items()}),
        heading="change",
        notes=(tied,) if zeros > 0.01 else (),
    )


Matrices = dict[MatrixName, MatrixMovement]


def _rows(parts: Matrices) -> list[tuple[str | float | int | None, ...]]:
    rows = [("all", *_numbers(_whole(parts)), None)]
    for place, name in enumerate(_tenth_names()):
        rows.append((name, *_numbers(_tenth(parts, place)), None))
    return rows + [(name.label, *_numbers(one.whole), one.correlation) for name, one in parts.items()]


def _numbers(one: RankMovement) -> tuple[int, float | None, float | None, float | None, float | None]:
    return one.count, one.mean, one.quantile(0.25), one.quantile(0.75), one.sd


def _whole(parts: Matrices) -> RankMovement:
    return RankMovement.of_all(one.whole for one in parts.values())


def _tenth(parts: Matrices, place: int) -> RankMovement:
    return RankMovement.of_all(one.tenths[place] for one in parts.values())


def _tenth_names() -> list[str]:
    step = 100 // TENTHS
    names = [f"tenth {place + 1}: {place * step}-{(place + 1) * step}%" for place in range(TENTHS)]
    return [f"{names[0]}, smallest", *names[1:-1], f"{names[-1]}, largest"]


def _chart(found: dict[str, Matrices]) -> StudyChart:
    x = tuple(float(100 / TENTHS * (place + 0.5)) for place in range(TENTHS))
    lines = []
    for name, parts in found.items():
        tenths = [_tenth(parts, place) for place in range(TENTHS)]
        low, high = (tuple(_percent(one.quantile(level)) for one in tenths) for level in (0.25, 0.75))
        lines.append(ChartLine(name, x, tuple(_percent(one.mean) for one in tenths), low, high))
    title = "Movement by magnitude: mean and quartiles"
    panels: list[Panel] = [LinePanel(title, "Place in the order before, %", "Movement, %", tuple(lines))]
    for name, parts in list(found.items())[:_MOST_PANELS]:
        means = {place: one.whole.mean for place, one in parts.items()}
        panels.append(layer_panel(f"Mean movement, {name}", means, "percent", low=0.0))
    return StudyChart(tuple(panels))


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _sentence(found: dict[str, Matrices]) -> str:
    """Of the change that moves most."""
    name = max(found, key=lambda one: (_whole(found[one]).mean or 0.0, one))
    parts = found[name]
    whole, least, most = _whole(parts), _tenth(parts, 0), _tenth(parts, TENTHS - 1)
    # Weights that are equal, as zeros are, share a place in the middle of theirs, and the smallest tenth may be empty.
    smallest = "" if least.mean is None else f"one of the smallest tenth {written(least.mean, 'percent')} and "
    return (
        f"{name}: a weight moves {written(whole.mean, 'percent')} of its matrix on average (sd "
        f"{written(whole.sd, 'percent')}; a random order 33.3%), {smallest}one of the largest tenth "
        f"{written(most.mean, 'percent')}."
    )


def _ask(asked: AskedCheckpoints) -> StudyResult:
    return sorting_order(asked.weights())


SORTING_ORDER = CheckpointStudy(
    "how far weights move in the order of their magnitudes, from the first checkpoint to the others", _ask, fewest=2
)

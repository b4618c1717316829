"""Where a network begins to lose as parts of it are removed without retraining: a broken stick through each curve.

Of the runs of `prune-curve`; after Oscanoa, "Improving BERT computational efficiency" (Stanford CS224N), figures 2-4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from sparsebert.errors import UserError
from sparsebert.records import PruneCurve, PruneStudy, Record, WeightHistogram
from sparsebert.reports.charts import ChartLine, ChartRange, LinePanel, Panel, RangePanel, StudyChart, written
from sparsebert.reports.prune_curve import curve_label
from sparsebert.reports.study import StudyColumn, StudyResult, StudyRow
from sparsebert.reports.tables import metric_name
from sparsebert.studies.broken_stick import FEWEST_POINTS, BrokenStick, broken_stick
from sparsebert.studies.study import RecordStudy

if TYPE_CHECKING:
    from sparsebert.studies.records import AskedRecords

QUESTION = "Where does the score begin to drop?"
DEFINITION = (
    "A level, a straight way down and a second level are laid through the points of a curve by least squares. The drop "
    "begins where the first level ends, in percent of the single weights in scope or of the layers; what the score "
    "loses before that, little by little, is part of the level. Small: its 95 % interval by the profile of the squared "
    "error and the quantile of F, which takes the errors of points for independent. Before and after are the two "
    "levels, in points (0-100). Size of weights: the largest magnitude among those that are gone there, read from the "
    "run's histogram of the encoder's weights; removal by magnitude only."
)
_COLUMNS = (
    StudyColumn("removed", "Removed"),
    StudyColumn("split", "Split"),
    StudyColumn("metric", "Metric"),
    StudyColumn("points", "Points", form="count"),
    StudyColumn("start", "Drop begins at", form="percent"),
    StudyColumn("start_low", "low", form="percent", beside=True),
    StudyColumn("start_high", "high", form="percent", beside=True),
    StudyColumn("end", "and ends at", form="percent"),
    StudyColumn("before", "Before"),
    StudyColumn("after", "After"),
    StudyColumn("weight", "Size of weights", "largest gone there"),
)


@dataclass(frozen=True)
class FittedCurve:
    """A curve's scores on one split, in points (0-100) over the part removed (0-1), and the stick through them."""

    run: str
    curve: PruneCurve
    split: str
    metric: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    stick: BrokenStick
    weight: float | None

    @property
    def label(self) -> str:
        """What is removed."""
        return curve_label(self.curve)

    @property
    def row(self) -> StudyRow:
        """Of the table."""
        one = self.stick
        where = (one.start, one.low, one.high, one.end, one.before, one.after)
        return StudyRow(self.run, (self.label, self.split, metric_name(self.metric), len(self.x), *where, self.weight))


def drop_start(records: Mapping[str, Record]) -> StudyResult:
    """Of every curve of the runs, on each split. Raises UserError for a run without curves, or with too few points."""
    found = [one for name, record in records.items() for one in _of_run(name, record)]
    return StudyResult(
        "drop-start",
        QUESTION,
        _sentence(found),
        DEFINITION,
        tuple(records),
        _COLUMNS,
        tuple(one.row for one in found),
        StudyChart(tuple(_panels(found))),
        heading="run",
    )


def size_below(histograms: tuple[WeightHistogram, ...], part: float) -> float | None:
    """The magnitude below which that part of all weights lies, zeros first; None beyond the reach of the bins."""
    if not histograms:
        return None
    edges = np.unique(np.concatenate([np.linspace(0, one.reach, len(one.sizes) + 1) for one in histograms]))
    counts = np.zeros(len(edges))
    for one in histograms:
        own = np.linspace(0, one.reach, len(one.sizes) + 1)
        counts += np.interp(edges, own, one.zeros + np.concatenate([[0], np.cumsum(one.sizes)]))
    total = sum(sum(one.counts) + one.below + one.above + one.zeros for one in histograms)
    if part * total > counts[-1] or part * total < counts[0]:
        return None
    return float(np.interp(part * total, counts, edges))


def _of_run(name: str, record: Record) -> list[FittedCurve]:
    study = next((model.prune_study for model in record.models if model.prune_study is not None), None)
    if study is None or record.main_metric is None:
        raise UserError("The study drop-start asks about runs of prune-curve", got=name)
    found = [one for curve in study.curves for one in _of_curve(name, record.main_metric, study, curve)]
    if not found:
        raise UserError(f"No curve of the run has {FEWEST_POINTS} points with different scores", got=name)
    return found


def _of_curve(name: str, metric: str, study: PruneStudy, curve: PruneCurve) -> Iterator[FittedCurve]:
    layers = max(len(curve.ranking), 1)
    for split in dict.fromkeys(score.split for score in curve.points[0].scores):
        scored = [
            (point.removed / (1 if point.asked is not None else layers), point.score(metric, split))
            for point in curve.points
        ]
        pairs = [(x, 100 * score.value) for x, score in scored if score is not None]
        x, y = tuple(one for one, _ in pairs), tuple(one for _, one in pairs)
        stick = broken_stick(x, y)
        if stick is None:
            continue
        by_size = curve.name == "unstructured-l1"
        weight = size_below(study.weights, stick.start) if by_size else None
        yield FittedCurve(name, curve, split, metric, x, y, stick, weight)


def _panels(found: list[FittedCurve]) -> Iterator[Panel]:
    """Of each way to remove: where the drop begins by run, and the curves; of one run with its stick."""
    for label in dict.fromkeys(one.label for one in found):
        own = [one for one in found if one.label == label]
        ranges = tuple(
            ChartRange(f"{one.run}, {one.split}", 100 * one.stick.start, 100 * one.stick.low, 100 * one.stick.high)
            for one in own
        )
        yield RangePanel(f"{label}: where the drop begins", "Removed, %", ranges)
        lines = [ChartLine(f"{one.run}, {one.split}", tuple(100 * x for x in one.x), one.y) for one in own]
        if len({one.run for one in own}) == 1:
            lines += map(_fit, own)
        yield LinePanel(f"{label}: scores", "Removed, %", metric_name(own[0].metric), tuple(lines))


def _fit(one: FittedCurve) -> ChartLine:
    x = sorted({*one.x, one.stick.start, one.stick.end})
    return ChartLine(f"fit, {one.split}", tuple(100 * place for place in x), one.stick.at(x), reference=True)


def _sentence(found: list[FittedCurve]) -> str:
    """Of the first way to remove, on the split that decides: one run's interval, or the range of several."""
    first = next((one for one in found if one.split != "train"), found[0])
    own = [one.stick for one in found if (one.label, one.split) == (first.label, first.split)]
    starts = sorted(one.start for one in own)
    if len(own) == 1:
        low, high = own[0].low, own[0].high
        spread = f"95% interval {written(low, 'percent')} to {written(high, 'percent')}"
    else:
        spread = f"median of {len(own)} runs, {written(starts[0], 'percent')} to {written(starts[-1], 'percent')}"
    start = written(median(starts), "percent")
    return f"Of {first.label}, the {first.split} score begins to drop at {start} ({spread})."


def _ask(asked: AskedRecords) -> StudyResult:
    return drop_start(asked.records)


DROP_START = RecordStudy("where the score of a pruned network begins to drop", _ask)

"""Prune curves: score against sparsity of one network from which more and more is removed, and where it begins to lose.

Networks of one kind, fine-tuned with several seeds, are shown as medians with their spread.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sparsebert.records import TRAIN, PruneCurve, PrunePoint, PruneStudy, Record, Timing
from sparsebert.reports import values as v
from sparsebert.reports.families import short_name
from sparsebert.reports.rows import score_in_points

_NAMES = {
    "unstructured-l1": "single weights by |w|",
    "unstructured-loss": "single weights by |w dL/dw|",
    "layers-l1": "layers by mean |w|",
    "layers-loss": "layers by rise of the loss",
}
# Recipe keys that tell networks of one kind apart, and not what was done with them.
_APART = ("seed", "model", "data_seed")


@dataclass(frozen=True)
class PrunedNetworks:
    """Runs of one recipe on networks of one kind, which differ in the seed that trained them."""

    label: str
    records: tuple[Record, ...]

    @property
    def studies(self) -> list[PruneStudy]:
        """Of each network."""
        return [study for record in self.records if (study := record.models[0].prune_study) is not None]

    @property
    def within(self) -> float:
        """Points that count as no drop."""
        return self.studies[0].within

    @property
    def dev(self) -> list[tuple[str, str]]:
        """Metrics on the validation split that decides, each with its name; the main metric first."""
        scores = self.studies[0].curves[0].points[0].scores
        split = next(one.split for one in scores if one.split != TRAIN)
        return [(one.metric, split) for one in scores if one.split == split]

    @property
    def panels(self) -> list[tuple[str, str]]:
        """The same, and then the same metrics on the train rows."""
        return [*self.dev, *((metric, TRAIN) for metric, _ in self.dev)]


@dataclass(frozen=True)
class PrunedLine:
    """One way to remove, over all networks: for each of the points what every network has there."""

    label: str
    curves: tuple[PruneCurve, ...]

    @property
    def points(self) -> list[tuple[PrunePoint, ...]]:
        """The points of all networks at each step."""
        return list(zip(*(curve.points for curve in self.curves), strict=True))


def prune_groups(records: Iterable[Record]) -> list[PrunedNetworks]:
    """The finished prune curves, those of networks of one kind together."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.status == "finished" and record.models and record.models[0].prune_study is not None:
            groups.setdefault(_identity(record), []).append(record)
    labels = [_label(group[0]) for group in groups.values()]
    numbered = [f"{one} ({place})" if labels.count(one) > 1 else one for place, one in enumerate(labels, 1)]
    return [PrunedNetworks(label, tuple(group)) for label, group in zip(numbered, groups.values(), strict=True)]


def prune_lines(group: PrunedNetworks) -> list[PrunedLine]:
    """One line a curve, in the order of the recipe."""
    by_place = zip(*(study.curves for study in group.studies), strict=True)
    return [PrunedLine(curve_label(curves[0]), curves) for curves in by_place]


def curve_label(curve: PruneCurve) -> str:
    """What is removed, and by what it is ranked."""
    return _NAMES[curve.name] + (", ranked anew" if curve.greedy else "")


def whole_sparsity(points: Sequence[PrunePoint]) -> v.Value | None:
    """Of the whole network, 0-1."""
    return v.over_runs(v.Value(point.sparsity.whole_model) for point in points)


def score_at(points: Sequence[PrunePoint], metric: str, split: str) -> v.Value | None:
    """In points (0-100): with its interval of one network, median and range of several; None without a value."""
    found = (point.score(metric, split) for point in points)
    return v.over_runs(score_in_points(one) for one in found if one is not None)


def model_times(points: Sequence[PrunePoint]) -> list[Timing]:
    """The whole model's time at each point, in the first setting and runtime; of points that were timed."""
    found = (next((time for time in point.timings if time.scope == "model"), None) for point in points)
    return [time for time in found if time is not None]


def speedup_at(points: Sequence[PrunePoint]) -> v.Value | None:
    """Over the whole network in the same rounds; of that itself 1, without a spread. None where it was not timed."""
    times = model_times(points)
    if times and all(time.speedup is None for time in times):
        return v.Value(1.0)
    ratios = [(time.speedup, time.speedup_low, time.speedup_high) for time in times]
    return v.over_runs(v.Value(mid, low, high) for mid, low, high in ratios if mid is not None)


def held_until(curve: PruneCurve, within: float, metric: str, split: str) -> PrunePoint | None:
    """The last point before the first that scores more than `within` points below the whole network."""
    held = None
    for point, near in _near(curve, within, metric, split):
        if not near:
            break
        held = point
    return held


def last_within(curve: PruneCurve, within: float, metric: str, split: str) -> PrunePoint | None:
    """The last of all points that scores at most `within` points below the whole network."""
    return next((point for point, near in reversed(list(_near(curve, within, metric, split))) if near), None)


def _near(curve: PruneCurve, within: float, metric: str, split: str) -> Iterator[tuple[PrunePoint, bool]]:
    """A point without a value, as a correlation with a constant, is not near."""
    whole = curve.points[0].score(metric, split)
    for point in curve.points:
        score = point.score(metric, split)
        # Rounding must not refuse a drop of just what was asked for.
        yield point, whole is not None and score is not None and 100 * (whole.value - score.value) <= within + 1e-9


def _identity(record: Record) -> str:
    """Equal for the same recipe on networks of one shape and size, fine-tuned on the same data."""
    recipe = {key: value for key, value in record.recipe.items() if key not in _APART}
    whole = record.models[0]
    shape = whole.shape.model_dump(include={"heads", "neurons", "full_heads", "full_neurons"})
    data = record.inputs and record.inputs.model_dump(mode="json", include={"labels"})
    of_model = [shape, whole.size.parameters, round(whole.sparsity.encoder_linear, 3)]
    return json.dumps([record.task, recipe, of_model, data, record.environment.cpu], sort_keys=True)


def _label(record: Record) -> str:
    named = record.recipe.get("name")
    return str(named) if named else f"{short_name(str(record.recipe['model']))} on {record.task}"

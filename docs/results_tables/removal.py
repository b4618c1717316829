"""Tables of the study on removal without retraining (CS224N)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from results_tables.values import percent, records, signed, spread, table
from sparsebert.records import TRAIN, PruneCurve, PrunePoint

STUDY = "cs224n-removal"
MAIN = {"sts": "pearson", "sst5": "accuracy", "quora": "accuracy"}
Curves = Mapping[int, PruneCurve]


def curve(task: str, method: str) -> str:
    """The main metric on dev and train rows at every point, over the seeds, and by how much dev changes with each."""
    own, metric = _curves(task, method), MAIN[task]
    lines = []
    for place, point in enumerate(next(iter(own.values())).points):
        points = {seed: one.points[place] for seed, one in own.items()}
        changes = [_dev(points[seed], metric) - _dev(own[seed].points[0], metric) for seed in own]
        lines.append(
            [
                percent(point.removed) if method == "unstructured" else f"{point.removed:.0f}",
                percent(statistics.median(one.sparsity.whole_model for one in points.values())),
                spread([_dev(one, metric) for one in points.values()]),
                ", ".join(map(signed, changes)) if place else "",
                spread([_of(one, metric, TRAIN) for one in points.values()]),
            ]
        )
    removed = "encoder weights removed" if method == "unstructured" else "layers skipped"
    scores = f"{metric}: median (min–max), n = {len(own)} {'seed' if len(own) == 1 else 'seeds'}"
    return table([removed, "of the whole network", f"dev {scores}", "change on dev, by seed", "train, the same"], lines)


def best_points() -> str:
    """For every task and method, the highest median on dev of all points with something removed."""
    lines = []
    for task, metric in MAIN.items():
        for method in ("unstructured", "layers"):
            own = _curves(task, method)
            if not own:
                continue
            whole = [_dev(one.points[0], metric) for one in own.values()]
            place = max(range(1, _points(own)), key=lambda at: _median(own, at, metric))
            points = [one.points[place] for one in own.values()]
            changes = [_dev(point, metric) - before for point, before in zip(points, whole, strict=True)]
            what = percent(points[0].removed) if method == "unstructured" else f"{points[0].removed:.0f} of 6"
            lines.append(
                [
                    f"{task}, {metric}",
                    "single weights" if method == "unstructured" else "layers",
                    spread(whole),
                    what,
                    spread([_dev(point, metric) for point in points]),
                    ", ".join(map(signed, changes)),
                ]
            )
    header = ["task", "removed", "whole network: median (min–max)", "best point", "there", "change, by seed"]
    return table(header, lines)


def _curves(task: str, method: str) -> Curves:
    """By seed."""
    found: dict[int, PruneCurve] = {}
    for name, record in records(STUDY, "curves").items():
        study = record.models[0].prune_study
        if name.startswith(f"{task}-") and study is not None:
            found[record.seed] = next(one for one in study.curves if one.method == method)
    return dict(sorted(found.items()))


def _points(own: Curves) -> int:
    return len(next(iter(own.values())).points)


def _median(own: Curves, place: int, metric: str) -> float:
    return statistics.median(_dev(one.points[place], metric) for one in own.values())


def _dev(point: PrunePoint, metric: str) -> float:
    return _of(point, metric, next(one.split for one in point.scores if one.split != TRAIN))


def _of(point: PrunePoint, metric: str, split: str) -> float:
    """In percent. Raises ValueError where the metric has no value."""
    found = point.score(metric, split)
    if found is None:
        raise ValueError(f"a point without {metric} on {split}")
    return 100 * found.value

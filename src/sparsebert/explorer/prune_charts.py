"""What a network scores as more and more is removed from it without retraining, for the explorer's page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sparsebert.explorer.chart_data import ChartData, short
from sparsebert.explorer.models import ShownModel
from sparsebert.records import PruneCurve
from sparsebert.reports.prune_curve import curve_label
from sparsebert.reports.rows import score_in_points
from sparsebert.reports.tables import metric_name


def prune_chart(model: ShownModel) -> ChartData | None:
    """The curves of a `prune-curve` run; None of any other. A row is one score of one point, in points (0-100)."""
    record, result = model.first
    study = result.prune_study
    if study is None:
        return None
    whole = study.curves[0].points[0]
    splits = list(dict.fromkeys(score.split for score in whole.scores))
    baselines = (one.baseline for one in whole.scores if one.metric == record.main_metric)
    constant = next((one for one in baselines if one is not None), None)
    said = metric_name(str(record.main_metric))
    return ChartData(
        kind="curves",
        title="Scores as parts are removed",
        caption=f"{said} of the same network with more and more removed, and nothing trained after it; bars are 95% "
        "intervals over the examples, the dotted line is a constant answer. The CSV has every metric.",
        words=f"{said} against the sparsity of the whole model on {', '.join(splits)}; the CSV has the numbers",
        columns=(
            "what is removed",
            "removed",
            "whole sparsity",
            "split",
            "metric",
            "score",
            "low",
            "high",
        ),
        rows=tuple(row for curve in study.curves for row in _rows(curve)),
        more={
            "metric": record.main_metric,
            "said": said,
            "splits": splits,
            "constant": None if constant is None else short(100 * constant),
        },
    )


def _rows(curve: PruneCurve) -> Iterator[tuple[Any, ...]]:
    for point in curve.points:
        for score in point.scores:
            value = score_in_points(score)
            reach = (None, None) if value.low is None or value.high is None else (short(value.low), short(value.high))
            place = (point.removed, short(point.sparsity.whole_model))
            yield curve_label(curve), *place, score.split, score.metric, short(value.mid), *reach

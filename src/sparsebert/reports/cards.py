"""The summary at the top of a page of one family: a card a model, the number first that a user feels first."""

from __future__ import annotations

from collections.abc import Iterator

from sparsebert.reports import values as v
from sparsebert.reports.asked import target_text
from sparsebert.reports.decisions import judged, warnings
from sparsebert.reports.escape import in_html
from sparsebert.reports.families import Family
from sparsebert.reports.rows import FamilyRow, family_rows
from sparsebert.reports.tables import constant_guess, few_runs, metric_name


def summary_cards(family: Family) -> str:
    """A card for every model but the dense one, as HTML; empty without any."""
    warned = {model.name: warnings(decisions) for model, decisions in judged(family)}
    rows = [row for row in family_rows([family]) if not row.dense]
    cards = [_card(row, " ".join(warned.get(row.name, ()))) for row in rows]
    return f'<div class="tiles">{"".join(cards)}</div>' if cards else ""


def _card(row: FamilyRow, warning: str) -> str:
    listed = "".join(f"<dt>{in_html(name)}</dt><dd>{_spread(text, spread)}</dd>" for name, text, spread in _facts(row))
    only_whole = row.encoder_speedup is None and row.model_speedup is not None
    target = target_text(row.target_kind, row.target_value, long=not only_whole)
    small = ", ".join(filter(None, (target and f"asked: {target}", few_runs(row))))
    asked = f"<small>{in_html(small)}</small>" if small else ""
    warned = f'<p class="warning">{in_html(warning)}</p>' if warning else ""
    return f'<div class="tile"><h2>{in_html(row.name)}{asked}</h2>{_headline(row)}{warned}<dl>{listed}</dl></div>'


def _headline(row: FamilyRow) -> str:
    """The whole model's speedup; where that was not measured the encoder's, and without times the score."""
    for speed, words in ((row.model_speedup, "as fast as dense"), (row.encoder_speedup, "encoder as fast as dense")):
        if speed is not None:
            css = "big noisy" if v.is_noisy(speed) else "big"
            return _big(css, v.show_times(speed), words, v.show_interval(speed))
    if row.score_points is None:
        return ""
    return _big("big", v.percent(row.score_points.mid), str(row.metric), v.show_spread(row.score_points, v.percent))


def _big(css: str, number: str, words: str, spread: str) -> str:
    below = f'<div class="interval">{in_html(spread)}</div>' if spread else ""
    return f'<div class="{css}">{in_html(number)}<small>{in_html(words)}</small></div>{below}'


def _facts(row: FamilyRow) -> Iterator[tuple[str, str, str]]:
    """Name, number and range of what stands under the headline."""
    metric = row.metric or ""
    if metric and (row.model_speedup is not None or row.encoder_speedup is not None):
        yield metric_name(metric), v.show(row.score_points, v.percent), v.show_spread(row.score_points, v.percent)
    if row.change_points is not None:
        yield "Change, points", v.show(row.change_points, v.signed), v.show_spread(row.change_points, v.signed)
    if row.baseline_points is not None:
        yield constant_guess(metric).capitalize(), v.percent(row.baseline_points), ""
    if row.agreement is not None:
        yield "Same as dense", v.show(row.agreement, v.fraction), v.show_spread(row.agreement, v.fraction)
    if row.model_speedup is not None and row.encoder_speedup is not None:
        yield "Encoder speedup", v.show_times(row.encoder_speedup), v.show_interval(row.encoder_speedup)
    if row.latency_ms is not None:
        yield "Latency, ms", v.show(row.latency_ms, v.digits), v.show_spread(row.latency_ms, v.digits)
    yield "File", v.show(row.size_mb, v.megabytes), "" if row.weights in (None, "float32") else row.weights


def _spread(text: str, spread: str) -> str:
    return in_html(text) + (f"<small>{in_html(spread)}</small>" if spread else "")

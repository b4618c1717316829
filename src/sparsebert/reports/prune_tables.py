"""Prune curves as tables, sentences and JSON: where each begins to lose, and every point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sparsebert.records import PruneCurve, PrunePoint
from sparsebert.reports import values as v
from sparsebert.reports.prune_curve import (
    PrunedLine,
    PrunedNetworks,
    held_until,
    last_within,
    model_times,
    prune_lines,
    score_at,
    speedup_at,
    whole_sparsity,
)
from sparsebert.reports.tables import Cell, Section, Table, constant_guess, metric_name, times_cell

Picked = Callable[[PruneCurve, float, str, str], PrunePoint | None]


def drop_table(groups: Sequence[PrunedNetworks]) -> Table:
    """Where each curve begins to lose, for each metric of the validation split that decides."""
    sections = [
        Section(f"{group.label} · {networks_text(group)}" if len(groups) > 1 else "", tuple(_drop_rows(group)))
        for group in groups
    ]
    columns = (
        Cell("Removed", "not retrained"),
        Cell("Metric"),
        Cell("Whole network"),
        Cell("No drop up to", "sparsity of all"),
        Cell("Last without drop", "sparsity of all"),
        Cell("Highest", "change"),
    )
    notes = [note for group in groups for note in _drop_notes(group)]
    return Table("Where it begins to lose", columns, tuple(sections), tuple(dict.fromkeys(notes)))


def point_table(group: PrunedNetworks) -> Table:
    """Every point of every curve."""
    splits = dict.fromkeys(split for _, split in group.panels)
    columns = (
        Cell("Removed"),
        Cell("Sparsity", "enc. / all"),
        Cell("File", "on disk"),
        *(Cell(metric_name(metric), split) for metric, split in group.panels),
        *(Cell("Loss", split) for split in splits),
        Cell("Time", "ms, model"),
        Cell("Speedup", "model"),
    )
    sections = [
        Section(line.label, tuple(_point_row(group, points, list(splits)) for points in line.points))
        for line in prune_lines(group)
    ]
    notes = (_spread_note(group), *_timing_notes(group), f"{v.DASH}: no value, or not measured.")
    return Table("All points", columns, tuple(sections), notes)


def prune_json(groups: Sequence[PrunedNetworks]) -> list[dict[str, Any]]:
    """Every curve of every network as JSON-able values, with where it begins to lose by metric."""
    return [
        {
            "model": record.recipe["model"],
            "no_drop_up_to": {
                metric: _point_json(held_until(curve, study.within, metric, split)) for metric, split in group.dev
            },
            **curve.model_dump(mode="json", exclude_none=True),
        }
        for group in groups
        for record, study in zip(group.records, group.studies, strict=True)
        for curve in study.curves
    ]


def drop_sentences(group: PrunedNetworks) -> list[tuple[str, str]]:
    """What is removed, and up to where the main metric does not drop."""
    metric, split = group.dev[0]
    words = metric_name(metric).lower()
    found = []
    for line in prune_lines(group):
        held, runs = _picked(group, line, held_until, metric, split)
        until = f"up to {v.show(held, v.fraction)} of the whole network removed" if held else "at no point"
        spread = v.show_spread(held, v.fraction)
        of_runs = f" (median of {held.runs}, {spread or 'all the same'})" if held and len(runs) > 1 else ""
        found.append((line.label, f"{until}{of_runs}, {words} stays within {group.within:g} points"))
    return found


def removed_text(points: Sequence[PrunePoint]) -> str:
    """`nothing`, `45% of the weights`, or `2 layers (4, 1)` by number from 0, without these where networks differ."""
    first = points[0]
    if not first.removed:
        return "nothing"
    if first.asked is not None:
        return f"{100 * first.asked:g}% of the weights"
    count = len(first.skipped_layers)
    alike = len({point.skipped_layers for point in points}) == 1
    which = f" ({', '.join(map(str, first.skipped_layers))})" if alike else ""
    return f"{count} layer{'' if count == 1 else 's'}{which}"


def networks_text(group: PrunedNetworks) -> str:
    """How many networks stand behind a number."""
    count = len(group.records)
    return "1 network" if count == 1 else f"{count} networks"


def _point_json(point: PrunePoint | None) -> dict[str, Any] | None:
    return None if point is None else {"removed": point.removed, "sparsity": point.sparsity.model_dump()}


def _drop_rows(group: PrunedNetworks) -> list[tuple[Cell, ...]]:
    return [_drop_row(group, line, metric, split) for line in prune_lines(group) for metric, split in group.dev]


def _drop_row(group: PrunedNetworks, line: PrunedLine, metric: str, split: str) -> tuple[Cell, ...]:
    whole = score_at(line.points[0], metric, split)
    return (
        Cell(line.label),
        Cell(metric_name(metric)),
        Cell(v.show(whole, v.percent), v.show_spread(whole, v.percent)),
        _until_cell(group, line, held_until, metric, split),
        _until_cell(group, line, last_within, metric, split),
        _highest_cell(line, metric, split),
    )


def _until_cell(group: PrunedNetworks, line: PrunedLine, pick: Picked, metric: str, split: str) -> Cell:
    value, points = _picked(group, line, pick, metric, split)
    if value is None:
        return Cell(v.DASH)
    small = removed_text(points) if len(points) == 1 else v.show_spread(value, v.fraction)
    return Cell(v.show(value, v.fraction), small)


def _picked(
    group: PrunedNetworks, line: PrunedLine, pick: Picked, metric: str, split: str
) -> tuple[v.Value | None, list[PrunePoint]]:
    """The sparsity of the whole network at the point that is picked of each curve."""
    found = [pick(curve, group.within, metric, split) for curve in line.curves]
    points = [point for point in found if point is not None]
    return whole_sparsity(points), points


def _highest_cell(line: PrunedLine, metric: str, split: str) -> Cell:
    """Of the medians over networks, and how far it is from the whole network, at which point."""
    scored = [(value.mid, points) for points in line.points if (value := score_at(points, metric, split)) is not None]
    if not scored:
        return Cell(v.DASH)
    best, points = max(scored, key=lambda one: one[0])
    change = f"{v.signed(best - scored[0][0])}, best of {len(scored)}"
    return Cell(v.percent(best), f"{change}, {removed_text(points)}")


def _drop_notes(group: PrunedNetworks) -> list[str]:
    metric, split = group.dev[0]
    first = group.studies[0].curves[0].points[0].score(metric, split)
    assert first is not None
    notes = [
        f"A drop: more than {group.within:g} points below the whole network, on {first.examples:,} examples of the "
        f"{split} split. No drop up to: no point before scores less; last without drop: points before may.",
        "The highest is picked by these scores, so that it flatters.",
    ]
    if first.baseline is not None:
        notes.append(f"Always giving the {constant_guess(metric)} would score {v.fraction(first.baseline)}.")
    return [*notes, _spread_note(group)]


def _spread_note(group: PrunedNetworks) -> str:
    if len(group.records) == 1:
        return "Range beside a score: 95% interval by bootstrap over examples; beside a time: quartiles of the rounds."
    models = ", ".join(str(record.recipe["model"]) for record in group.records)
    return f"Medians of {len(group.records)} networks, range: minimum–maximum over them: {models}."


def _point_row(group: PrunedNetworks, points: Sequence[PrunePoint], splits: Sequence[str]) -> tuple[Cell, ...]:
    encoder = v.over_runs(v.Value(point.sparsity.encoder_linear) for point in points)
    files = v.over_runs(v.Value(point.bytes_on_disk / 1e6) for point in points)
    losses = (v.over_runs(v.exact(point.losses.get(split)) for point in points) for split in splits)
    scores = (score_at(points, metric, split) for metric, split in group.panels)
    times = model_times(points)
    milliseconds = v.over_runs(v.Value(time.median_ms, time.q25_ms, time.q75_ms) for time in times)
    return (
        Cell(removed_text(points)),
        Cell(f"{v.show(encoder, v.fraction)} / {v.show(whole_sparsity(points), v.fraction)}"),
        Cell(v.show(files, v.megabytes)),
        *(Cell(v.show(score, v.percent), v.show_spread(score, v.percent)) for score in scores),
        *(Cell(v.show(loss, v.digits), v.show_spread(loss, v.digits)) for loss in losses),
        Cell(v.show(milliseconds, v.digits), v.show_spread(milliseconds, v.digits)),
        times_cell(speedup_at(points)),
    )


def _timing_notes(group: PrunedNetworks) -> list[str]:
    found = model_times([point for curve in group.studies[0].curves for point in curve.points])
    if not found:
        return []
    time = found[0]
    how = f"{time.backend}, batch {time.batch}, {time.length} tokens, threads: {time.threads}"
    return [f"Times: of the whole model, {how}; speedups are over the whole network in the same rounds."]

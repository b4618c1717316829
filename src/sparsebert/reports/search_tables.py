"""Tables of searches: what was chosen, the best trials, steps to a score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparsebert.records import FILE_NAME, TRAIN, Record, Score, read_record
from sparsebert.records.searched import Aim, Chosen
from sparsebert.reports import values as v
from sparsebert.reports.rows import score_in_points
from sparsebert.reports.searched import Searched, TrialRun
from sparsebert.reports.tables import Cell, Section, Table, metric_name

MOST_TRIALS = 10
_UNITS = {"latency_ms": "ms", "size_mb": "MB", "gflops": "GFLOP"}


@dataclass(frozen=True)
class ThresholdRow:
    """The fewest optimiser steps to a score (as the metric is defined) of any trial of a search, and which it was.

    `reached` of the `watched` trials got there; `watched` are those that were scored while they trained.
    """

    threshold: float
    label: str
    steps: int | None
    run: str | None
    reached: int
    watched: int


def aim_name(aim: Aim, metric: bool) -> str:
    """What an objective is called in tables and on axes, with its unit."""
    if metric:
        return f"{metric_name(aim.name)}, %"
    name = aim.name.removesuffix("_ms").removesuffix("_mb").replace("_", " ").capitalize()
    return f"{name}, {_UNITS[aim.name]}" if aim.name in _UNITS else name


def chosen_table(found: Sequence[Searched]) -> Table:
    """A row a setting that was chosen: its score on validation, trained on all train rows, and on held-out rows."""
    keys = list(dict.fromkeys(key for one in found if one.search is not None for key in one.search.space))
    sections = [
        Section(
            one.label if len(found) > 1 else "",
            tuple(_chosen_row(one, chosen, keys) for chosen in one.search.chosen),
        )
        for one in found
        if one.search is not None and one.search.chosen
    ]
    columns = (Cell("Setting", "its recipe"), Cell("Validation", "trained on all rows"), Cell("Held out", "best of N"))
    note = (
        "Validation: the median over runs that differ in the seed, with minimum and maximum; of a single run, its 95% "
        "interval over the examples."
    )
    heads = tuple(Cell(short_key(key, keys)) for key in keys)
    return Table("What was chosen", (*columns, *heads), tuple(sections), (note,))


def best_table(found: Sequence[Searched]) -> Table:
    """The best trials of each search, ten at most, best first."""
    keys = list(dict.fromkeys(key for one in found for key in space_keys(one)))
    sections = []
    for one in found:
        sign = -1 if one.aim.direction == "maximize" else 1
        ranked = sorted(one.runs, key=lambda run: sign * run.score.mid)[:MOST_TRIALS]
        heading = one.label if len(found) > 1 else ""
        sections.append(Section(heading, tuple(_trial_row(one, run, keys) for run in ranked)))
    columns = (Cell("Trial"), Cell(aim_name(found[0].aim, found[0].metric), "held out"), *_objective_heads(found[0]))
    notes = ["Range: 95% interval over the held-out examples."] if found[0].metric else []
    for one in found:
        base = next((run.baseline for run in one.runs if run.baseline is not None), None)
        name = f"{one.label}: " if len(found) > 1 else ""
        notes += [] if base is None else [f"{name}always giving the same answer would score {v.percent(base)}."]
        notes.append(f"{name}{len(one.runs)} trials with a score; the first is the best of them.")
    return Table(
        "Best trials", (*columns, *(Cell(short_key(key, keys)) for key in keys)), tuple(sections), tuple(notes)
    )


def threshold_table(rows: Sequence[ThresholdRow], aim: Aim) -> Table:
    """A row a search, a column a threshold: the fewest steps, and of which trial."""
    thresholds = list(dict.fromkeys(row.threshold for row in rows))
    lines = []
    for label in dict.fromkeys(row.label for row in rows):
        own = {row.threshold: row for row in rows if row.label == label}
        lines.append((Cell(label), *(_steps_cell(own[threshold]) for threshold in thresholds)))
    columns = (Cell("Search"), *(Cell(v.fraction(one), metric_name(aim.name)) for one in thresholds))
    notes = (
        "Fewest optimiser steps of any finished trial, so of the best of as many as are counted; scored on rows that "
        "were not trained on, at most one period of evaluation too late.",
    )
    return Table("Steps to a score", columns, (Section("", tuple(lines)),), notes)


def space_keys(one: Searched) -> list[str]:
    """The keys that a search changed; of other runs, the ones with a learning rate that differ."""
    if one.search is not None:
        return list(one.search.space)
    keys = dict.fromkeys(key for run in one.runs for key in run.values if key.endswith("learning_rate"))
    return [key for key in keys if len({run.values.get(key) for run in one.runs}) > 1]


def short_key(key: str, keys: Sequence[str]) -> str:
    """The last part of a dotted key, if no other one ends so, in words."""
    last = key.rsplit(".", 1)[-1]
    alone = sum(other.rsplit(".", 1)[-1] == last for other in keys) == 1
    return (last if alone else key).replace("_", " ")


def show_value(value: Any) -> str:
    """A value of a recipe for a cell."""
    if value is None:
        return v.DASH
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def shown(value: v.Value, metric: bool) -> Cell:
    """A score or another objective with its spread."""
    form = v.percent if metric else v.digits
    return Cell(form(value.mid), v.show_spread(value, form))


def _objective_heads(one: Searched) -> tuple[Cell, ...]:
    rest = () if one.search is None else one.search.objectives[1:]
    return tuple(Cell(aim_name(aim, False)) for aim in rest)


def _trial_row(one: Searched, run: TrialRun, keys: Sequence[str]) -> tuple[Cell, ...]:
    rest = () if one.search is None else one.search.objectives[1:]
    scores = tuple(Cell(v.digits(run.scores[aim.name])) for aim in rest)
    return (Cell(run.name), shown(run.score, one.metric), *scores, *(Cell(show_value(run.values.get(k))) for k in keys))


def _chosen_row(one: Searched, chosen: Chosen, keys: Sequence[str]) -> tuple[Cell, ...]:
    [run] = [run for run in one.runs if run.number == chosen.trial]
    best = Cell(shown(run.score, one.metric).text, f"best of {len(one.runs)}")
    settings = (Cell(show_value(run.values.get(key))) for key in keys)
    return (Cell(run.name, chosen.recipe), _validation_cell(one, chosen), best, *settings)


def _validation_cell(one: Searched, chosen: Chosen) -> Cell:
    finals = [read_record(one.folder / place) for place in chosen.records if (one.folder / place / FILE_NAME).is_file()]
    score = v.over_runs(score_in_points(score) for record in finals if (score := _final_score(record, one)) is not None)
    if score is None:
        return Cell(v.DASH)
    return Cell(v.percent(score.mid), "; ".join(filter(None, (v.show_spread(score, v.percent), f"n = {len(finals)}"))))


def _final_score(record: Record, one: Searched) -> Score | None:
    """Of the model that was searched for, by the metric that it was searched by, else by the main one."""
    of = None if one.search is None else one.search.of
    models = [model for model in record.models if of in (None, model.name)]
    if not models:
        return None
    metric = one.aim.name if one.metric else record.main_metric
    return next((score for score in models[-1].scores if score.metric == metric and score.split != TRAIN), None)


def _steps_cell(row: ThresholdRow) -> Cell:
    if row.steps is None:
        return Cell(v.DASH, f"none of {row.watched}")
    return Cell(f"{row.steps:,}", f"{row.run}; {row.reached} of {row.watched} got there")

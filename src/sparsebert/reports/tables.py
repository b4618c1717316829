"""Rows to tables: the text of every cell, once, for the terminal, Markdown and HTML alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from sparsebert.records import ModelResult
from sparsebert.reports import values as v
from sparsebert.reports.asked import target_text
from sparsebert.reports.families import Family
from sparsebert.reports.rows import FamilyRow, TimingRow, family_rows, timing_rows

_GUESSES = {
    **dict.fromkeys(("accuracy", "f1", "matthews"), "majority class"),
    **dict.fromkeys(("entity_f1", "tag_accuracy"), "most frequent tag"),
    **dict.fromkeys(("answer_f1", "exact_match", "answered_f1", "unanswered_f1"), "empty answer"),
    "masked_accuracy": "most frequent token",
    **dict.fromkeys(("pearson", "spearman"), "mean of the labels"),
    **dict.fromkeys(("cosine", "neighbours", "positive_mrr", "pair_cosine"), "mean vector"),
}

# What these are against cannot be told from their names.
_WORDS = {"cosine": "Cosine to dense", "neighbours": "Neighbours kept", "pair_cosine": "Cosine to what it was"}


@dataclass(frozen=True)
class Cell:
    """What stands in a cell, and in small print below it: a spread, a unit, a target."""

    text: str
    small: str = ""


@dataclass(frozen=True)
class Section:
    """Rows under a common heading; the heading is empty where a table has only one section."""

    heading: str
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Table:
    """A table ready to be drawn; the first column is text, the others are numbers."""

    title: str
    columns: tuple[Cell, ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()


def family_table(groups: Sequence[Family], compact: bool = False) -> Table:
    """The models against each other: score, speed, size. Absent values are dashes; what all lack has no column.

    `compact` keeps the columns that fit a terminal of 80 characters.
    """
    rows = family_rows(groups)
    columns = [*_score_columns(rows), *_speed_columns(), (Cell("Size", "on disk"), _size_cell)]
    columns += [_both_sparsities()] if compact else [*_wide_columns(rows), _both_sparsities()]
    columns = [(head, make) for head, make in columns if any(make(row).text != v.DASH for row in rows)]
    sections = [
        Section(heading if len(groups) > 1 else "", tuple(_family_cells(row, columns) for row in members))
        for heading, members in _by_family(rows, groups)
    ]
    notes = (*score_notes(rows), *_stored_notes(rows, compact), *_energy_notes(rows, compact), *_notes(groups))
    return Table("Models", (Cell("Model"), *(head for head, _ in columns)), tuple(sections), notes)


def timing_table(groups: Sequence[Family]) -> Table:
    """Every time that was measured, the models of one setting together."""
    sections = [
        Section(heading, tuple(_timing_cells(row, named=len(groups) > 1) for row in members))
        for heading, members in groupby(timing_rows(groups), key=_setting_text)
    ]
    columns = (Cell("Model"), Cell("Time", "ms"), Cell("Speedup", "paired"), Cell("Tokens/s"))
    return Table("Timings", columns, tuple(sections), _notes(groups))


_Column = tuple[Cell, Callable[[FamilyRow], Cell]]


def _score_columns(rows: Sequence[FamilyRow]) -> list[_Column]:
    metrics = {row.metric for row in rows if row.metric}
    if not metrics:
        return []
    title = metric_name(next(iter(metrics))) if len(metrics) == 1 else "Score"
    sizes = {_sample_size(row) for row in rows} - {""}
    common = sizes.pop() if len(sizes) == 1 else ""
    return [
        (Cell(title, common), lambda row: _cell(row.score_points, v.percent, "" if common else _sample_size(row))),
        (Cell("Change", "points"), lambda row: _cell(row.change_points, v.signed)),
    ]


def _speed_columns() -> list[_Column]:
    return [
        (Cell("Speedup", "model"), lambda row: times_cell(row.model_speedup)),
        (Cell("Speedup", "encoder"), lambda row: times_cell(row.encoder_speedup)),
    ]


def _is_rounded(rows: Sequence[FamilyRow]) -> bool:
    return any(one not in (None, "float32") for row in rows for one in (row.weights, row.embedding_weights))


def _both_sparsities() -> _Column:
    return (
        Cell("Sparsity", "enc. / all"),
        lambda row: Cell(v.show(row.encoder_sparsity, v.fraction), v.show(row.whole_sparsity, v.fraction)),
    )


def _wide_columns(rows: Sequence[FamilyRow]) -> list[_Column]:
    columns: list[_Column] = [
        (Cell("Latency", "ms"), lambda row: _cell(row.latency_ms, v.digits)),
        (Cell("Params"), lambda row: _cell(row.parameters, v.count)),
        (Cell("GFLOPs", _flops_setting(rows)), lambda row: _cell(row.gflops, v.digits)),
    ]
    if _is_rounded(rows):
        columns.append((Cell("Stored", "tables"), lambda row: Cell(row.weights or v.DASH, row.embedding_weights or "")))
    if any(row.energy_j for row in rows):
        columns.append((Cell("Energy", "J / 1,000 texts"), lambda row: _cell(row.energy_j, v.digits)))
    if any(row.one_shot_points for row in rows):
        columns.append((Cell("One-shot", "not fine-tuned"), lambda row: _cell(row.one_shot_points, v.percent)))
    return columns


def metric_name(metric: str) -> str:
    """A metric's key as words."""
    if metric in _WORDS:
        return _WORDS[metric]
    return metric.replace("_", " ").capitalize()


def constant_guess(metric: str) -> str:
    """What a model would give that has learnt nothing but the frequencies of the labels."""
    return _GUESSES.get(metric, "most frequent answer")


def times_cell(value: v.Value | None, small: str = "") -> Cell:
    """A speedup with its interval; one that is too noisy for a number as a range."""
    return Cell(v.show_times(value), "; ".join(filter(None, (v.show_interval(value), small))))


def _cell(value: v.Value | None, form: Callable[[float], str], small: str = "") -> Cell:
    return Cell(v.show(value, form), "; ".join(filter(None, (v.show_spread(value, form), small))))


def _size_cell(row: FamilyRow) -> Cell:
    smaller = row.bytes_sparsity
    small = "" if row.dense or smaller is None else f"{v.MINUS}{v.fraction(smaller.mid)}"
    return Cell(v.show(row.size_mb, v.megabytes), small.replace(v.MINUS * 2, "+"))


def _family_cells(row: FamilyRow, columns: Sequence[_Column]) -> tuple[Cell, ...]:
    small = (target_text(row.target_kind, row.target_value), few_runs(row))
    return (Cell(row.name, "; ".join(filter(None, small))), *(make(row) for _, make in columns))


def _by_family(rows: Sequence[FamilyRow], groups: Sequence[Family]) -> list[tuple[str, list[FamilyRow]]]:
    return [(_heading(family), [row for row in rows if row.family == family.label]) for family in groups]


def _heading(family: Family) -> str:
    return family.label if len(family.records) == 1 else f"{family.label} · {runs_text(family)}"


def runs_text(family: Family) -> str:
    """How many runs stand behind a number: `seed 0`, `3 seeds (0, 1, 2)`, `2 runs of seed 0`."""
    seeds = sorted(set(family.seeds))
    listed = ", ".join(map(str, seeds))
    if len(seeds) == len(family.records):
        return f"seed {listed}" if len(seeds) == 1 else f"{len(seeds)} seeds ({listed})"
    return f"{len(family.records)} runs of seed {listed}"


def few_runs(row: FamilyRow | TimingRow) -> str:
    """`n = 1 of 3 runs` for a model that not all runs of its family hold, else empty."""
    return "" if row.runs == row.family_runs else f"n = {row.runs} of {row.family_runs} runs"


def _sample_size(row: FamilyRow) -> str:
    return "" if row.examples is None else f"n = {row.examples:,}"


def score_notes(rows: Sequence[FamilyRow]) -> list[str]:
    """On how many examples scores are, and what they have to be above to say anything."""
    samples = {(row.metric, row.split, row.examples): None for row in rows if row.metric and row.examples is not None}
    notes = [f"{metric_name(str(m))}: on {n:,} examples of the {split} split." for m, split, n in samples]
    bases = {row.baseline_points for row in rows if row.baseline_points is not None}
    guess = constant_guess(next((row.metric for row in rows if row.metric), ""))
    return notes + [f"Always giving the {guess} would score {v.percent(base)}." for base in sorted(bases)]


def _stored_notes(rows: Sequence[FamilyRow], listed: bool) -> list[str]:
    """What numbers weights are in the files where any were rounded; `listed` = they have no column."""
    if not _is_rounded(rows):
        return []
    if not listed:
        return ["Stored: as what numbers the file has the layers' weights, and below that tables of embeddings."]
    each = (f"{row.name} {_stored(row)}" for row in rows if row.weights is not None)
    return [f"In the file, and float32 in memory: {'; '.join(each)}."]


def _stored(row: FamilyRow) -> str:
    same = row.embedding_weights in (None, row.weights)
    return f"{row.weights}" if same else f"{row.weights}, tables of embeddings {row.embedding_weights}"


def _energy_notes(rows: Sequence[FamilyRow], listed: bool) -> list[str]:
    """By which counters energies are, and the reasons why there are none; `listed` = they have no column."""
    notes = []
    for source in dict.fromkeys(row.energy_source for row in rows if row.energy_source):
        own = [row for row in rows if row.energy_source == source and row.energy_j is not None]
        each = ", ".join(f"{row.name} {v.show(row.energy_j, v.digits)} J" for row in own)
        notes.append(f"Energy of 1,000 texts ({source}){f': {each}' if listed else ''}.")
    reasons = dict.fromkeys(row.energy_missing for row in rows if row.energy_missing)
    return notes + [f"Energy of 1,000 texts: {reason}." for reason in reasons]


def _flops_setting(rows: Sequence[FamilyRow]) -> str:
    settings = {(row.flops_batch, row.flops_length) for row in rows if row.flops_batch and row.flops_length}
    if len(settings) != 1:
        return ""
    batch, length = settings.pop()
    return f"{batch} × {length} tok."


def _notes(groups: Sequence[Family]) -> tuple[str, ...]:
    single = [family.runs(name)[0][1] for family in groups for name in family.names if len(family.runs(name)) == 1]
    notes = list(_range_notes(single))
    for family in groups:
        if len(family.records) > 1:
            name = f"{family.label}: " if len(groups) > 1 else ""
            notes.append(f"{name}medians of {runs_text(family)}; range: minimum–maximum over them.")
    return (*notes, f"{v.DASH}: not measured or not applicable.")


def _range_notes(models: Sequence[ModelResult]) -> Iterator[str]:
    """What a range beside a number of one run is."""
    if any(score.low is not None for model in models for score in model.scores):
        yield "Range beside a score or change of one run: 95% interval by bootstrap over the examples."
    timings = [timing for model in models for timing in model.timings]
    if any(timing.speedup_low is not None for timing in timings):
        yield "Range beside a speedup of one run: 95% interval over the rounds; beside a time: quartiles of the rounds."
    elif timings:
        yield "Range beside a time or speedup: quartiles of the rounds of one run."


def _timing_cells(row: TimingRow, named: bool) -> tuple[Cell, ...]:
    return (
        Cell(row.name, "; ".join(filter(None, (row.family if named else "", few_runs(row))))),
        _cell(row.median_ms, v.digits),
        times_cell(row.speedup),
        Cell(v.show(row.tokens_per_s, lambda number: f"{number:,.0f}")),
    )


def _setting_text(row: TimingRow) -> str:
    scope = "Encoder" if row.scope == "encoder" else "Whole model"
    threads = f"{row.threads} thread{'s' if row.threads != 1 else ''}"
    how = f"{row.backend}, {row.dtype}, {row.attention} attention, {threads}, {row.rounds} rounds"
    return f"{scope} · batch {row.batch} · {row.length} tokens · {how}"

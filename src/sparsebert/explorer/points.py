"""Models as points of the trade-off: plain numbers for the page, each with its range; what is not known is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparsebert.explorer.models import ShownModel
from sparsebert.reports.asked import target_text
from sparsebert.reports.families import Family, Headline, headlines
from sparsebert.reports.rows import FamilyRow, TimingRow, family_rows, timing_rows
from sparsebert.reports.tables import metric_name
from sparsebert.reports.values import Value

_SINGLE = ("encoder_sparsity", "whole_sparsity", "bytes_sparsity", "size_mb", "parameters", "energy_j")


def points(models: Sequence[ShownModel]) -> list[dict[str, Any]]:
    """One entry a model. Numbers are [middle, low, high] or [middle]; the units are those of FamilyRow."""
    found = {id(model.family): model.family for model in models}
    headline = headlines(record for family in found.values() for record in family.records)
    rows = {key: _rows(family, headline) for key, family in found.items()}
    several = len({model.first[0].environment.cpu for model in models}) > 1
    return [_point(model, *rows[id(model.family)], headline, several) for model in models]


def _rows(family: Family, headline: Headline) -> tuple[dict[str, FamilyRow], list[TimingRow]]:
    return {row.name: row for row in family_rows([family], headline)}, timing_rows([family])


def _point(
    model: ShownModel, rows: dict[str, FamilyRow], timings: Sequence[TimingRow], headline: Headline, several: bool
) -> dict[str, Any]:
    """With `several` processors, times are told apart by theirs."""
    row, (record, result) = rows[model.name], model.first
    machine = f", {record.environment.cpu}" if several else ""
    single = {name: _numbers(getattr(row, name)) for name in _SINGLE}
    main = headline(record, result, "model") or headline(record, result, "encoder")
    plain = {
        "key": model.key,
        "run": model.run,
        "name": model.name,
        "family": model.family.label,
        "method": model.method,
        "kind": record.kind,
        "task": record.task,
        "seed": ", ".join(map(str, dict.fromkeys(model.seeds))),
        "median": len(model.family.records) > 1,
        "dense": row.dense,
        "asked": target_text(row.target_kind, row.target_value),
        "metric": None if row.metric is None else metric_name(row.metric),
        "score": _numbers(row.score_points),
        "change": [0.0] if row.dense else _numbers(row.change_points),
        "constant": row.baseline_points,
        "main_runtime": None if main is None else main.backend,
        "times": [_timing(timing, machine) for timing in timings if timing.name == model.name],
    }
    return {name: value for name, value in (plain | single).items() if value is not None}


def _timing(row: TimingRow, machine: str) -> dict[str, Any]:
    plain = {
        "scope": row.scope,
        "runtime": row.backend,
        "setting": setting_text(row.batch, row.length, row.threads) + machine,
        "ms": _numbers(row.median_ms),
        "tokens_per_s": _numbers(row.tokens_per_s),
        "speedup": _numbers(row.speedup),
    }
    return {name: value for name, value in plain.items() if value is not None}


def setting_text(batch: int, length: int, threads: int) -> str:
    """`1 text × 128 tokens, 2 threads`."""
    texts, used = ("text", "texts")[batch != 1], ("thread", "threads")[threads != 1]
    return f"{batch} {texts} × {length} tokens, {threads} {used}"


def _numbers(value: Value | None) -> list[float] | None:
    """Six significant digits: more would be paid for in the size of the page, and nothing was measured so well."""
    if value is None:
        return None
    known = [value.mid] if value.low is None or value.high is None else [value.mid, value.low, value.high]
    return [float(f"{number:.6g}") for number in known]

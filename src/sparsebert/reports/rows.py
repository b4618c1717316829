"""Records to rows: the numbers of a report as exact data, before any of them becomes text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sparsebert.records import NOT_HERE, ModelResult, NumberFormat, Record, Score, Timing
from sparsebert.reports.families import Family, Headline, baseline, headlines, main_score, setting
from sparsebert.reports.values import Value, exact, over_runs

_MEGA = 1e6
_GIGA = 1e9


@dataclass(frozen=True)
class FamilyRow:
    """One model of one family. Scores and changes in points (0-100), sparsities 0-1, sizes in megabytes of 1e6 bytes.

    `runs` of the `family_runs` runs hold the model: where a run may end early, not all of them do.
    With one run a spread is the 95 % interval of a score, a change or a speedup, and the quartiles of a time, or of a
    speedup in a record that holds no interval; with several it is the minimum and maximum over the runs. Changes are
    against the same run's dense model. `baseline_points` is what always giving the majority class, or the mean, scores.
    `agreement` is the fraction of examples decided as by the dense model. `weights` (of layers) and `embedding_weights`
    are what numbers these are in the file. `energy_j` is of 1,000 texts, in joules; None where the runs had different
    counters. `energy_missing` says why it was asked for and is not there.
    Runs that chance explains are counted: that predict one class (`only_class`) only, whose score is not above what
    always the same would give, and whose difference from their dense model's is within its interval.
    """

    family: str
    name: str
    dense: bool
    target_kind: str | None
    target_value: float | None
    runs: int
    family_runs: int
    seeds: tuple[int, ...]
    metric: str | None
    split: str | None
    examples: int | None
    score_points: Value | None
    baseline_points: float | None
    agreement: Value | None
    change_points: Value | None
    one_shot_points: Value | None
    parameters: Value | None
    encoder_sparsity: Value | None
    whole_sparsity: Value | None
    bytes_sparsity: Value | None
    size_mb: Value | None
    weights: str | None
    embedding_weights: str | None
    model_speedup: Value | None
    encoder_speedup: Value | None
    latency_ms: Value | None
    gflops: Value | None
    flops_batch: int | None
    flops_length: int | None
    only_class: str | None
    one_class_runs: int
    no_better_runs: int
    within_chance_runs: int
    energy_j: Value | None
    energy_source: str | None
    energy_missing: str | None


@dataclass(frozen=True)
class TimingRow:
    """One model in one setting: milliseconds, tokens per second, and the paired ratio to the baseline.

    `runs` and `family_runs` as in FamilyRow.
    """

    family: str
    name: str
    runs: int
    family_runs: int
    scope: str
    backend: str
    dtype: str
    attention: str
    batch: int
    length: int
    threads: int
    rounds: int
    median_ms: Value | None
    tokens_per_s: Value | None
    speedup: Value | None


def family_rows(groups: Sequence[Family], headline: Headline | None = None) -> list[FamilyRow]:
    """One row a model, family by family, in the order of the records.

    `headline` is that of the families' records, for who has it already.
    """
    found = headline or headlines(record for family in groups for record in family.records)
    return [_family_row(family, name, found) for family in groups for name in family.names]


def timing_rows(groups: Sequence[Family]) -> list[TimingRow]:
    """One row a model and setting, whole models first; the models of one setting stand together."""
    rows = [row for family in groups for name in family.names for row in _timings(family, name)]
    order = list(dict.fromkeys(_setting_of(row) for row in rows))
    return sorted(rows, key=lambda row: (row.scope != "model", order.index(_setting_of(row))))


def as_json(rows: Sequence[FamilyRow | TimingRow]) -> list[dict[str, Any]]:
    """Rows as JSON-able values; absent ones are left out."""
    return [_without_none(asdict(row)) for row in rows]


def _family_row(family: Family, name: str, headline: Headline) -> FamilyRow:
    runs = family.runs(name)
    record, model = runs[0]
    score = main_score(record, model.scores)

    def each(value: Callable[[Record, ModelResult], Value | None]) -> Value | None:
        return over_runs(value(*run) for run in runs)

    return FamilyRow(
        family=family.label,
        name=name,
        dense=model is baseline(record),
        target_kind=model.target_kind,
        target_value=model.target_value,
        runs=len(runs),
        family_runs=len(family.records),
        seeds=tuple(run.seed for run, _ in runs),
        metric=record.main_metric,
        split=score.split if score else None,
        examples=score.examples if score else None,
        score_points=each(lambda record, model: _points(record, model.scores)),
        baseline_points=None if score is None or score.baseline is None else 100 * score.baseline,
        agreement=each(lambda _, model: exact(model.decisions and model.decisions.agreement)),
        change_points=each(_change),
        one_shot_points=each(lambda record, model: _points(record, model.one_shot_scores)),
        parameters=each(lambda _, model: Value(model.size.parameters)),
        encoder_sparsity=each(lambda _, model: Value(model.sparsity.encoder_linear)),
        whole_sparsity=each(lambda _, model: Value(model.sparsity.whole_model)),
        bytes_sparsity=each(lambda _, model: Value(model.sparsity.bytes_on_disk)),
        size_mb=each(lambda _, model: Value(model.size.file_bytes / _MEGA)),
        weights=_numbers({model.stored and model.stored.weights for _, model in runs}),
        embedding_weights=_numbers({model.stored and model.stored.embeddings for _, model in runs}),
        model_speedup=each(lambda record, model: _speedup(headline(record, model, "model"))),
        encoder_speedup=each(lambda record, model: _speedup(headline(record, model, "encoder"))),
        latency_ms=each(lambda record, model: _median(headline(record, model, "model"))),
        gflops=each(lambda _, model: None if model.size.flops is None else Value(model.size.flops / _GIGA)),
        flops_batch=model.size.flops_batch,
        flops_length=model.size.flops_length,
        only_class=next(filter(None, map(_only_class, runs)), None),
        one_class_runs=sum(_only_class(run) is not None for run in runs),
        no_better_runs=sum(_no_better(*run) for run in runs),
        within_chance_runs=sum(_within_chance(*run) for run in runs),
        **_energy([headline(record, model, "model") for record, model in runs]),
    )


def _numbers(stored: set[NumberFormat | None]) -> str | None:
    """What all of the runs have in the file, or the several that they have; None where one does not say."""
    return None if None in stored else " or ".join(sorted(filter(None, stored)))


def _only_class(run: tuple[Record, ModelResult]) -> str | None:
    return run[1].decisions and run[1].decisions.only_class


def _no_better(record: Record, model: ModelResult) -> bool:
    score = main_score(record, model.scores)
    return score is not None and score.above_baseline is False


def _within_chance(record: Record, model: ModelResult) -> bool:
    score = main_score(record, model.scores)
    if score is None or score.change_low is None or score.change_high is None:
        return False
    return score.change_low <= 0 <= score.change_high


def score_in_points(score: Score) -> Value:
    """A score and its interval as points, 0-100."""
    return Value(100 * score.value, _percents(score.low), _percents(score.high))


def _points(record: Record, scores: Sequence[Score]) -> Value | None:
    score = main_score(record, scores)
    return None if score is None else score_in_points(score)


def _percents(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _change(record: Record, model: ModelResult) -> Value | None:
    dense = baseline(record)
    if dense is None or model is dense:
        return None
    before, after = main_score(record, dense.scores), main_score(record, model.scores)
    if before is None or after is None:
        return None
    return Value(100 * (after.value - before.value), _percents(after.change_low), _percents(after.change_high))


def _speedup(timing: Timing | None) -> Value | None:
    if timing is None or timing.speedup is None:
        return None
    if timing.speedup_low is None or timing.speedup_high is None:
        return Value(timing.speedup, timing.speedup_q25, timing.speedup_q75)
    return Value(timing.speedup, timing.speedup_low, timing.speedup_high)


def _median(timing: Timing | None) -> Value | None:
    return None if timing is None else Value(timing.median_ms, timing.q25_ms, timing.q75_ms)


def _energy(timings: Sequence[Timing | None]) -> dict[str, Any]:
    """Of the runs of one model; one counter counts other things than another does."""
    uses = [timing.energy for timing in timings if timing is not None and timing.energy is not None]
    reasons = [timing.energy_missing for timing in timings if timing is not None and timing.energy_missing]
    missing = f"{NOT_HERE}: {reasons[0]}" if reasons else None
    sources = {use.source for use in uses}
    if len(sources) > 1:
        missing = f"not to be compared, as runs had different counters: {'; '.join(sorted(sources))}"
    known = len(sources) == 1 and missing is None
    return {
        "energy_j": over_runs(Value(use.median_j, use.q25_j, use.q75_j) for use in uses) if known else None,
        "energy_source": sources.pop() if known else None,
        "energy_missing": missing,
    }


def _timings(family: Family, name: str) -> list[TimingRow]:
    groups: dict[tuple[Any, ...], list[Timing]] = {}
    for _, model in family.runs(name):
        for timing in model.timings:
            groups.setdefault((*setting(timing), timing.attention), []).append(timing)
    return [_timing_row(family, name, timings) for timings in groups.values()]


def _timing_row(family: Family, name: str, timings: Sequence[Timing]) -> TimingRow:
    first = timings[0]
    return TimingRow(
        family=family.label,
        name=name,
        runs=len(timings),
        family_runs=len(family.records),
        scope=first.scope,
        backend=first.backend,
        dtype=first.dtype,
        attention=first.attention,
        batch=first.batch,
        length=first.length,
        threads=first.threads,
        rounds=min(timing.rounds for timing in timings),
        median_ms=over_runs(map(_median, timings)),
        tokens_per_s=over_runs(Value(timing.tokens_per_s) for timing in timings),
        speedup=over_runs(map(_speedup, timings)),
    )


def _setting_of(row: TimingRow) -> tuple[Any, ...]:
    return (row.scope, row.batch, row.length, row.backend, row.dtype, row.attention, row.threads)


def _without_none(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _without_none(value) for key, value in values.items() if value is not None}
    return values

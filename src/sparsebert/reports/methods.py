"""How each number was measured, in words, and where: shared by the page and the model card."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sparsebert.records import NOT_HERE, Environment, Record, Timing
from sparsebert.reports import values as v
from sparsebert.reports.families import Family, headline, main_score
from sparsebert.reports.tables import Cell, Section, Table, constant_guess, metric_name, runs_text


def methods(family: Family) -> list[tuple[str, str]]:
    """Pairs of a number's name and how it was measured; a number that the records do not hold is left out."""
    record = family.first
    several = len(family.records) > 1
    spread = f"median and minimum–maximum of {runs_text(family)}" if several else "median and quartiles of the rounds"
    facts = [
        (_score_title(record), _score_method(family)),
        ("Speedup", _model_speed_method(record, spread)),
        ("Encoder speedup", _speed_method(record, spread)),
        ("Latency", _latency_method(record, spread)),
        ("Energy of texts", _energy_method(record)),
        ("Energy of training", _training_energy_method(record)),
        ("Size on disk", "bytes of the saved weights; 1 MB is 1,000,000 bytes. The percentage is against dense."),
        ("Sparsity", "fraction removed against dense: of the encoder's linear weights, and of all parameters."),
        ("FLOPs", _flops_method(record)),
        ("Output difference", _difference_method(record)),
    ]
    return [(name, text) for name, text in facts if text]


def environment_table(groups: Sequence[Family], failed: Sequence[Record] = ()) -> Table:
    """The machine and the versions of every family and failed run: one column if all are the same, else one each."""
    columns = [(family.label, _facts(family.first)) for family in groups]
    columns += [(f"failed run {number}", _facts(record)) for number, record in enumerate(failed, 1)]
    if all(facts == columns[0][1] for _, facts in columns):
        columns = [("", columns[0][1])]
    rows = tuple((Cell(name), *(Cell(facts[name]) for _, facts in columns)) for name in columns[0][1])
    return Table("Environment", (Cell(""), *(Cell(label) for label, _ in columns)), (Section("", rows),))


def duration(seconds: float) -> str:
    """`42 s`, `31 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def machine_words(where: Environment, threads: int) -> str:
    """`2 threads on Example CPU (2 cores)`."""
    return f"{threads} thread{'s' if threads != 1 else ''} on {where.cpu} ({where.cores} cores)"


def _score_title(record: Record) -> str:
    return metric_name(record.main_metric or "score")


def _score_method(family: Family) -> str:
    record = family.first
    score = next(filter(None, (main_score(record, model.scores) for model in record.models)), None)
    if score is None:
        return ""
    text = f"{score.examples:,} examples of the {score.split} split of {record.task}, {runs_text(family)}."
    if score.baseline is not None:
        text += f" Always giving the {constant_guess(score.metric)} would score {v.fraction(score.baseline)}."
    if score.low is not None:
        text += " Range of one run: 95% interval by bootstrap over the examples; of a change, paired by example."
    elif score.metric == "accuracy" and 0 < score.value < 1:
        error = 100 * math.sqrt(score.value * (1 - score.value) / score.examples)
        text += f" Standard error of one such accuracy, from the number of examples alone: {error:.1f} points."
    return text


def _first(record: Record, scope: str) -> Timing | None:
    return next(filter(None, (headline(record, model, scope) for model in record.models)), None)


def _speed_method(record: Record, spread: str) -> str:
    timing = _first(record, "encoder")
    if timing is None or timing.speedup is None:
        return ""
    what = "time from the first to the last encoder layer, the baseline's over this model's, paired round by round"
    return f"{what}; {_timing_words(record, timing, _speed_spread(timing, spread))}"


def _model_speed_method(record: Record, spread: str) -> str:
    timing = _first(record, "model")
    if timing is None or timing.speedup is None:
        return ""
    return f"time of one forward pass, paired as below; {_timing_words(record, timing, _speed_spread(timing, spread))}"


def _speed_spread(timing: Timing, spread: str) -> str:
    return spread if timing.speedup_low is None else spread.replace("quartiles of", "95% interval over")


def _latency_method(record: Record, spread: str) -> str:
    timing = _first(record, "model")
    return "" if timing is None else f"one forward pass of the whole model; {_timing_words(record, timing, spread)}"


def _energy_method(record: Record) -> str:
    timing = _first(record, "model")
    if timing is None or timing.energy is None:
        return f"{NOT_HERE}: {timing.energy_missing}." if timing is not None and timing.energy_missing else ""
    use = timing.energy
    return (
        f"joules of 1,000 texts, batch {timing.batch}, {timing.length} tokens, by {use.source}, and what the machine "
        f"spends when idle; {use.rounds} interleaved rounds of {use.round_s:g} s or more; median and quartiles."
    )


def _training_energy_method(record: Record) -> str:
    runs = [run for model in record.models for run in (model.training, *model.phases.values()) if run is not None]
    sources = dict.fromkeys(run.energy_source for run in runs if run.energy_source)
    reasons = dict.fromkeys(f"{NOT_HERE}: {run.energy_missing}" for run in runs if run.energy_missing)
    how = [f"by {source}, summed over all starts of a training" for source in sources]
    return f"{'; '.join((*how, *reasons))}." if sources or reasons else ""


def _timing_words(record: Record, timing: Timing, spread: str) -> str:
    return (
        f"batch {timing.batch}, {timing.length} tokens, {timing.backend}, {timing.dtype}, "
        f"{timing.attention} attention, {machine_words(record.environment, timing.threads)}; "
        f"{timing.rounds} interleaved rounds after warm-up; {spread}."
    )


def _flops_method(record: Record) -> str:
    size = next((model.size for model in record.models if model.size.flops is not None), None)
    if size is None:
        return ""
    setting = f" (batch {size.flops_batch}, {size.flops_length} tokens)" if size.flops_batch else ""
    return f"counted, not timed: floating-point operations of one forward pass{setting}."


def _difference_method(record: Record) -> str:
    if all(model.output_difference is None for model in record.models):
        return ""
    return (
        "largest difference of an output, the model with masks against the shrunk one, relative to the largest output."
    )


def _facts(record: Record) -> dict[str, str]:
    where = record.environment
    commit = where.commit and where.commit + (" with uncommitted changes" if where.dirty else "")
    facts = {
        "CPU": where.cpu,
        "CPU instruction sets": ", ".join(where.cpu_flags),
        "GPU": where.gpu,
        "Cores": str(where.cores),
        "Threads": str(where.threads),
        "Memory": f"{where.memory_gb:.1f} GB",
        "Machine": where.machine,
        "Python": where.python,
        "Packages": ", ".join(f"{name} {version}" for name, version in sorted(where.packages.items())),
        "Commit": commit,
    }
    return {name: text or v.DASH for name, text in facts.items()}

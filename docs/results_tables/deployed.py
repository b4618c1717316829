"""Tables of deployed speed: a family in every engine, against the fastest dense one at each setting."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from results_tables.values import RESULTS, Row, main_score, percent, records, rows, signed, spread, table
from sparsebert.deployment.manifest import Manifest
from sparsebert.records import ModelResult, Record, Score
from sparsebert.reports.tables import metric_name

FAMILY, DENSE = "deployed-family", "dense"
EXPORTED = (0, 2)
"""Seeds of the family whose models were exported."""
Setting = tuple[int, int]


def speed(study: str) -> str:
    """Median ms of each model in each runtime and setting, and how many times as fast as the fastest dense engine."""
    found = _timed(study, "bench")
    settings = _settings(found)
    best = {one: min(_ms(row) for row in _at(found, one) if row["model"] == DENSE) for one in settings}
    keys = list(dict.fromkeys((row["model"], row["backend"]) for row in found))
    lines = [[*key, *_cells(found, key, best)] for key in sorted(keys, key=lambda key: _place(found, key))]
    header = ["model", "runtime", *(f"{batch} x {length}: ms (times as fast)" for batch, length in settings)]
    return table(header, lines)


def again() -> str:
    """The family of the other seed on another day, in each model's fastest engine: fixed settings, then real texts."""
    fixed, real = _timed(FAMILY, "seed-2/bench"), _timed(FAMILY, "seed-2/texts/bench")
    names = list(dict.fromkeys(row["model"] for row in fixed))
    lines = [[name, *_fastest(name, fixed, real)] for name in names]
    header = [f"{batch} x {length}" for batch, length in _settings(fixed)]
    return table(["model", *header, "one real text at a time", "32 real texts"], lines)


def _cells(found: Sequence[Row], key: tuple[str, str], best: Mapping[Setting, float]) -> list[str]:
    cells = []
    for setting, fastest in best.items():
        own = [_ms(row) for row in _at(found, setting) if (row["model"], row["backend"]) == key]
        shown = "" if not own else f"{own[0]:,.0f}" if own[0] >= 100 else f"{own[0]:.1f}"
        cells.append(f"{shown} ({fastest / own[0]:.2f})" if own else "")
    return cells


def _at(found: Sequence[Row], setting: Setting) -> list[Row]:
    return [row for row in found if (row["batch"], row["length"]) == setting]


def _settings(found: Sequence[Row]) -> list[Setting]:
    return list(dict.fromkeys((row["batch"], row["length"]) for row in found))


def _timed(study: str, name: str) -> list[Row]:
    """The rows of what could run there."""
    return [row for row in rows(study, name) if "unavailable" not in row]


def _ms(row: Row) -> float:
    return next(one["median_ms"] for one in row["timings"] if one["scope"] == "model")


def _place(found: Sequence[Row], key: tuple[str, str]) -> tuple[int, int]:
    models, runtimes = (list(dict.fromkeys(row[name] for row in found)) for name in ("model", "backend"))
    return models.index(key[0]), runtimes.index(key[1])


def targets(study: str) -> str:
    """What was asked of each family in its engine: over the seeds, accuracy in float32 and the speed measured there."""
    lines = []
    for runtime, runs in _families(study).items():
        dense = main_score(runs[0], runs[0].models[0])
        for place, model in enumerate(runs[0].models[1:], start=1):
            models = [record.models[place] for record in runs]
            scores = [main_score(record, one) for record, one in zip(runs, models, strict=True)]
            whole = [speedup_in(one, runtime) for one in models]
            gone = statistics.median(one.sparsity.encoder_linear for one in models)
            disk = statistics.median(one.sparsity.bytes_on_disk for one in models)
            cells = [runtime, f"{model.target_value:g}x", str(len(runs))]
            cells += [spread(scores) if len(runs) > 1 else f"{scores[0]:.1f}"]
            cells += [signed(statistics.median(scores) - dense), ", ".join(f"{one:.2f}" for one in whole)]
            lines.append([*cells, percent(gone), percent(disk)])
    header = ["runtime", "asked", "seeds", "accuracy: median (min–max)", "change", "speedup measured, by seed"]
    return table([*header, "encoder weights removed", "fewer bytes on disk"], lines)


def short() -> str:
    """For the README: the family made for OpenVINO in 8 bits, its accuracy there, each model in its fastest engine."""
    runtime = "openvino-int8"
    timed, real = _timed(FAMILY, "bench"), _timed(FAMILY, "texts/bench")
    names = list(dict.fromkeys(row["model"] for row in timed))
    runs = _families(FAMILY)[runtime]
    lines = []
    for place, name in enumerate(names):
        scores = [main_score(record, record.models[place]) for record in runs]
        # The dense model is the same for all seeds.
        seeds = EXPORTED[:1] if name == DENSE else EXPORTED
        found = [one for seed in seeds for one in _manifest(FAMILY, name, seed).programs if one.runtime == runtime]
        exact = f"{scores[0]:.1f}" if name == DENSE else spread(scores)
        disk = statistics.median(one.bytes_on_disk for one in found)
        cells = [name, exact, _by_seed(one.scores[0].value for one in found), f"{disk / 1e6:.1f}"]
        lines.append([*cells, *_fastest(name, timed, real)])
    header = ["model", "accuracy in float32", "in 8 bits", "MB in 8 bits"]
    fixed = [f"{batch} x {length}" for batch, length in _settings(timed)]
    return table([*header, *fixed, "one real text at a time", "32 real texts"], lines)


def _fastest(name: str, fixed: Sequence[Row], real: Sequence[Row]) -> list[str]:
    """How many times as fast a model in its fastest engine is as the dense one in its own, at each setting."""
    cells = []
    for setting in _settings(fixed):
        best = {one: min(_ms(row) for row in _at(fixed, setting) if row["model"] == one) for one in (DENSE, name)}
        cells.append(f"{best[DENSE] / best[name]:.1f}x")
    for batch in dict.fromkeys(row["batch"] for row in real):
        rates = [(row["model"], row["real"]["texts_per_s"]) for row in real if row["batch"] == batch]
        best = {one: max(rate for model, rate in rates if model == one) for one in (DENSE, name)}
        cells.append(f"{best[name] / best[DENSE]:.1f}x")
    return cells


def _families(study: str) -> dict[str, list[Record]]:
    """The runs of each runtime, by seed."""
    found = dict[str, list[Record]]()
    for name, record in sorted(records(study).items()):
        if record.kind == "compress":
            found.setdefault(name.rpartition("-")[0], []).append(record)
    return found


def speedup_in(model: ModelResult, runtime: str) -> float:
    """How many times as fast as the dense model the whole was in that runtime."""
    whole = next(one for one in model.timings if (one.scope, one.backend) == ("model", runtime))
    assert whole.speedup
    return whole.speedup


def texts(study: str) -> str:
    """Texts a second of each model and runtime, percentiles of a batch, and the ratio to the fastest dense engine."""
    found = _timed(study, "texts/bench")
    batches = list(dict.fromkeys(row["batch"] for row in found))
    lines = []
    for batch in batches:
        own = [row for row in found if row["batch"] == batch]
        best = max(row["real"]["texts_per_s"] for row in own if row["model"] == DENSE)
        for row in sorted(own, key=lambda row: _place(found, (row["model"], row["backend"]))):
            real = row["real"]
            shares = " / ".join(f"{real[name]:.1f}" for name in ("p50_ms", "p95_ms", "p99_ms"))
            rate = f"{real['texts_per_s']:,.0f} ({real['texts_per_s'] / best:.2f})"
            lines.append([str(batch), row["model"], row["backend"], rate, shares])
    return table(["batch", "model", "runtime", "texts a second (times as fast)", "p50 / p95 / p99, ms"], lines)


def accuracy(study: str, seeds: Sequence[int] = (0,)) -> str:
    """Each program's main metric by seed beside torch in float32: pruning's loss and that of 8 bits apart."""
    dense, lines = [_manifest(study, DENSE, seed).scores[0] for seed in seeds], []
    for name in dict.fromkeys(row["model"] for row in rows(study, "bench")):
        wholes = [_manifest(study, name, seed) for seed in seeds]
        own = [one.scores[0] for one in wholes]
        lines.append([name, "torch, fp32", "", *_scored(own, dense), *[""] * len(seeds)])
        for place, first in enumerate(wholes[0].programs):
            programs = [one.programs[place] for one in wholes]
            disk = statistics.median(one.bytes_on_disk for one in programs)
            ways = dict.fromkeys(one.way for one in programs if one.way)
            cells = [name, ", ".join([first.runtime, *ways]), f"{disk / 1e6:.1f}"]
            scores = [one.scores[0] for one in programs]
            apart = [_apart(score, whole) for score, whole in zip(scores, own, strict=True)]
            lines.append([*cells, *_scored(scores, dense), *apart])
    of = [f", seed {seed}" if len(seeds) > 1 else "" for seed in seeds]
    header = ["model", "program", "MB", metric_name(dense[0].metric), "change from dense"]
    return table([*header, *(f"of that by the program (95 %){one}" for one in of)], lines)


def _scored(scores: Sequence[Score], dense: Sequence[Score]) -> list[str]:
    """In percent and as changes, by seed."""
    changes = [signed(100 * (one.value - other.value)) for one, other in zip(scores, dense, strict=True)]
    return [_by_seed(one.value for one in scores), ", ".join(changes)]


def _by_seed(values: Iterable[float]) -> str:
    return ", ".join(f"{100 * value:.1f}" for value in values)


def _apart(score: Score, whole: Score) -> str:
    by = signed(100 * (score.value - whole.value))
    if score.change_low is None or score.change_high is None:
        return by
    return f"{by} ({signed(100 * score.change_low)} to {signed(100 * score.change_high)})"


def _manifest(study: str, name: str, seed: int) -> Manifest:
    file = RESULTS / study / "records" / "manifests" / f"{name}-{seed}.json"
    return Manifest.model_validate_json(file.read_bytes())

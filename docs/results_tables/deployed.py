"""Tables of deployed speed: a family in every engine, against the fastest dense one at each setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from results_tables.values import RESULTS, Row, main_score, percent, records, rows, signed, table
from sparsebert.deployment.manifest import Manifest, ProgramFile
from sparsebert.reports.tables import metric_name

STUDY, SST2, DENSE = "deployed", "deployed-sst2", "dense"
Setting = tuple[int, int]


def speed(study: str) -> str:
    """Median ms of each model in each runtime and setting, and how many times as fast as the fastest dense engine."""
    found = [row for row in rows(study, "bench") if "unavailable" not in row]
    settings = list(dict.fromkeys((row["batch"], row["length"]) for row in found))
    best = {one: min(_ms(row) for row in _at(found, one) if row["model"] == DENSE) for one in settings}
    keys = list(dict.fromkeys((row["model"], row["backend"]) for row in found))
    lines = [[*key, *_cells(found, key, best)] for key in sorted(keys, key=lambda key: _place(found, key))]
    header = ["model", "runtime", *(f"{batch} x {length}: ms (times as fast)" for batch, length in settings)]
    return table(header, lines)


def _cells(found: Sequence[Row], key: tuple[str, str], best: Mapping[Setting, float]) -> list[str]:
    cells = []
    for setting, fastest in best.items():
        own = [_ms(row) for row in _at(found, setting) if (row["model"], row["backend"]) == key]
        shown = "" if not own else f"{own[0]:,.0f}" if own[0] >= 100 else f"{own[0]:.1f}"
        cells.append(f"{shown} ({fastest / own[0]:.2f})" if own else "")
    return cells


def _at(found: Sequence[Row], setting: Setting) -> list[Row]:
    return [row for row in found if (row["batch"], row["length"]) == setting]


def _ms(row: Row) -> float:
    return next(one["median_ms"] for one in row["timings"] if one["scope"] == "model")


def _place(found: Sequence[Row], key: tuple[str, str]) -> tuple[int, int]:
    models, runtimes = (list(dict.fromkeys(row[name] for row in found)) for name in ("model", "backend"))
    return models.index(key[0]), runtimes.index(key[1])


def targets() -> str:
    """What was asked of each family in its engine, and what was measured there in the end."""
    lines = []
    for runtime, record in records(SST2).items():
        for model in record.models[1:]:
            whole = next(one for one in model.timings if (one.scope, one.backend) == ("model", runtime))
            assert whole.speedup and whole.speedup_low and whole.speedup_high and model.target_value
            reached = f"{whole.speedup:.2f}x ({whole.speedup_low:.2f}–{whole.speedup_high:.2f})"
            apart = f"{signed(100 * (whole.speedup / model.target_value - 1))} %"
            cells = [runtime, f"{model.target_value:g}x", reached, apart]
            lines.append([*cells, percent(model.sparsity.encoder_linear), f"{main_score(record, model):.1f}"])
    header = ["runtime", "asked", "measured (95 %)", "apart", "encoder weights removed", "accuracy, not fine-tuned"]
    return table(header, lines)


def texts() -> str:
    """Texts a second of each model and runtime, percentiles of a batch, and the ratio to the fastest dense engine."""
    found = [row for row in rows(SST2, "texts/bench") if "unavailable" not in row]
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


def accuracy() -> str:
    """Each program's main metric beside torch in float32, and its bytes: pruning's loss and that of 8 bits apart."""
    lines = []
    dense = _manifest(DENSE).scores[0].value
    for name in (DENSE, "2x", "4x"):
        manifest = _manifest(name)
        own = manifest.scores[0]
        lines.append([name, "torch, fp32", "", f"{100 * own.value:.1f}", signed(100 * (own.value - dense)), ""])
        lines += [_program(name, one, own.value, dense) for one in manifest.programs]
    metric = _manifest(DENSE).scores[0].metric
    return table(
        ["model", "program", "MB", metric_name(metric), "change from dense", "of that by the program (95 %)"], lines
    )


def _program(name: str, one: ProgramFile, before: float, dense: float) -> list[str]:
    score = one.scores[0]
    by = signed(100 * (score.value - before))
    if score.change_low is not None and score.change_high is not None:
        by += f" ({signed(100 * score.change_low)} to {signed(100 * score.change_high)})"
    way = f", {one.way}" if one.way else ""
    cells = [name, f"{one.runtime}{way}", f"{one.bytes_on_disk / 1e6:.1f}", f"{100 * score.value:.1f}"]
    return [*cells, signed(100 * (score.value - dense)), by]


def _manifest(name: str) -> Manifest:
    return Manifest.model_validate_json((RESULTS / STUDY / "records" / "manifests" / f"{name}.json").read_bytes())

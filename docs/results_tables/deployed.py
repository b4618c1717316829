"""Tables of deployed speed: a family in every engine, against the fastest dense one at each setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from results_tables.values import RESULTS, Row, rows, signed, table
from sparsebert.deployment.manifest import Manifest, ProgramFile
from sparsebert.reports.tables import metric_name

STUDY, DENSE = "deployed", "dense"
Setting = tuple[int, int]


def speed() -> str:
    """Median ms of each model in each runtime and setting, and how many times as fast as the fastest dense engine."""
    found = [row for row in rows(STUDY, "bench") if "unavailable" not in row]
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

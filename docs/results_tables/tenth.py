"""Tables of a tenth and a twentieth of the bytes."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any

from results_tables.deployed import speedup_in
from results_tables.values import RESULTS, Row, main_score, percent, records, rows, signed, spread, table
from sparsebert.records import ModelResult, Record

STUDY, RUNTIME = "tenth-sst2", "openvino-int8"
SEEDS = (0, 1, 2)
FORMS = {"int8-int4": "int8, tables in int4", "int4": "int4"}
MEGA = 1e6


def family() -> str:
    """Models cut by obs and by layers, and the floor, over the seeds."""
    found = records(STUDY)
    dense = main_score(found["obs-0"], found["obs-0"].models[0])
    lines = [["dense", "1", f"{dense:.1f}", "", "1", *_sizes([found["obs-0"].models[0]]), "0 %"]]
    for arm, names in (("obs", ("vocabulary", "4x", "8x")), ("layers", ("4x",))):
        runs = [found[name] for name in (f"{arm}-{seed}" for seed in SEEDS) if name in found]
        lines += [_member(arm, name, runs if name != "vocabulary" else runs[:1], dense) for name in names]
    lines += [_floor(row, dense) for row in rows(STUDY, "static_floor")]
    header = ["model", "seeds", "accuracy: median (min–max)", "change", "speedup reached, by seed"]
    return table([*header, "MB on disk", "of the dense bytes", "encoder weights removed"], lines)


def stored() -> str:
    """The same models with weights in fewer bits than the 8 of the table above."""
    found = records(STUDY)
    dense = found["obs-0"].models[0]
    lines = []
    for name in ("4x", "8x"):
        runs = [found[f"obs-{seed}"] for seed in SEEDS]
        models = [_named(run, name) for run in runs]
        scores = [main_score(run, model) for run, model in zip(runs, models, strict=True)]
        lines.append(
            [name, "int8", *_form([model.size.bytes_on_disk or 0 for model in models], scores, dense, runs[0])]
        )
        for form, words in FORMS.items():
            checks, packs = ([_said(f"{what}/{name}-{form}-{seed}") for seed in SEEDS] for what in ("checks", "packs"))
            scores = [100 * check["second"][0]["value"] for check in checks]
            lines.append([name, words, *_form([pack["bytes_after"] for pack in packs], scores, dense, runs[0])])
    header = ["model", "weights in the file", "MB on disk: median (min–max)", "of the dense bytes"]
    return table([*header, f"accuracy: median (min–max), n = {len(SEEDS)} seeds", "change"], lines)


def speed() -> str:
    """Each model in its fastest engine against the fastest dense engine, at every setting, by seed."""
    found = [[row for row in rows(STUDY, f"seed-{seed}/bench") if "unavailable" not in row] for seed in SEEDS]
    settings = list(dict.fromkeys((row["batch"], row["length"]) for row in found[0]))
    lines = []
    for name in ("dense", "4x", "8x"):
        cells = [name]
        for setting in settings:
            own = [_fastest(run, name, setting) for run in found]
            gains = [_fastest(run, "dense", setting)[0] / ms for run, (ms, _) in zip(found, own, strict=True)]
            engines = ", ".join(dict.fromkeys(engine for _, engine in own))
            ratios = "" if name == "dense" else f" ({', '.join(f'{gain:.2f}' for gain in gains)})"
            cells.append(f"{statistics.median(ms for ms, _ in own):.2f} in {engines}{ratios}")
        lines.append(cells)
    return table(["model", *(f"{batch} x {length}: median ms (times as fast)" for batch, length in settings)], lines)


def _fastest(run: Sequence[Row], name: str, setting: tuple[int, int]) -> tuple[float, str]:
    """Milliseconds and the engine."""
    own = [row for row in run if row["model"] == name and (row["batch"], row["length"]) == setting]
    whole = ((next(one for one in row["timings"] if one["scope"] == "model"), row["backend"]) for row in own)
    return min((one["median_ms"], engine) for one, engine in whole)


def _said(name: str) -> dict[str, Any]:
    """What `check` or `pack` printed."""
    return json.loads((RESULTS / STUDY / "records" / f"{name}.json").read_text(encoding="utf-8"))


def _form(sizes: Sequence[int], scores: Sequence[float], dense: ModelResult, run: Record) -> list[str]:
    part = statistics.median(sizes) / (dense.size.bytes_on_disk or 1)
    change = signed(statistics.median(scores) - main_score(run, dense))
    return [spread([size / MEGA for size in sizes], 2), f"{100 * part:.1f} %", spread(scores), change]


def _named(record: Record, name: str) -> ModelResult:
    return next(model for model in record.models if model.name == name)


def _sizes(models: Sequence[ModelResult]) -> list[str]:
    size = statistics.median(model.size.bytes_on_disk or 0 for model in models)
    left = statistics.median(1 - model.sparsity.bytes_on_disk for model in models)
    return [f"{size / MEGA:.1f}", f"{100 * left:.1f} %"]


def _member(arm: str, name: str, runs: Sequence[Record], dense: float) -> list[str]:
    models = [_named(run, name) for run in runs]
    scores = [main_score(run, model) for run, model in zip(runs, models, strict=True)]
    speeds = [speedup_in(model, RUNTIME) for model in models]
    gone = percent(statistics.median(model.sparsity.encoder_linear for model in models))
    change = signed(statistics.median(scores) - dense)
    words = name if name == "vocabulary" else f"{name}, by {arm}"
    timed = ", ".join(f"{speed:.2f}" for speed in speeds)
    return [words, str(len(runs)), spread(scores), change, timed, *_sizes(models), gone]


def _floor(row: dict[str, Any], dense: float) -> list[str]:
    found = f"{row['accuracy']} ({row['lowest']}–{row['highest']})"
    part = f"{100 * row['megabytes'] / 90.87:.1f} %"
    words = f"vectors of {row['width']}, averaged"
    return [words, str(row["seeds"]), found, signed(row["accuracy"] - dense), "", str(row["megabytes"]), part, ""]

"""Tables of the studies on sparsity inside training."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from results_tables.values import (
    percent,
    records,
    rows,
    score,
    signed,
    spread,
    table,
    times,
)
from sparsebert.records import Record

NAMES = {"L0": "L0 (hard concrete)", "movement": "movement, top-k"}
WITH_TEACHER = ("fisher", "soft movement", "L0")
BASE = "magnitude"
# A run is said to have reached another sparsity than it was asked for from half a point of difference.
NOTICED = 0.005
Runs = Mapping[tuple[str, float], Mapping[int, Record]]

COSTS = {
    "hard masks (magnitude)": "hard masks (magnitude), between changes",
    "RigL, a step without a swap": "RigL, between swaps",
    "RigL, a step that swaps": "RigL, a step that swaps",
    "gate: movement, top-k every step": "gate: movement, masks drawn every step",
    "gate: movement, top-k every 10 steps": "gate: movement, masks drawn every 10 steps",
    "gate: soft movement + l0": "gate: soft movement with l0",
    "gate: hard concrete + lagrangian": "gate: hard concrete with Lagrangian, single weights",
    "gate: hard concrete, heads and neurons": "gate: hard concrete with Lagrangian, heads and neurons",
    "gate: soft mask every 10 steps": "gate: soft mask, drawn every 10 steps",
}


def training_cost() -> str:
    """The time of a step with rules over one without, which is the speedup the other way round."""
    found = rows("training-cost", "xeon")
    lines = [[name, _cost(times(found, variant, "dense"))] for variant, name in COSTS.items()]
    swap = times(found, "RigL, a step that swaps", "RigL, a step without a swap")
    lines.append(["RigL, a step that swaps, over one between swaps", _cost(swap)])
    return table(["rules", "step over dense: median (quartiles)"], lines)


def training_overhead() -> str:
    """The time of a training by the package over one by transformers' Trainer."""
    found = rows("training-cost", "overhead")
    lines = [
        [
            row["variant"],
            "" if row["baseline"] is None else _cost(row["times"], 3),
            f"{row['times']['median_ms'] / 1000:.1f}",
        ]
        for row in found
    ]
    return table(["training by", "over a bare Trainer: median (quartiles)", "s, median"], lines)


def _cost(found: Mapping[str, float], digits: int = 2) -> str:
    low, middle, high = (1 / found[key] for key in ("speedup_q75", "speedup", "speedup_q25"))
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def criteria_sst2(asked: float) -> str:
    """Accuracy of every method at one sparsity, and by how much it differs from magnitude with each seed."""
    runs = _runs("criteria-sst2", "plain")
    lines = []
    for method in _ranked(runs, asked, "accuracy"):
        own = runs[method, asked]
        lines.append(
            [_named(method), _scores(own, "accuracy"), _reached(own, asked), _against(runs, method, asked, "accuracy")]
        )
    return table(["method", "accuracy: median (min–max)", "zeros", "accuracy over magnitude, by seed"], lines)


def criteria_mrpc(asked: float) -> str:
    """F1 and accuracy of every method from a fine-tuned model, at one sparsity."""
    runs = _runs("criteria-mrpc", "tuned")
    lines = []
    for method in _ranked(runs, asked, "f1"):
        own = runs[method, asked]
        differences = [_against(runs, method, asked, metric) for metric in ("f1", "accuracy")]
        scores = [_scores(own, metric) for metric in ("f1", "accuracy")]
        lines.append([_named(method), *scores, _reached(own, asked), *differences])
    over = ["F1 over magnitude, by seed", "accuracy over magnitude, by seed"]
    return table(["method", "F1: median (min–max)", "accuracy: median (min–max)", "zeros", *over], lines)


def with_teacher(study: str, plain: str, taught: str, metric: str) -> str:
    """The best three methods without and with a teacher, with the difference by seed."""
    alone, after = _runs(study, plain), _runs(study, taught)
    lines = []
    for method in WITH_TEACHER:
        for asked in (0.5, 0.8, 0.9):
            one, other = alone[method, asked], after[method, asked]
            gains = _differences(other, one, metric)
            lines.append(
                [
                    _named(method),
                    percent(asked),
                    f"{_scores(one, metric)}{_at(one, asked)}",
                    f"{_scores(other, metric)}{_at(other, asked)}",
                    ", ".join(map(signed, gains)),
                    signed(statistics.median(gains)),
                ]
            )
    return table(["method", "asked", "without", "with a teacher", "difference by seed", "median"], lines)


def criteria_mrpc_pretrained() -> str:
    """F1 / accuracy from the pretrained weights, one seed."""
    runs = _runs("criteria-mrpc", "pretrained")
    methods = ("fisher", BASE, "RigL", "L0", "soft movement", "random")
    lines = [[_named(method), *(_both(runs[method, asked], asked) for asked in (0.5, 0.8, 0.9))] for method in methods]
    return table(["method", "50 % zeros", "80 %", "90 %"], lines)


def criteria_mrpc_batch_8() -> str:
    """F1 / accuracy at 80 % with batches of 8, from either start."""
    found = records("criteria-mrpc", "batch-8")
    starts = {"pretrained": "pretrained", "tuned": "fine-tuned"}
    lines = []
    for start, what in starts.items():
        for method in (BASE, "soft-movement"):
            runs = {one.seed: one for name, one in found.items() if name.startswith(f"{start}-{method}_")}
            lines.append([method.replace("-", " "), what, str(len(runs)), _both(runs, 0.8)])
    return table(["method", "start", "seeds", "F1 / accuracy, medians"], lines)


def _runs(study: str, folder: str) -> Runs:
    """Records by method and sparsity asked for, then by seed."""
    found: dict[tuple[str, float], dict[int, Record]] = {}
    for record in records(study, folder).values():
        method = str(record.recipe["name"]).removesuffix(", teacher")
        found.setdefault((method, float(record.recipe["sparsity"])), {})[record.seed] = record
    return {key: dict(sorted(of_seed.items())) for key, of_seed in found.items()}


def _ranked(runs: Runs, asked: float, metric: str) -> list[str]:
    methods = [method for method, level in runs if level == asked]
    return sorted(methods, key=lambda method: (-statistics.median(_values(runs[method, asked], metric)), method))


def _values(runs: Mapping[int, Record], metric: str) -> list[float]:
    return [score(record.models[-1].scores, metric) for record in runs.values()]


def _scores(runs: Mapping[int, Record], metric: str) -> str:
    found = _values(runs, metric)
    if len(found) == 1:
        return f"{found[0]:.1f}, one seed"
    return spread(found) + (f", {len(found)} seeds" if len(found) < 3 else "")


def _zeros(runs: Mapping[int, Record]) -> list[float]:
    return [record.models[-1].sparsity.encoder_linear for record in runs.values()]


def _reached(runs: Mapping[int, Record], asked: float) -> str:
    """The zeros of the encoder, as a range where a run missed what was asked."""
    found = _zeros(runs)
    if max(abs(one - asked) for one in found) < NOTICED:
        return percent(asked)
    low, high = f"{100 * min(found):.1f}", f"{100 * max(found):.1f}"
    return f"{low} %" if low == high else f"{low}–{high} %"


def _at(runs: Mapping[int, Record], asked: float) -> str:
    reached = _reached(runs, asked)
    return "" if reached == percent(asked) else f", at {reached}"


def _both(runs: Mapping[int, Record], asked: float) -> str:
    f1, accuracy = (statistics.median(_values(runs, metric)) for metric in ("f1", "accuracy"))
    return f"{f1:.1f} / {accuracy:.1f}{_at(runs, asked)}"


def _against(runs: Runs, method: str, asked: float, metric: str) -> str:
    if method == BASE:
        return ""
    return ", ".join(map(signed, _differences(runs[method, asked], runs[BASE, asked], metric)))


def _differences(own: Mapping[int, Record], base: Mapping[int, Record], metric: str) -> Sequence[float]:
    shared = [seed for seed in own if seed in base]
    return [_values({0: own[seed]}, metric)[0] - _values({0: base[seed]}, metric)[0] for seed in shared]


def _named(method: str) -> str:
    return NAMES.get(method, method)

"""The result in words: what became faster, smaller and worse, also when the answer is "no faster"."""

from __future__ import annotations

from collections.abc import Callable

from sparsebert.report import values as v
from sparsebert.report.families import Family
from sparsebert.report.rows import FamilyRow, family_rows
from sparsebert.report.tables import metric_name, target_text

_MISS = 0.05
_NOTICEABLE = 1.05


def sentences(family: Family) -> list[tuple[str, str]]:
    """Name and sentence of each model that is not the dense one."""
    return [(row.name, f"{sentence(row, 'dense')}.") for row in family_rows([family]) if not row.dense]


def sentence(row: FamilyRow, against: str) -> str:
    """Speed, score and size of one model against another, without its own name; what is not known is said."""
    in_runs = "" if row.runs == row.family_runs else f"in {row.runs} of {row.family_runs} runs"
    parts = [speed_words(row, against), score_words(row), size_words(row), _miss_words(row), in_runs]
    return ", ".join(part for part in parts if part)


def speed_words(row: FamilyRow, against: str) -> str:
    """`3.9× faster encoder than dense on this machine`, or that it is not faster."""
    speed = row.encoder_speedup
    if speed is None:
        return f"encoder speed against {against} not measured"
    low, high = (speed.mid if end is None else end for end in (speed.low, speed.high))
    if low <= 1 <= high or 1 / _NOTICEABLE < speed.mid < _NOTICEABLE:
        return f"encoder no faster and no slower than {against} on this machine ({v.times(speed.mid)})"
    if speed.mid < 1:
        return f"encoder slower than {against} on this machine ({v.times(speed.mid)})"
    return f"{speed.mid:.1f}× faster encoder than {against} on this machine"


def score_words(row: FamilyRow) -> str:
    """`0.7 points of accuracy lost`, `gained`, or that nothing is known."""
    if row.metric is None:
        return ""
    metric = metric_name(row.metric).lower()
    if row.change_points is None:
        return f"change of {metric} not measured"
    amount = v.signed(row.change_points.mid)
    if amount == "0.0":
        return f"no {metric} lost"
    points = "point" if amount[1:] == "1.0" else "points"
    return f"{amount[1:]} {points} of {metric} {'lost' if amount[0] == v.MINUS else 'gained'}"


def size_words(row: FamilyRow) -> str:
    """`61% smaller file`, or larger."""
    if row.bytes_sparsity is None:
        return ""
    smaller = row.bytes_sparsity.mid
    text = f"{100 * abs(smaller):.0f}%"
    return "file of the same size" if text == "0%" else f"{text} {'smaller' if smaller > 0 else 'larger'} file"


def _miss_words(row: FamilyRow) -> str:
    reached = _reached(row)
    if reached is None or row.target_value is None or reached >= 1 - _MISS:
        return ""
    return f"{100 * (1 - reached):.0f}% short of the target ({target_text(row.target_kind, row.target_value)})"


def _reached(row: FamilyRow) -> float | None:
    """Part of the target that was reached, 1 or more when met."""
    checks: dict[str, tuple[v.Value | None, Callable[[float, float], float]]] = {
        "speedup": (row.encoder_speedup, lambda got, asked: got / asked),
        "latency_ms": (row.latency_ms, lambda got, asked: asked / got),
        "size": (row.bytes_sparsity, lambda got, asked: asked / max(1 - got, 1e-9)),
        "sparsity": (row.encoder_sparsity, lambda got, asked: got / asked),
    }
    if row.target_kind is None or row.target_value is None:
        return None
    value, ratio = checks[row.target_kind]
    return None if value is None else ratio(value.mid, row.target_value)

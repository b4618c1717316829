"""The result in words: what became faster, smaller and worse, also when the answer is "no faster"."""

from __future__ import annotations

from collections.abc import Callable

from sparsebert.reports import values as v
from sparsebert.reports.asked import known_target, target_text
from sparsebert.reports.families import Family
from sparsebert.reports.rows import FamilyRow, family_rows
from sparsebert.reports.tables import constant_guess, metric_name

_MISS = 0.05
_NOTICEABLE = 1.05
# A range that reaches further from its middle than this part of it is told with it.
_NARROW = 0.05


def sentences(family: Family) -> list[tuple[str, str]]:
    """Name and sentence of each model that is not the dense one."""
    return [(row.name, f"{sentence(row, 'dense')}.") for row in family_rows([family]) if not row.dense]


def sentence(row: FamilyRow, against: str) -> str:
    """Speed, score and size of one model against another, without its own name; what is not known is said."""
    in_runs = "" if row.runs == row.family_runs else f"in {row.runs} of {row.family_runs} runs"
    parts = [speed_words(row, against), score_words(row), size_words(row), _miss_words(row), in_runs]
    return ", ".join(part for part in parts if part)


def speed_words(row: FamilyRow, against: str) -> str:
    """`3.6× faster than dense on this machine, encoder 3.9×`, or that it is not; the encoder's alone if need be.

    A range is told where it is wide, and stands for the number where it is too wide for one.
    """
    if row.model_speedup is None:
        return _speed_words(row.encoder_speedup, f"{against} on this machine", "encoder")
    inside = "" if row.encoder_speedup is None else f", encoder {v.show_times(row.encoder_speedup)}"
    return _speed_words(row.model_speedup, f"{against} on this machine", "") + inside


def _speed_words(speed: v.Value | None, against: str, what: str) -> str:
    before, behind = (f"{what} ", f" {what}") if what else ("", "")
    if speed is None:
        return f"{before}speed against {against.removesuffix(' on this machine')} not measured"
    low, high = (speed.mid if end is None else end for end in (speed.low, speed.high))
    wide = max(speed.mid - low, high - speed.mid) > _NARROW * speed.mid
    spread = f", noisy: {_between(speed, v.times)}" if wide and speed.runs == 1 else ""
    spread = f", {_between(speed, v.times)} over {speed.runs} runs" if wide and speed.runs > 1 else spread
    where = f"than {against} ({v.times(speed.mid)}{spread})"
    if low <= 1 <= high and wide:
        return f"{before}not shown to be faster or slower {where}"
    if low <= 1 <= high or 1 / _NOTICEABLE < speed.mid < _NOTICEABLE:
        return f"{before}no faster and no slower {where}"
    if speed.mid < 1:
        return f"{before}slower {where}"
    if v.is_noisy(speed):
        return f"{v.show_times(speed)} faster{behind} than {against} (too noisy to say)"
    told = f" ({spread.removeprefix(', ')})" if spread else ""
    return f"{speed.mid:.1f}× faster{behind} than {against}{told}"


def score_words(row: FamilyRow) -> str:
    """`0.7 points of accuracy lost`, or that no difference is shown, that it always says the same, or unknown."""
    if row.metric is None:
        return ""
    metric = metric_name(row.metric).lower()
    collapsed = _collapse_words(row, metric)
    change = _change_words(row, metric)
    if collapsed and (row.change_points is None or row.change_points.mid > 0 or _is_chance(row)):
        return collapsed
    return ", ".join(part for part in (change, collapsed) if part)


def _collapse_words(row: FamilyRow, metric: str) -> str:
    """That all runs, or some, say always the same, or are no better than that; empty where none is."""
    runs = max(row.one_class_runs, row.no_better_runs)
    if runs == 0:
        return ""
    said = f"no better than always giving the {constant_guess(str(row.metric))}"
    if row.one_class_runs == runs:
        said = f'predicts one class, "{row.only_class}", for every example'
    few = "" if runs == row.runs else f" in {runs} of {row.runs} runs"
    return f"{said}{few} ({metric} {v.show(row.score_points, v.percent)})"


def _is_chance(row: FamilyRow) -> bool:
    """Whether the change is within chance in most runs, or goes either way among them."""
    change = row.change_points
    if change is None:
        return False
    either = change.runs > 1 and change.low is not None and change.high is not None and change.low < 0 < change.high
    return either or 2 * row.within_chance_runs > row.runs


def _change_words(row: FamilyRow, metric: str) -> str:
    change = row.change_points
    if change is None:
        return f"change of {metric} not measured" + ("" if row.score_points is None else ": no dense model was scored")
    known = change.low is not None and change.high is not None and change.low != change.high
    spread, amount = _between(change, v.signed) if known else "", v.signed(change.mid)
    if amount == "0.0" and not known:
        return f"no {metric} lost"
    if _is_chance(row):
        return f"no difference in {metric} shown ({', '.join(filter(None, (f'{amount} points', spread)))})"
    points = "point" if amount[1:] == "1.0" else "points"
    words = "no" if amount == "0.0" else f"{amount[1:]} {points} of"
    return f"{words} {metric} {'gained' if amount[0] == '+' else 'lost'}" + (f" ({spread})" if spread else "")


def _between(value: v.Value, form: Callable[[float], str]) -> str:
    low, high = (value.mid if end is None else end for end in (value.low, value.high))
    return f"{form(low)} to {form(high)}"


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
    kind = known_target(row.target_kind)
    if kind is None or row.target_value is None:
        return None
    got = kind.reported(row)
    return None if got is None else kind.reached(got, row.target_value)

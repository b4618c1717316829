"""A number with its spread, and how numbers are written. An absent value is a dash, never a zero."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

DASH = "–"
MINUS = "−"
# An interval whose upper end is this many times the lower one says too little for a single number.
NOISY = 1.3


@dataclass(frozen=True)
class Value:
    """A number with its spread: of one run (`runs` = 1) an interval or quartiles, of several minimum and maximum."""

    mid: float
    low: float | None = None
    high: float | None = None
    runs: int = 1

    @property
    def reach(self) -> tuple[float, float]:
        """Lengths of the bars below and above it; 0 where there is none. An interval of a skewed sample may miss it."""
        low, high = (self.mid if end is None else end for end in (self.low, self.high))
        return max(0.0, self.mid - low), max(0.0, high - self.mid)


def surely_apart(one: Value | None, other: Value | None) -> bool:
    """Whether two numbers differ by more than chance: the ranges of both are known and share no value."""
    if one is None or other is None:
        return False
    low, high, other_low, other_high = one.low, one.high, other.low, other.high
    if low is None or high is None or other_low is None or other_high is None:
        return False
    return high < other_low or other_high < low


def over_runs(values: Iterable[Value | None]) -> Value | None:
    """One value as it is; several as median, minimum and maximum of their middles; none as None."""
    present = [value for value in values if value is not None]
    if len(present) < 2:
        return present[0] if present else None
    middles = [value.mid for value in present]
    return Value(statistics.median(middles), min(middles), max(middles), len(middles))


def exact(value: float | None) -> Value | None:
    """A number without spread."""
    return None if value is None else Value(value)


def show(value: Value | None, form: Callable[[float], str]) -> str:
    """The middle of a value, or a dash."""
    return DASH if value is None else form(value.mid)


def show_spread(value: Value | None, form: Callable[[float], str]) -> str:
    """`low–high` without the unit, or nothing where no spread is known or where it is too small to be seen."""
    if value is None or value.low is None or value.high is None:
        return ""
    low, high = form(value.low), form(value.high)
    if low == high == form(value.mid):
        return ""
    between = " to " if low[0] in f"{MINUS}+" or high[0] in f"{MINUS}+" else "–"
    return f"{low.rstrip('%×')}{between}{high.rstrip('%×')}"


def is_noisy(value: Value | None) -> bool:
    """Whether a positive number was measured too badly, in one run, to be given as one number."""
    if value is None or value.low is None or value.high is None:
        return False
    return value.runs == 1 and value.high > NOISY * value.low


def show_times(value: Value | None) -> str:
    """A ratio as `3.92×`, or as `about 2–4×` where it is too noisy for more."""
    if value is None or value.low is None or value.high is None or not is_noisy(value):
        return show(value, times)
    return f"about {value.low:.2g}–{value.high:.2g}×"


def show_interval(value: Value | None) -> str:
    """The range of a ratio, `3.85–3.97`; for a noisy one, which is a range itself, that it is too noisy to say."""
    return "too noisy to say" if is_noisy(value) else show_spread(value, times)


def signed(number: float) -> str:
    """Points with a sign: `−0.7`, `+0.3`, `0.0`."""
    text = f"{abs(number):.1f}"
    sign = MINUS if number < 0 else "+"
    return text if float(text) == 0 else sign + text


def percent(number: float) -> str:
    """A number of 0-100 as `91.2%`."""
    return f"{number:.1f}%".replace("-", MINUS)


def fraction(number: float) -> str:
    """A number of 0-1 as `91.2%`."""
    return percent(100 * number)


def times(number: float) -> str:
    """A ratio as `3.92×`."""
    return f"{number:.2f}×" if number < 10 else f"{number:.1f}×"


def digits(number: float) -> str:
    """Three significant digits, thousands separated: `0.0123`, `4.20`, `38.1`, `1,234`."""
    if number == 0:
        return "0"
    if abs(number) < 0.1:
        return f"{number:#.3g}"
    for limit, places in ((1, 3), (10, 2), (100, 1)):
        if abs(number) < limit:
            return f"{number:.{places}f}"
    return f"{number:,.0f}"


def count(number: float) -> str:
    """A number of parameters: `22.7 M`, `113 k`."""
    if number >= 1e6:
        return f"{number / 1e6:.1f} M"
    return f"{number / 1e3:.0f} k" if number >= 1e4 else f"{number:,.0f}"


def megabytes(number: float) -> str:
    """Megabytes of a million bytes: `90.9 MB`."""
    return f"{number:.1f} MB" if number >= 1 else f"{digits(number)} MB"

"""Times of calls in turns, and what they come to. Plain Python: exported folders are timed without torch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import quantiles
from typing import Any

WARM_CALLS = 3
FEWEST, MOST = 7, 41
LONGEST_S = 3.0
LEVEL = 0.05


def in_turns(
    calls: Sequence[Callable[[], object]],
    go_on: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Milliseconds of each call, one a round, after some to warm up: A B, B A, A B …, so that none is always second.

    At least FEWEST rounds, and at most MOST or what LONGEST_S allows. `go_on` may end it by an error, between rounds.
    """
    for call in calls:
        for _ in range(WARM_CALLS):
            go_on()
            call()
    found: list[list[float]] = [[] for _ in calls]
    end = clock() + LONGEST_S
    for turn in range(MOST):
        go_on()
        if turn >= FEWEST and clock() > end:
            break
        order = range(len(calls))
        for place in order if turn % 2 == 0 else reversed(order):
            start = clock()
            calls[place]()
            found[place].append(1000 * (clock() - start))
    return found


def spread(values: Sequence[float]) -> dict[str, Any] | None:
    """Median, quartiles and number of values; none of fewer than two, which have no spread."""
    if len(values) < 2:
        return None
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return {"median": middle, "q25": low, "q75": high, "n": len(values)}


def ratio(first: Sequence[float], second: Sequence[float]) -> dict[str, Any] | None:
    """How many times as much the first is as the second, turn by turn: the spread, and the 95 % interval of the median.

    Its ends `low` and `high` are two of the quotients, as far from the least and the greatest as signs allow (Conover
    1999, section 3.2); none for fewer than six, which give no such interval.
    """
    quotients = [one / other for one, other in zip(first, second, strict=True)]
    found = spread(quotients)
    return found and found | dict(zip(("low", "high"), _interval(sorted(quotients)), strict=True))


def _interval(ordered: Sequence[float]) -> tuple[float | None, float | None]:
    count = len(ordered)
    below = place = 0
    while 2 * (below := below + math.comb(count, place)) < LEVEL * 2**count:
        place += 1
    return (ordered[place - 1], ordered[-place]) if place else (None, None)

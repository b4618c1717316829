"""How fast texts were answered: texts per second, and percentiles of the time of a batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

PERCENTILES = (50, 95, 99)


@dataclass
class Stopwatch:
    """Counts texts and seconds; the time of a batch ends when its texts are told to be done."""

    _began: float = field(default_factory=time.perf_counter)
    _texts: list[int] = field(default_factory=list)
    _ends: list[float] = field(default_factory=list)

    def watching(self, done: Callable[[int], None]) -> Callable[[int], None]:
        """`done`, which is told how many texts are ready after each batch, with an eye on the clock."""
        self._began = time.perf_counter()

        def watched(count: int) -> None:
            self._texts.append(count)
            self._ends.append(time.perf_counter())
            done(count)

        return watched

    def said(self) -> str:
        """In words. What comes first, such as reading the tokens of all texts, counts into the first batch."""
        import numpy as np

        batches_ms = 1000 * np.diff([self._began, *self._ends])
        values = ", ".join(f"p{p} {np.percentile(batches_ms, p):.2f} ms" for p in PERCENTILES)
        texts = sum(self._texts)
        rate = texts / (self._ends[-1] - self._began)
        return f"{rate:.1f} texts per second; {len(batches_ms)} batches of up to {max(self._texts)}: {values}"

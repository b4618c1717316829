"""How fast texts were answered: texts per second, and percentiles of the time of a batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

PERCENTILES = (50, 95, 99)


@dataclass
class Stopwatch:
    """Counts texts and seconds; the time of a batch ends when its texts are told to be done."""

    _last: float = field(default_factory=time.perf_counter)
    _texts: list[int] = field(default_factory=list)
    _seconds: list[float] = field(default_factory=list)

    def watching(self, done: Callable[[int], None]) -> Callable[[int], None]:
        """`done`, which is told how many texts are ready after each batch, with an eye on the clock from now on."""
        self._last = time.perf_counter()

        def watched(count: int) -> None:
            now = time.perf_counter()
            self._texts.append(count)
            self._seconds.append(now - self._last)
            self._last = now
            done(count)

        return watched

    def said(self) -> str:
        """In words. What comes first, such as reading the tokens of all texts, counts into the first batch."""
        import numpy as np

        values = ", ".join(f"p{p} {1000 * np.percentile(self._seconds, p):.2f} ms" for p in PERCENTILES)
        rate = sum(self._texts) / sum(self._seconds)
        return f"{rate:.1f} texts per second; {len(self._texts)} batches of up to {max(self._texts)}: {values}"

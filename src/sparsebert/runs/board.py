"""Which of many jobs run, are done, or have failed: a live table on a terminal, else a line each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.box import SIMPLE_HEAD
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sparsebert.progress import console, line, plain

# Rows of those that failed; what runs is always shown.
MOST_FAILED = 10


@dataclass
class Board:
    """What has become of `total` jobs; there is no table where these speak for themselves, one after the other.

    `begun` and `ended` are to be called in turn for every job that is run, `found` for one that was done before.
    """

    total: int
    they_speak: bool
    seen: int = 0
    done: int = 0
    running: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def found(self, name: str) -> None:
        """It was finished before."""
        self.seen += 1
        self.done += 1
        line(f"[{self.seen}/{self.total}] {name} (done)")

    def begun(self, name: str) -> None:
        """It begins."""
        self.seen += 1
        self.running[name] = time.monotonic()
        if self.they_speak or not console.is_terminal:
            line(f"[{self.seen}/{self.total}] {name}")

    def ended(self, name: str, error: str | None = None) -> None:
        """It is done, or has failed."""
        seconds = _clock(time.monotonic() - self.running.pop(name))
        if error is not None:
            self.failed[name] = error
            line(f"{name} failed: {error}", style="red")
            return
        self.done += 1
        if not self.they_speak and not console.is_terminal:
            line(f"{name} is done, after {seconds}")

    def __rich__(self) -> Table:
        title = f"{self.done} of {self.total} done, {len(self.running)} running, {len(self.failed)} failed"
        drawn = Table(box=SIMPLE_HEAD, title=title, title_justify="left", show_edge=False)
        for column in ("point", "state", "time"):
            drawn.add_column(column, overflow="fold", justify="right" if column == "time" else "left")
        now = time.monotonic()
        for name in list(self.failed)[-MOST_FAILED:]:
            drawn.add_row(Text(plain(name)), Text("failed", style="red"), "")
        for name, start in self.running.items():
            drawn.add_row(Text(plain(name)), "running", _clock(now - start))
        return drawn


@contextmanager
def board(total: int, they_speak: bool) -> Iterator[Board]:
    """A board, shown for as long as the block lasts on a terminal, unless the jobs speak for themselves."""
    made = Board(total, they_speak)
    if they_speak or not console.is_terminal or console.quiet:
        yield made
        return
    with Live(made, console=console, refresh_per_second=2):
        yield made


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}"

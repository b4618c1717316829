"""A bar for work that may be over before anyone would look at one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PATIENCE_S = 2.0


@contextmanager
def bar_if_slow(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Give a function that is told how much more is done; after two seconds a terminal's stderr shows a bar."""
    console, started = Console(stderr=True), time.monotonic()
    parts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*parts, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(title, total=total)

    def done(more: int) -> None:
        if not bar.live.is_started and time.monotonic() - started > PATIENCE_S:
            bar.start()
        bar.advance(task, more)

    try:
        yield done
    finally:
        bar.stop()

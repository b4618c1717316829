"""The bar over a text that is read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from sparsebert.progress import console


@contextmanager
def reading_bar(total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar on terminals, to be told how many bytes are read and how many tokens they were."""
    parts = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[said]}"))
    bar = Progress(*parts, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)
    started = time.monotonic()
    with bar:
        task = bar.add_task("text to tokens", total=total, said="")

        def told(place: int, tokens: int) -> None:
            speed = tokens / (time.monotonic() - started) / 1e6
            bar.update(task, completed=place, said=f"{tokens / 1e6:,.1f} M tokens, {speed:.2f} M/s")

        yield told

"""What a long command says on stderr while it works: a line a step; bars and spinners on terminals only."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track

T = TypeVar("T")
# Control characters that are no white space, and those that turn the direction of writing.
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069]")
PATIENCE_S = 2.0
console = Console(stderr=True)
"""The one console for all that is no result, so that lines and bars do not disturb each other."""


def plain(text: str) -> str:
    """The text without control characters, for a terminal or a picture; white space stays."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def line(text: str, style: str | None = None) -> None:
    """Print one plain line, above a bar if there is one."""
    console.print(plain(text), style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)


def tracked(items: Sequence[T], title: str) -> Iterator[T]:
    """The items, with a bar while they are gone through."""
    if not console.is_terminal:
        yield from items
        return
    yield from track(items, title, console=console, transient=True)


@contextmanager
def silent(wanted: bool = True) -> Iterator[None]:
    """Inside, nothing is said and no bar is drawn, if that is wanted."""
    before = console.quiet
    console.quiet = wanted or before
    try:
        yield
    finally:
        console.quiet = before


@contextmanager
def busy(title: str) -> Iterator[Callable[[str], None]]:
    """A spinner for work whose length is not known; gives what changes its title."""
    if not console.is_terminal:
        yield lambda title: None
        return
    with console.status(escape(title)) as status:
        yield lambda title: status.update(escape(title))


@contextmanager
def bar_if_slow(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Give a function that is told how much more is done; after two seconds a terminal shows a bar.

    A `total` of none: what comes is not known.
    """
    started = time.monotonic()
    parts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # What is printed meanwhile is for stdout; rich would turn it to where the bar is.
    still = not console.is_terminal
    bar = Progress(*parts, console=console, transient=True, disable=still, redirect_stdout=False)
    task = bar.add_task(title, total=total)

    def done(more: int) -> None:
        if not bar.live.is_started and time.monotonic() - started > PATIENCE_S:
            bar.start()
        bar.advance(task, more)

    try:
        yield done
    finally:
        bar.stop()


class Steps:
    """Says which of how many steps a command is at, and how long it has been working."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._begun = 0
        self._started = time.monotonic()

    def begin(self, title: str) -> None:
        """The next step."""
        self._begun += 1
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        line(f"[{self._begun}/{self._total}] {minutes}:{seconds:02} {title}")

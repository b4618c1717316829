"""What every command prints with: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Container, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table

from sparsebert.files import write_text_atomically
from sparsebert.progress import plain


def show(drawn: RenderableType) -> None:
    """Print a table on stdout; wide enough for all columns where stdout is not a terminal.

    Cells that are strings are read as markup: what may hold brackets goes in as Text, or escaped.
    """
    console = _console()
    if not console.is_terminal:
        console = _console(width=160)
    console.print(_Harmless(drawn))


@dataclass(frozen=True)
class _Harmless:
    """What is drawn, with the control characters of its texts replaced; those that the console adds stay."""

    drawn: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for part in console.render(self.drawn, options):
            yield part if part.control else Segment(plain(part.text), part.style)


def table(*columns: str, right: Container[int] = (), whole: Container[int] = ()) -> Table:
    """An empty table. The columns at the places `right` are set to the right, those at `whole` are never broken."""
    made = Table(box=SIMPLE_HEAD, show_edge=False)
    for place, column in enumerate(columns):
        made.add_column(column, justify="right" if place in right else "left", overflow="fold", no_wrap=place in whole)
    return made


def say(text: str) -> None:
    """Print one plain line on stdout; nothing in it is read as markup."""
    _console(soft_wrap=True).print(plain(text), markup=False)


def remark(text: str) -> None:
    """Print one plain line on stderr: what belongs beside a result, not into it."""
    _console(stderr=True, soft_wrap=True).print(plain(text), markup=False)


def _console(**options: Any) -> Console:
    """A console that leaves words between colons as they are: names of models and recipes may hold them."""
    return Console(emoji=False, highlight=False, **options)


def put_json(value: Any) -> None:
    """Print JSON on stdout."""
    sys.stdout.write(json_text(value))


def write_json(value: Any, file: Path) -> None:
    """Write JSON into a file, atomically."""
    write_text_atomically(file, json_text(value))


def json_text(value: Any) -> str:
    """Readable JSON, letters as they are."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def quiet_where_needed(*models: str) -> AbstractContextManager[None]:
    """As `quiet_libraries`, but for exported folders, which are answered without these libraries."""
    from sparsebert.deployment.manifest import is_exported
    from sparsebert.files import home_of

    return nullcontext() if all(is_exported(home_of(model)) for model in models) else quiet_libraries()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep notices and bars of transformers and datasets off the screen."""
    from sparsebert.models.source import quiet

    # Imported later or not at all: half a second that predicting does without.
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
    with quiet():
        yield

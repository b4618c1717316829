"""The form in which the page gets what a picture is drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ChartData:
    """`kind` says how it is drawn, `words` what it shows, for readers that see none.

    `rows` have a value a column, None where it is not known; `more` is what the picture needs beside them.
    """

    kind: str
    title: str
    caption: str
    words: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    more: dict[str, Any]

    def plain(self) -> dict[str, Any]:
        """As JSON has it, for the page's script."""
        return {"kind": self.kind, "title": self.title, "columns": self.columns, "rows": self.rows, **self.more}


def short(number: float) -> float:
    """Five significant digits: more would be paid for in the size of the page, and nothing was measured so well."""
    return float(f"{number:.5g}")

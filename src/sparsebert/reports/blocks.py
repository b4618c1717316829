"""What the page is built of: blocks with a heading, alone or side by side, and the list of them at the top."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sparsebert.reports.escape import in_html
from sparsebert.reports.render import as_html
from sparsebert.reports.tables import Table


@dataclass(frozen=True)
class PageBlock:
    """A section of the page; `body` is HTML, `heading` text that no other block has."""

    heading: str
    body: str
    css_class: str = ""

    @property
    def anchor(self) -> str:
        """What a link inside the page leads to."""
        return re.sub(r"[^a-z0-9]+", "-", self.heading.lower()).strip("-")


# Blocks side by side.
PageRow = tuple[PageBlock, ...]


def drawn(row: PageRow) -> str:
    """The blocks of a row as HTML."""
    blocks = "".join(map(_section, row))
    return f'<div class="pair">{blocks}</div>' if len(row) > 1 else blocks


def _section(block: PageBlock) -> str:
    opened = f'<section id="{block.anchor}" class="{block.css_class}">'
    return f"{opened}<h2>{in_html(block.heading)}</h2>{block.body}</section>"


def contents(rows: Sequence[PageRow]) -> str:
    """Links to all blocks."""
    links = "".join(f'<li><a href="#{block.anchor}">{in_html(block.heading)}</a></li>' for row in rows for block in row)
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>'


def in_scroll(table: Table, css_class: str = "") -> str:
    """A table that may be wider than the page."""
    return f'<div class="scroll">{as_html(table, css_class)}</div>'

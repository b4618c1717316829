"""Texts of a record, made harmless for where they go: they are shown letter by letter, and never read as markup."""

from __future__ import annotations

import html
import re

from sparsebert.progress import plain

__all__ = ["in_html", "in_markdown", "plain"]

_MARKS = re.compile(r"[\\`*_\[\]|~#$]")
# What starts a list, a line or a heading's underline, where it stands first.
_STARTS = re.compile(r"^(\d{0,9})([-+.)](?=\s|$)|[-=](?=[-=\s]*$))")
# What makes links of bare addresses.
_LINKS = re.compile(r"(?=://)|(?<=www)(?=\.)|(?<=\w)(?=@\w)", re.IGNORECASE)


def in_html(text: str) -> str:
    """For the inside of an HTML element, or of an attribute in quotes."""
    return html.escape(plain(text))


def in_markdown(text: str) -> str:
    """One line of Markdown, also inside a table's cell or at the start of a line."""
    line = html.escape(" ".join(plain(text).split()), quote=False)
    line = _STARTS.sub(r"\1\\\2", _MARKS.sub(r"\\\g<0>", line))
    return _LINKS.sub(r"\\", line)

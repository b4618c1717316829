"""Texts of a record, made harmless for where they go: they are shown letter by letter, and never read as markup."""

from __future__ import annotations

import html
import re

# Control characters that are no white space, and those that turn the direction of writing.
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069]")
_MARKS = re.compile(r"[\\`*_\[\]|~#$]")
# What starts a list, a line or a heading's underline, where it stands first.
_STARTS = re.compile(r"^(\d{0,9})([-+.)](?=\s|$)|[-=](?=[-=\s]*$))")
# What makes links of bare addresses.
_LINKS = re.compile(r"(?=://)|(?<=www)(?=\.)|(?<=\w)(?=@\w)", re.IGNORECASE)


def plain(text: str) -> str:
    """The text without control characters, for a terminal or a picture; white space stays."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def in_html(text: str) -> str:
    """For the inside of an HTML element, or of an attribute in quotes."""
    return html.escape(plain(text))


def in_markdown(text: str) -> str:
    """One line of Markdown, also inside a table's cell or at the start of a line."""
    line = html.escape(" ".join(plain(text).split()), quote=False)
    line = _STARTS.sub(r"\1\\\2", _MARKS.sub(r"\\\g<0>", line))
    return _LINKS.sub(r"\\", line)

"""An HTML file that needs nothing else: its style is in it, and it may load no script and nothing from a network."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files

from sparsebert.reports.escape import in_html
from sparsebert.version import __version__

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def html_document(title: str, parts: Iterable[str]) -> str:
    """The whole file as text. `title` is text, `parts` are HTML, of which empty ones are left out."""
    style = files("sparsebert.reports").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{in_html(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, parts))
        + f"\n<footer>SparseBERT {in_html(__version__)}</footer>\n</main>\n</body>\n</html>\n"
    )

"""Hooks of mkdocs: links that leave docs/ lead to the repository, and no built page loads anything from another host.

Warnings fail the build, which is strict.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = Path(__file__).parent.name
REPOSITORY = "https://github.com/sparsebert/sparsebert"
LINK = re.compile(r"(?<=\]\()(?P<path>[^)#\s:]+)")
# A tag that loads what it names; `a` only leads there, and so does `link` with a relation such as canonical.
LOADING_TAG = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*>")
LEADING_RELATION = re.compile(r"\brel=[\"']?(?:canonical|alternate|prev|next)\b")
OTHER_HOST = re.compile(r"\b(?:src|href|srcset)=[\"']?((?:https?:)?//[^\"'\s>]+)")
STYLE_OF_OTHER_HOST = re.compile(r"(?:@import\s*|url\()\s*[\"']?((?:https?:)?//[^\"')\s;]+)")
# The theme loads the library for these diagrams from a CDN once a page has one.
DIAGRAM = re.compile(r"class=\"mermaid\b")
LOG = logging.getLogger("mkdocs.hooks.site")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page's text, with links from the site into the rest of the repository led to GitHub."""
    return link_to_repository(markdown, page.file.src_uri)


def link_to_repository(markdown: str, page: str) -> str:
    """Lead relative links that the site has no page for to GitHub; `page` is the path of the page in docs/."""

    def lead(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(DOCS, posixpath.dirname(page), match["path"]))
        is_on_site = path.startswith(f"{DOCS}/") and not path.endswith(".py") and not (ROOT / path).is_dir()
        if is_on_site or not (ROOT / path).exists():
            return match[0]
        return f"{REPOSITORY}/{'tree' if (ROOT / path).is_dir() else 'blob'}/main/{path}"

    return LINK.sub(lead, markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Warn of each thing that a built page would load from another host."""
    site = Path(config.site_dir)
    for file in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        for found in loaded_from_elsewhere(file.read_text(encoding="utf-8")):
            LOG.warning("%s loads %s from another host", file.relative_to(site), found)


def loaded_from_elsewhere(text: str) -> list[str]:
    """Addresses on other hosts from which a page or a style sheet loads scripts, styles, fonts or images."""
    tags = [tag for tag in LOADING_TAG.findall(text) if not LEADING_RELATION.search(tag)]
    found = [address for tag in tags for address in OTHER_HOST.findall(tag)]
    return found + STYLE_OF_OTHER_HOST.findall(text) + (["mermaid"] if DIAGRAM.search(text) else [])

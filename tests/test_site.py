"""The site of the documentation: every page is on it, links lead somewhere, and it loads nothing from other hosts."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOB = "https://github.com/sparsebert/sparsebert/blob/main"


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("site_hooks")


def pages_of(entry: Any) -> Iterator[str]:
    """The pages of an entry of `nav`: a page, a title with a page, or a title with a list of entries."""
    if isinstance(entry, str):
        yield entry
    else:
        for one in entry if isinstance(entry, list) else entry.values():
            yield from pages_of(one)


def test_the_navigation_names_every_page_once() -> None:
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert sorted(pages_of(navigation)) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize(
    ("page", "link", "wanted"),
    [
        ("index.md", "../CONTRIBUTING.md", f"{BLOB}/CONTRIBUTING.md"),
        ("concepts.md", "../README.md#limits", f"{BLOB}/README.md#limits"),
        ("results/forms.md", "../../results/forms/README.md", f"{BLOB}/results/forms/README.md"),
        ("recipes.md", "../src/sparsebert/recipes", f"{BLOB.replace('blob', 'tree')}/src/sparsebert/recipes"),
        ("index.md", "generate.py", f"{BLOB}/docs/generate.py"),
    ],
)
def test_links_out_of_the_pages_lead_to_the_repository(hooks: ModuleType, page: str, link: str, wanted: str) -> None:
    assert hooks.link_to_repository(f"See [one]({link}), two.", page) == f"See [one]({wanted}), two."


@pytest.mark.parametrize(
    "link", ["concepts.md", "adr/0003-own-surgeon.md#context", "#here", "https://example.org/a", "../no/such/file.md"]
)
def test_other_links_stay(hooks: ModuleType, link: str) -> None:
    assert hooks.link_to_repository(f"[one]({link})", "index.md") == f"[one]({link})"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('<script defer src="https://cdn.example/a.js"></script>', ["https://cdn.example/a.js"]),
        ('<link rel="stylesheet" href="//fonts.example/css?family=A">', ["//fonts.example/css?family=A"]),
        ("<img alt=a src=http://example.org/a.png>", ["http://example.org/a.png"]),
        ("@import 'https://example.org/a.css';", ["https://example.org/a.css"]),
        ("@font-face { src: url(https://example.org/a.woff2) }", ["https://example.org/a.woff2"]),
        ('<pre class="mermaid">', ["mermaid"]),
        ('<a href="https://example.org">there</a> <link rel="canonical" href="https://example.org">', []),
        ('<script src="../assets/a.js"></script> <link rel="stylesheet" href="a.css"> <img src="a.png">', []),
        ("a { mask: url('data:image/svg+xml;charset=utf-8,<svg xmlns=\"http://www.w3.org/2000/svg\"/>') }", []),
    ],
)
def test_what_is_loaded_from_other_hosts_is_found(hooks: ModuleType, text: str, found: list[str]) -> None:
    assert hooks.loaded_from_elsewhere(text) == found

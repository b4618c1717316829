"""Rewrite the tables of results/*/README.md and docs/results/*.md from the records: `make results`."""

from __future__ import annotations

from results_tables.pages import pages, rewritten
from sparsebert.files import write_text_atomically


def main() -> None:
    """Write every page anew that would change."""
    for page in pages():
        old = page.read_text(encoding="utf-8")
        new = rewritten(old)
        if new != old:
            write_text_atomically(page, new)


if __name__ == "__main__":
    main()

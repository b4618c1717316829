"""GLUE as files and as blocks of a page: the three tables, and what else there is to say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sparsebert.records import Record
from sparsebert.reports.blocks import PageBlock, PageRow, in_scroll
from sparsebert.reports.document import html_document
from sparsebert.reports.escape import in_html, in_markdown
from sparsebert.reports.glue import GlueScores, average_table, glue_scores, glue_table, metric_table
from sparsebert.reports.latex import as_latex
from sparsebert.reports.render import as_markdown
from sparsebert.reports.tables import Table
from sparsebert.tasks.glue import GLUE

TITLE = "GLUE"
RESULTS = "glue.json"
"""What a GLUE run leaves in its folder, by which that is known."""


def glue_blocks(scores: GlueScores, notes: Sequence[str]) -> list[PageRow]:
    """For the top of a report."""
    said = "".join(f"<li>{in_html(note)}</li>" for note in notes)
    about = [PageBlock("About these scores", f'<ul class="notes">{said}</ul>')] if notes else []
    return [(block,) for block in (*(PageBlock(one.title, in_scroll(one)) for one in _tables(scores)), *about)]


def blocks_of(folder: Path, records: Sequence[Record]) -> list[PageRow]:
    """Those of a folder of runs, if it is that of a GLUE run; none for any other."""
    if not (folder / RESULTS).is_file():
        return []
    failed = Counter(record.task for record in records if record.status == "failed" and record.task in GLUE)
    return glue_blocks(glue_scores(records, failed), ())


def glue_files(scores: GlueScores, notes: Sequence[str]) -> dict[str, str]:
    """The tables as Markdown, LaTeX and HTML, by the name of the file."""
    tables = _tables(scores)
    markdown = [f"## {one.title}\n\n{as_markdown(one)}" for one in tables]
    body = [f"<h2>{in_html(block.heading)}</h2>{block.body}" for (block,) in glue_blocks(scores, notes)]
    return {
        "glue.md": "\n".join([*markdown, *(f"- {in_markdown(note)}" for note in notes), ""]),
        "glue.tex": "\n".join(map(as_latex, tables)),
        "glue.html": html_document(TITLE, [f"<h1>{TITLE}</h1>", *body]),
    }


def _tables(scores: GlueScores) -> list[Table]:
    return [glue_table(scores), average_table(scores), metric_table(scores)]

"""Studies of a run on its page: question, answer, figure and table of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from sparsebert.errors import UserError
from sparsebert.reports.blocks import PageBlock, PageRow, in_scroll
from sparsebert.reports.chart_plots import draw_chart
from sparsebert.reports.escape import in_html
from sparsebert.reports.figures import picture
from sparsebert.reports.study import StudyResult, study_table
from sparsebert.reports.study_files import read_study, study_files


def study_rows(runs: Sequence[Path]) -> Iterator[PageRow]:
    """A block for the studies of each run that has some; one that cannot be read is told in a line."""
    asked = {run: files for run in runs if (files := study_files(run))}
    names = [file.parents[1].resolve().name for file, *_ in asked.values()]
    for place, files in enumerate(asked.values()):
        of = "" if len(asked) == 1 else f" of {names[place]}"
        again = "" if names.count(names[place]) == 1 else f" ({place + 1})"
        yield (PageBlock(f"Studies{of}{again}", "".join(map(_study, files))),)


def _study(file: Path) -> str:
    try:
        return study_html(read_study(file))
    except UserError as error:
        return f'<p class="failed">{in_html(str(error))}</p>'


def study_html(found: StudyResult) -> str:
    """One study; its table is folded in."""
    figure = picture(lambda theme: draw_chart(found.chart, theme), found.answer)
    of = ", ".join(found.checkpoints)
    return (
        f"<h3>{in_html(found.question)}</h3><p><strong>{in_html(found.answer)}</strong></p>{figure}"
        f"<details><summary>All numbers, and how they are computed: {in_html(of)}</summary>"
        f'<p class="caption">{in_html(found.definition)}</p>{in_scroll(study_table(found))}</details>'
    )

"""What a GLUE run gives back, and the files that it leaves: tables, a page, and answers to the test sets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sparsebert.errors import UserError, unknown
from sparsebert.files import home_of, write_text_atomically
from sparsebert.records import Record, read_record, record_files
from sparsebert.reports.glue import GlueScores, Reference, average_table, glue_scores, glue_table
from sparsebert.reports.glue_json import glue_json
from sparsebert.reports.glue_page import RESULTS, glue_blocks, glue_files
from sparsebert.reports.page import write_report
from sparsebert.reports.render import as_html
from sparsebert.runs.glue import GlueRun
from sparsebert.runs.glue_answers import submissions


@dataclass(frozen=True)
class GlueResult:
    """The records by the names of their points, their scores, and what else there is to say."""

    folder: Path
    records: Mapping[str, Record]
    scores: GlueScores
    notes: tuple[str, ...]
    failed: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        return glue_json(self.scores, self.notes, self.failed)

    def _repr_html_(self) -> str:
        return as_html(glue_table(self.scores)) + as_html(average_table(self.scores))


def finish_glue(
    run: GlueRun, folder: Path, made: Mapping[str, Record], baseline: str | None, reference: Reference | None
) -> GlueResult:
    """Put the records together, and write the tables, the page and what was answered for the server.

    `reference` is of other runs; without it the `baseline` names one of the models. Raises UserError for another name.
    """
    records = {point.name: made[point.name] for point in run.points if point.name in made}
    failed = tuple(p.name for p in run.points if p.name not in records or records[p.name].status == "failed")
    absent = Counter(point.recipe.task for point in run.points if point.name in failed)
    scores = glue_scores(list(records.values()), absent, reference)
    if baseline is not None and reference is None:
        scores = replace(scores, reference=_own_reference(scores, baseline))
    notes = (f"Plan: {run.plan.name}" + (f" ({run.plan.source})" if run.plan.source else ""),)
    if run.test:
        notes += tuple(submissions(folder, scores.tasks))
    found = GlueResult(folder, records, scores, notes, failed)
    if records:
        _write(found)
    return found


def reference_of(name: str | None) -> Reference | None:
    """The scores of other runs, by their folder; None where `name` is none. Raises UserError for one without runs."""
    if name is None or not home_of(name).exists():
        return None
    records = [read_record(file) for file in record_files(home_of(name))]
    scores = glue_scores(records)
    if not scores.tasks:
        raise UserError("The baseline has no scores of GLUE tasks", got=name)
    return scores.as_reference(home_of(name).name, next(iter(scores.tasks)))


def _own_reference(scores: GlueScores, name: str) -> Reference:
    """The scores of one of the models itself. Raises UserError for another name."""
    if name not in scores.tasks:
        raise unknown("baseline, which is no folder either", name, scores.tasks)
    return scores.as_reference(name, name)


def _write(found: GlueResult) -> None:
    plain = json.dumps(found.plain(), indent=1, ensure_ascii=False) + "\n"
    for name, text in {**glue_files(found.scores, found.notes), RESULTS: plain}.items():
        write_text_atomically(found.folder / name, text)
    records, runs = list(found.records.values()), [found.folder / name for name in found.records]
    blocks = glue_blocks(found.scores, found.notes)
    write_report(records, found.folder / "report.html", found.folder / "plots", runs, blocks)

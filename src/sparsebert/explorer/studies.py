"""The studies that lie beside a model's run, with the pictures that were drawn when they were asked."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sparsebert.errors import UserError
from sparsebert.explorer.models import ShownModel
from sparsebert.reports.study import StudyResult, study_table
from sparsebert.reports.study_files import read_study, study_files
from sparsebert.reports.tables import Table


@dataclass(frozen=True)
class ShownStudy:
    """A study as the page has it; `picture` is what an image loads, empty without one."""

    found: StudyResult
    table: Table
    picture: str


def shown_studies(model: ShownModel) -> Iterator[ShownStudy | str]:
    """Of the run of a model, in place of one that cannot be read a line; none of medians of several runs."""
    if len(model.family.records) > 1:
        return
    for file in study_files(model.file):
        try:
            found = read_study(file)
        except UserError as error:
            yield str(error)
        else:
            yield ShownStudy(found, study_table(found), _picture(file.with_suffix(".png")))


def _picture(file: Path) -> str:
    if not file.is_file():
        return ""
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode("ascii")

"""Runs that a study is asked about, as their records: no model is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsebert.errors import UserError
from sparsebert.files import home_of
from sparsebert.records import FILE_NAME, Record, record_files
from sparsebert.studies.study import StudyOptions


@dataclass(frozen=True)
class AskedRecords:
    """Records under short names that differ, in the order given, their files, and what else was asked.

    `progress` is told in words what is being done.
    """

    records: Mapping[str, Record]
    files: Mapping[str, Path]
    options: StudyOptions
    progress: Callable[[str], None] = lambda text: None


def files_of(names: Sequence[str]) -> dict[str, Path]:
    """The record files of folders of runs and sweeps by short names. Raises UserError where is none, or one twice."""
    files = [file for name in names for file in record_files(home_of(name))]
    if len({file.resolve() for file in files}) < len(files):
        raise UserError("The same run is given twice", got=", ".join(names))
    homes = [file.resolve().parent if file.name == FILE_NAME else file for file in files]
    briefs = [home.name for home in homes]
    labels = [str(home) if briefs.count(home.name) > 1 else home.name for home in homes]
    return dict(zip(labels, files, strict=True))

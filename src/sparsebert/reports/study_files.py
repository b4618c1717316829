"""Studies as files: what `sparsebert study -o DIR` writes, and what lies in the folder `studies` of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sparsebert.errors import UserError
from sparsebert.files import write_bytes_atomically, write_text_atomically
from sparsebert.records import FILE_NAME
from sparsebert.reports.chart_plots import draw_chart
from sparsebert.reports.charts import StudyChart
from sparsebert.reports.study import StudyColumn, StudyResult, StudyRow, study_json, study_page
from sparsebert.reports.theme import pictures_wanted, to_png

FOLDER = "studies"
"""Of a run: studies that are written there are shown with the run."""


def check_folder(folder: Path) -> None:
    """Raises UserError where no folder can be: nothing has been computed then, and nothing is written."""
    taken = next((part for part in (folder, *folder.parents) if part.exists()), None)
    if taken is not None and not taken.is_dir():
        raise UserError("The output is no folder", got=taken, fix="give another --output")


def write_study(found: StudyResult, folder: Path, command: str) -> list[Path]:
    """Write `STUDY.md`, `STUDY.json` and, where pictures are wanted, `STUDY.png` into `folder`; gives their paths."""
    name = found.study.replace(":", "-")
    paths = {ending: folder / f"{name}.{ending}" for ending in ("png", "json", "md")}
    picture = to_png(draw_chart(found.chart)) if pictures_wanted() else None
    text = json.dumps({**study_json(found), "command": command}, indent=1, ensure_ascii=False) + "\n"
    page = study_page(found, command, paths["png"].name if picture else None)
    if picture:
        write_bytes_atomically(paths["png"], picture)
    write_text_atomically(paths["json"], text)
    write_text_atomically(paths["md"], page)
    return [path for ending, path in paths.items() if picture or ending != "png"]


def study_files(run: Path) -> list[Path]:
    """The studies that lie beside a record, given as a run's folder or as the file, in the order of their names."""
    home = run.parent if run.name == FILE_NAME else run
    return sorted((home / FOLDER).glob("*.json"))


def read_study(file: Path) -> StudyResult:
    """What was written as JSON, once more. Raises UserError for a file that is no study."""
    from pydantic import TypeAdapter, ValidationError

    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        chart = TypeAdapter(StudyChart).validate_python(told["chart"])
        columns = TypeAdapter(tuple[StudyColumn, ...]).validate_python(told["columns"])
        return StudyResult(
            told["study"],
            told["question"],
            told["answer"],
            told["definition"],
            tuple(told["checkpoints"]),
            columns,
            tuple(_row(row, told["heading"], columns) for row in told["rows"]),
            chart,
            told["heading"],
            told["settings"],
            tuple(told["notes"]),
        )
    except (ValueError, KeyError, TypeError, ValidationError):
        raise UserError("This is no study that can be read", got=file, fix="ask it again, or remove the file") from None


def _row(row: dict[str, Any], heading: str, columns: tuple[StudyColumn, ...]) -> StudyRow:
    return StudyRow(row.get(heading, ""), tuple(row.get(column.key) for column in columns))

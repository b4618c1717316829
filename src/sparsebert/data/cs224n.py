"""The tasks of Stanford's CS224N default project, from the course's own files or from Parquet files as of GLUE.

The course's files are tab separated, may be compressed (`.csv.gz`), and hold a few rows that lack a label.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from pathlib import Path

import pyarrow as pa

from sparsebert.data.glue import RawSplit, folder_splits
from sparsebert.data.read import missing_column
from sparsebert.data.text import decoded
from sparsebert.errors import UserError
from sparsebert.tasks.kind import task_kind
from sparsebert.tasks.numbers import number
from sparsebert.tasks.table import CourseFiles, TaskSpec

SUFFIXES = (".csv", ".csv.gz")
HANDOUT = "https://github.com/gpoesia/minbert-default-final-project/tree/main/data"


def course_splits(spec: TaskSpec, folder: Path | None) -> dict[str, RawSplit]:
    """Train and validation rows of a task of the course, keyed by split.

    `folder` holds the course's own files, or a folder of the task with `train.parquet` and `validation.parquet`; the
    latter win. Raises UserError, which says where a file was looked for and where it comes from, for one that is
    missing, and for one that cannot be read.
    """
    assert spec.course is not None
    if folder is None:
        raise UserError(f"Task '{spec.name}' needs the files of the course", fix=f"give their folder with {_how(spec)}")
    if any((folder / name).is_dir() for name in spec.folders):
        return folder_splits(spec, folder)
    names = {spec.train_split: spec.course.train, spec.validation_splits[0]: spec.course.validation}
    files = {split: _found(spec, folder, stem) for split, stem in names.items()}
    return {split: _read(spec, spec.course, split, file) for split, file in files.items()}


def _found(spec: TaskSpec, folder: Path, stem: str) -> Path:
    for suffix in SUFFIXES:
        if (folder / f"{stem}{suffix}").is_file():
            return folder / f"{stem}{suffix}"
    looked = f"{folder}, where neither {stem}.csv nor {stem}.csv.gz nor a folder {' or '.join(spec.folders)} is"
    raise UserError(f"A file of task '{spec.name}' is missing: {stem}.csv", got=looked, fix=f"give {_how(spec)}")


def _how(spec: TaskSpec) -> str:
    assert spec.course is not None
    wanted = f"{spec.course.train}.csv and {spec.course.validation}.csv"
    return f"--data DIR (it must hold {wanted}, which {HANDOUT} has, or DIR/{spec.name}/*.parquet)"


def _read(spec: TaskSpec, course: CourseFiles, split: str, file: Path) -> RawSplit:
    """The rows that have a label, under the names of the table."""
    lines = _lines(_text(file), file)
    header = [name.strip() for name in lines[0][1]] if lines else []
    places = {}
    for new, old in {**{name: name for name in spec.columns}, spec.label: course.label}.items():
        if header.count(old) != 1:
            raise missing_column(old, [name for name in header if name], file.name)
        places[new] = header.index(old)
    rows = [_row(line, cells, len(header), file) for line, cells in lines[1:]]
    labelled = [cells for cells in rows if cells[places[spec.label]].strip()]
    columns = {name: [cells[place].strip() for cells in labelled] for name, place in places.items()}
    if task_kind(spec.kind).named:
        columns[spec.label] = [_whole(text) for text in columns[spec.label]]
    gone = len(rows) - len(labelled)
    note = f"{gone} of {len(rows)} rows of {file.name} have no label and are left out"
    return RawSplit(split, pa.table(columns), (note,) if gone else ())


def _row(line: int, cells: list[str], width: int, file: Path) -> list[str]:
    """The cells of a row; those that are missing at its end, as where the label is, are empty."""
    if len(cells) > width:
        raise UserError(f"{file.name}, line {line}: {len(cells)} values for {width} columns", fix="restore the file")
    return cells + [""] * (width - len(cells))


def _whole(text: str) -> str:
    """`1.0`, as the course writes some classes, as `1`; anything else as it is, to be refused where it is no class."""
    value = number(text)
    return str(int(value)) if value.is_integer() else text


def _lines(text: str, file: Path) -> list[tuple[int, list[str]]]:
    """Rows that are not blank, each with the line that it begins on."""
    found, line = [], 1
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t")
    try:
        for cells in reader:
            if cells:
                found.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{file.name}, the row that begins on line {line} is not readable ({error})") from None
    return found


def _text(file: Path) -> str:
    content = file.read_bytes()
    if file.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"The data file cannot be read as gz ({error})", got=file) from None
    return decoded(content, file.name)

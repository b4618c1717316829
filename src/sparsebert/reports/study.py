"""What a study found: rows of one table, one chart, one sentence; as text and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

from sparsebert.reports.charts import NumberForm, StudyChart, written
from sparsebert.reports.escape import in_markdown
from sparsebert.reports.render import as_markdown
from sparsebert.reports.tables import Cell, Section, Table

Scalar = str | float | int | None


@dataclass(frozen=True)
class StudyColumn:
    """A column: its key in JSON, its title, small print below that, and how its numbers are written.

    One that is `beside` has no place of its own in a table: it is small print of the column before, as the ends of an
    interval are, which come low and high.
    """

    key: str
    title: str
    small: str = ""
    form: NumberForm = "number"
    beside: bool = False


@dataclass(frozen=True)
class StudyRow:
    """A row under a heading, with one value for each column; None = could not be computed."""

    heading: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class StudyResult:
    """The answer of a study.

    `answer` is one sentence; `definition` says how the numbers are computed, with their source; `heading` is what the
    headings of rows name, such as `checkpoint`; `settings` are what else the numbers depend on.
    """

    study: str
    question: str
    answer: str
    definition: str
    checkpoints: tuple[str, ...]
    columns: tuple[StudyColumn, ...]
    rows: tuple[StudyRow, ...]
    chart: StudyChart
    heading: str = "checkpoint"
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def study_table(found: StudyResult) -> Table:
    """The rows as a table, those of one heading together."""
    sections = [
        Section(heading, tuple(_cells(found, row) for row in rows))
        for heading, rows in groupby(found.rows, key=lambda row: row.heading)
    ]
    columns = tuple(Cell(column.title, column.small) for column in found.columns if not column.beside)
    return Table(found.question, columns, tuple(sections), (*_settings(found), *found.notes))


def study_json(found: StudyResult) -> dict[str, Any]:
    """All numbers as finite JSON; those that could not be computed are left out of the rows, and null in the chart."""
    rows = [{found.heading: row.heading} if row.heading else {} for row in found.rows]
    for made, row in zip(rows, found.rows, strict=True):
        made |= {
            column.key: _finite(value)
            for column, value in zip(found.columns, row.values, strict=True)
            if _finite(value) is not None
        }
    return {
        "study": found.study,
        "question": found.question,
        "answer": found.answer,
        "definition": found.definition,
        "checkpoints": list(found.checkpoints),
        "settings": dict(found.settings),
        "heading": found.heading,
        "columns": [asdict(column) for column in found.columns],
        "rows": rows,
        "chart": _plain(asdict(found.chart)),
        "notes": list(found.notes),
    }


def study_page(found: StudyResult, command: str, picture: str | None) -> str:
    """The study as Markdown: question, answer, figure, definition, table, command."""
    parts = [f"# {in_markdown(found.question)}", f"**{in_markdown(found.answer)}**"]
    parts += [f"![{in_markdown(found.answer)}]({picture})"] if picture else []
    of = in_markdown(", ".join(found.checkpoints))
    parts += [f"Checkpoints: {of}.", in_markdown(found.definition), as_markdown(study_table(found)).rstrip()]
    # The fence is longer than any that the command may hold.
    fence = "`" * 8
    return "\n\n".join([*parts, f"{fence}text\n{' '.join(command.split())}\n{fence}"]) + "\n"


def _cells(found: StudyResult, row: StudyRow) -> tuple[Cell, ...]:
    made: list[Cell] = []
    for column, value in zip(found.columns, row.values, strict=True):
        text = value if isinstance(value, str) else written(_number(value), column.form)
        if not column.beside:
            made.append(Cell(text))
        elif _number(value) is not None:
            last = made[-1]
            made[-1] = Cell(last.text, f"{last.small} to {text}" if last.small else text)
    return tuple(made)


def _settings(found: StudyResult) -> list[str]:
    return [f"{key}: {value}." for key, value in found.settings.items() if value is not None]


def _number(value: Scalar) -> float | int | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _finite(value: Scalar) -> Scalar:
    return value if isinstance(value, str) else _number(value)


def _plain(value: Any) -> Any:
    """Tuples as lists, and numbers that are not finite as none."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return _finite(value)

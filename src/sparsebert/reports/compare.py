"""Families against each other: one row a target, one column a family."""

from __future__ import annotations

from collections.abc import Sequence

from sparsebert.reports import values as v
from sparsebert.reports.families import Family
from sparsebert.reports.rows import FamilyRow, family_rows
from sparsebert.reports.tables import Cell, Section, Table, few_runs, runs_text


def comparison_table(groups: Sequence[Family]) -> Table:
    """Score and measured speedup of the models that carry the same name in several families."""
    rows = {(row.family, row.name): row for row in family_rows(groups)}
    names = dict.fromkeys(name for family in groups for name in family.names)
    body = tuple((Cell(name), *(_cell(rows.get((family.label, name))) for family in groups)) for name in names)
    columns = (Cell("Model"), *(Cell(family.label, runs_text(family)) for family in groups))
    note = "Score, its range (of several runs: minimum–maximum), and the whole model's speedup or else the encoder's."
    return Table("Side by side", columns, (Section("", body),), (note,))


def _cell(row: FamilyRow | None) -> Cell:
    if row is None:
        return Cell(v.DASH)
    speed = "" if row.dense else v.show_times(row.model_speedup or row.encoder_speedup)
    small = (v.show_spread(row.score_points, v.percent), speed, few_runs(row))
    return Cell(v.show(row.score_points, v.percent), " · ".join(filter(None, small)))

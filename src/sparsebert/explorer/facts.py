"""What is known of one model, in tables: the same texts as in the report."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sparsebert.explorer.models import ShownModel
from sparsebert.reports import values as v
from sparsebert.reports.asked import target_text
from sparsebert.reports.decisions import (
    agreement_words,
    decided_table,
    flip_table,
    warnings,
)
from sparsebert.reports.details import detail_table
from sparsebert.reports.families import Family
from sparsebert.reports.methods import environment_table, methods
from sparsebert.reports.tables import Cell, Section, Table, constant_guess, family_table, runs_text, timing_table
from sparsebert.reports.trees import level_table, tree_table
from sparsebert.reports.verdict import sentences


@dataclass(frozen=True)
class ModelFacts:
    """`facts` are rows of a name, a text and a range or unit in small print; `tables` have a heading each.

    `notes` say what the ranges are, `how` how each number was measured; `warned` is what should be seen at once.
    """

    title: str
    verdict: str
    warned: tuple[str, ...]
    facts: tuple[tuple[str, Cell], ...]
    notes: tuple[str, ...]
    tables: tuple[Table, ...]
    how: tuple[tuple[str, str], ...]
    command: str


def model_facts(model: ShownModel) -> ModelFacts:
    """All of one model; of a median what is no number is of its first run."""
    family, (record, result) = model.family, model.first
    decisions = result.decisions
    return ModelFacts(
        title=model.name,
        verdict=dict(sentences(family)).get(model.name, ""),
        warned=() if decisions is None else tuple(warnings(decisions)),
        facts=(*_about(model), *_numbers(model)),
        notes=family_table([family]).notes,
        tables=tuple(table for table in _tables(model) if table.sections),
        how=tuple(methods(family)),
        command=record.command,
    )


def _about(model: ShownModel) -> list[tuple[str, Cell]]:
    record, result = model.first
    facts = [
        ("Run", Cell(model.run, f"{record.kind} on {record.task}, {runs_text(model.family)}")),
        ("Asked for", Cell(target_text(result.target_kind, result.target_value))),
        ("Folder", Cell(result.folder, "beside the record")),
    ]
    return [(name, cell) for name, cell in facts if cell.text]


def _numbers(model: ShownModel) -> list[tuple[str, Cell]]:
    """The model's line of the report's table, turned on its side."""
    table = family_table([model.family])
    line = _of(table, model.name).sections[0].rows[0]
    facts = [
        (", ".join(filter(None, (head.text, head.small))), cell)
        for head, cell in zip(table.columns[1:], line[1:], strict=True)
    ]
    return facts + _of_chance(model)


def _of_chance(model: ShownModel) -> list[tuple[str, Cell]]:
    record, result = model.first
    score = next((one for one in result.scores if one.metric == record.main_metric), None)
    facts = []
    if score is not None and score.baseline is not None:
        facts.append((f"Always the {constant_guess(score.metric)}", Cell(v.fraction(score.baseline))))
    if result.decisions is not None and result.decisions.agreement is not None:
        facts.append(("Same as dense", Cell(v.fraction(result.decisions.agreement), "of the decisions")))
    return facts


def _tables(model: ShownModel) -> list[Table]:
    family, (record, result) = model.family, model.first
    alone = record.model_copy(update={"models": (result,)})
    found = [_of(detail_table([family]), model.name), _of(timing_table([family]), model.name)]
    found += [_decided(model), _section(flip_table(Family("", (record,))), model.name)]
    found += [tree_table([alone]), level_table([alone])]
    return [*found, environment_table([family])]


def _decided(model: ShownModel) -> Table:
    decisions = model.first[1].decisions
    if decisions is None:
        return Table("", (), ())
    table = decided_table(model.name, decisions)
    title = ", ".join(filter(None, ("What it decides", agreement_words(decisions))))
    return replace(table, title=title, notes=())


def _of(table: Table, name: str) -> Table:
    """The rows of one model, without the sections that have none of it."""
    sections = [replace(one, rows=tuple(row for row in one.rows if row[0].text == name)) for one in table.sections]
    return replace(table, sections=tuple(section for section in sections if section.rows))


def _section(table: Table, name: str) -> Table:
    """The section of one model, without its heading."""
    found = tuple(Section("", one.rows) for one in table.sections if one.heading == name)
    return replace(table, sections=found)

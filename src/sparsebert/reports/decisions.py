"""What a classifier said, beside what was right and what the dense model said."""

from __future__ import annotations

from collections.abc import Sequence

from sparsebert.records import Decisions, ModelResult
from sparsebert.reports import values as v
from sparsebert.reports.families import Family
from sparsebert.reports.tables import Cell, Section, Table

# Classes of which a whole matrix can still be read.
MOST_CLASSES = 12
# Letters of a text that is shown.
LONGEST_TEXT = 240


def judged(family: Family) -> list[tuple[ModelResult, Decisions]]:
    """The models of the family's runs whose decisions are recorded; of several seeds, the first run's."""
    models = (family.runs(name)[0][1] for name in family.names)
    return [(model, model.decisions) for model in models if model.decisions is not None]


def decided_table(name: str, decisions: Decisions) -> Table:
    """Entities by type where words have tags; else a matrix of classes, or a row for each where these are many."""
    if decisions.types:
        return type_table(name, decisions)
    return (confusion_table if len(decisions.classes) <= MOST_CLASSES else class_table)(name, decisions)


def type_table(name: str, decisions: Decisions) -> Table:
    """A row a type of entities: F1, and what of those that are there is found, and of those given is right."""
    rows = tuple(
        (
            Cell(one.label),
            Cell(v.DASH if one.f1 is None else v.fraction(one.f1)),
            Cell(_part(one.right, one.there) or v.DASH, f"of {one.there:,}"),
            Cell(_part(one.right, one.given) or v.DASH, f"of {one.given:,} given"),
        )
        for one in decisions.types
    )
    columns = (Cell("Type"), Cell("F1"), Cell("Found"), Cell("Right"))
    return Table(name, columns, (Section("", rows),), tuple(warnings(decisions)))


def confusion_table(name: str, decisions: Decisions) -> Table:
    """A row a true class, a column a class given: examples, and their part of the row below."""
    rows = tuple(
        (Cell(own), *(Cell(f"{count:,}", _part(count, sum(counts))) for count in counts))
        for own, counts in zip(decisions.classes, decisions.confusion, strict=True)
    )
    columns = (Cell("True class"), *(Cell(given, "given") for given in decisions.classes))
    return Table(name, columns, (Section("", rows),), tuple(warnings(decisions)))


def class_table(name: str, decisions: Decisions) -> Table:
    """Instead of a matrix of many classes: how often each class is right, is given, and is found."""
    given = [sum(column) for column in zip(*decisions.confusion, strict=True)]
    rows = tuple(
        (Cell(own), Cell(f"{sum(counts):,}"), Cell(f"{said:,}"), Cell(_part(counts[index], sum(counts)) or v.DASH))
        for index, (own, counts, said) in enumerate(zip(decisions.classes, decisions.confusion, given, strict=True))
    )
    columns = (Cell("Class"), Cell("Examples"), Cell("Given"), Cell("Found"))
    return Table(name, columns, (Section("", rows),), tuple(warnings(decisions)))


def flip_table(family: Family) -> Table:
    """Examples that a model decides otherwise than the dense one, a section a model."""
    sections = [
        Section(model.name, tuple(_flip(*flip) for flip in _flips(decisions)))
        for model, decisions in judged(family)
        if decisions.flips
    ]
    columns = (Cell("Text"), Cell("Right"), Cell("Dense model"), Cell("This model"))
    return Table("Decided otherwise than by the dense model", columns, tuple(sections))


def warnings(decisions: Decisions) -> Sequence[str]:
    """What should be seen at once."""
    only = decisions.only_class
    return [] if only is None else [f"Every example is given the one class '{only}'."]


def agreement_words(decisions: Decisions) -> str:
    """`97.1% decided as by the dense model`; empty for that itself."""
    return "" if decisions.agreement is None else f"{v.fraction(decisions.agreement)} decided as by the dense model"


def _part(count: int, total: int) -> str:
    return v.fraction(count / total) if total else ""


def _flips(decisions: Decisions) -> list[tuple[str, str, str, str]]:
    return [(flip.text, flip.label, flip.dense, flip.own) for flip in decisions.flips]


def _flip(text: str, label: str, dense: str, own: str) -> tuple[Cell, ...]:
    shown = text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"
    return Cell(shown), Cell(label), *(Cell(said, "right" if said == label else "") for said in (dense, own))

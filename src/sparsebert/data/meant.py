"""Labels as a file means them: numbers of classes by the names it declares, text of CSV as values, columns as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from sparsebert.data.declared import declared_names, with_names
from sparsebert.data.read import DELIMITER, column
from sparsebert.errors import UserError
from sparsebert.tasks.kind import TaskKind, TextColumn

Label = str | tuple[str, ...]
"""The label column, or several of 0 and 1, one a label."""


@dataclass(frozen=True)
class MeantLabels:
    """A table with the labels in its column `label`; `declared` are the names that the file gives, in their order."""

    table: pa.Table
    declared: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def label_columns(label: Label) -> tuple[str, ...]:
    """The names of the columns that labels are read from."""
    return (label,) if isinstance(label, str) else label


def label_of(columns: Sequence[str]) -> Label | None:
    """From the columns that a user names; none = none. Raises UserError for one that is named twice."""
    return sound_label(tuple(columns)) if columns else None


def sound_label(label: Label) -> Label:
    """The same, where a list of one column is that column. Raises UserError for none, and for one named twice."""
    if isinstance(label, str) or len(label) == len(set(label)) > 1:
        return label
    if len(label) != 1:
        raise UserError("Each label column is named once", got=", ".join(label) or "none", fix="see columns.label")
    return label[0]


def one_column(label: Label) -> str:
    """The label column, where there can be but one. Raises UserError for several."""
    if isinstance(label, str):
        return label
    raise UserError("Such labels stand in one column", got=label_name(label), fix="name one label column")


def label_name(label: Label) -> str:
    """What the one column of labels is called in the end."""
    return ", ".join(label_columns(label))


def with_meant_labels(raw: pa.Table, label: Label, kind: TaskKind, file: str) -> MeantLabels:
    """The table of a file with its labels as a file with types would have them.

    Raises UserError for what cannot be read as labels of this kind.
    """
    if not isinstance(label, str):
        values, notes = kind.from_columns({name: column(raw, name, file) for name in label}, file)
        return MeantLabels(_with(raw, label_name(label), values, label), label, notes)
    delimiter = (raw.schema.metadata or {}).get(DELIMITER)
    if delimiter is None:
        declared = declared_names(raw, label, file) if kind.named else ()
        return MeantLabels(with_names(raw, label, declared, file) if declared else raw, declared)
    values, notes = kind.from_text(TextColumn(column(raw, label, file), file, label, delimiter.decode()))
    return MeantLabels(_with(raw, label, values, (label,)), notes=notes)


def _with(raw: pa.Table, name: str, values: Sequence[object], instead_of: Sequence[str]) -> pa.Table:
    return raw.drop_columns(list(instead_of)).append_column(name, pa.array(values))

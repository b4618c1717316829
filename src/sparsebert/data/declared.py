"""Names of classes that a parquet file declares beside whole-number labels, as Hugging Face `datasets` writes them."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from sparsebert.data.read import column
from sparsebert.errors import UserError
from sparsebert.tasks.class_names import UNLABELLED

METADATA = b"huggingface"


def declared_names(raw: pa.Table, label: str, where: str) -> tuple[str, ...]:
    """The names of a column of ClassLabel, or of lists of them, in the order of their numbers; empty if none.

    Raises UserError for a declaration that cannot be read.
    """
    stored = (raw.schema.metadata or {}).get(METADATA)
    if stored is None:
        return ()
    try:
        feature: Any = json.loads(stored)
        for key in ("info", "features", label):
            feature = feature.get(key, {})
        feature = feature.get("feature", feature)
        names = feature.get("names", ()) if feature.get("_type") == "ClassLabel" else ()
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{where}: the features that its metadata declare cannot be read ({error})") from None
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name.strip() for name in names):
        raise UserError(f"{where}, column '{label}': the declared class names are not words", got=names)
    names = tuple(name.strip() for name in names)
    if len(set(names)) < len(names):
        raise UserError(f"{where}, column '{label}': a class name is declared twice", got=", ".join(names))
    return names


def with_names(raw: pa.Table, label: str, names: tuple[str, ...], where: str) -> pa.Table:
    """The table with the numbers of a column of classes, or of lists of them, replaced by their names.

    Raises UserError for a number that has no name, and for values that are no numbers.
    """
    found = [
        _named(value, names, f"{where}, column '{label}', row {row}")
        for row, value in enumerate(column(raw, label, where), start=1)
    ]
    kind = pa.list_(pa.string()) if any(isinstance(value, list) for value in found) else pa.string()
    return raw.set_column(raw.column_names.index(label), label, pa.array(found, type=kind))


def _named(value: Any, names: tuple[str, ...], where: str) -> Any:
    if isinstance(value, list):
        return [_name(one, names, where) for one in value]
    return None if value is None else _name(value, names, where)


def _name(value: Any, names: tuple[str, ...], where: str) -> str:
    if not isinstance(value, int) or not 0 <= value < len(names):
        unlabelled = value == UNLABELLED and isinstance(value, int)
        fix = f"{UNLABELLED} marks a row without a label: drop such rows" if unlabelled else ""
        raise UserError(f"{where}: not a declared class", got=value, allowed=f"0 to {len(names) - 1}", fix=fix)
    return names[value]

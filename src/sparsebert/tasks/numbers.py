"""Numbers in a label column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sparsebert.errors import UserError


def finite_numbers(values: Sequence[Any], where: str) -> list[float]:
    """The values as floats. Raises UserError for one that is missing, no number, or not finite."""
    found = []
    for row, value in enumerate(values, start=1):
        if value is None or value == "":
            raise UserError(f"{where}, row {row}: the label is missing")
        one = number(value)
        if not math.isfinite(one):
            raise UserError(f"{where}, row {row}: the label of a regression must be a finite number", got=f"'{value}'")
        found.append(one)
    return found


def number(value: Any) -> float:
    """The value as a float, nan for what is no number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return math.nan
    if isinstance(value, str) and "_" in value:
        # Python reads 1_0 as 10; as a label it is a name.
        return math.nan
    try:
        return float(value)
    except ValueError:
        return math.nan

"""Numbers with a decimal comma, as spreadsheets in many countries write them beside other delimiters."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sparsebert.errors import UserError

_DECIMAL = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")


def with_points(values: Sequence[str], where: str) -> list[str]:
    """The values, those with a decimal comma with a point instead. Any other value is as it was.

    Raises UserError where commas may as well stand between thousands, and for a column that has points too.
    """
    commas = [value for value in values if _DECIMAL.fullmatch(value.strip())]
    if not commas:
        return list(values)
    points = next((value for value in values if "." in value), None)
    if points is not None:
        raise UserError(
            f"{where}: some numbers have a comma and some a point", got=f"{commas[0]} and {points}", fix="write points"
        )
    if all(_THOUSANDS.fullmatch(value.strip()) for value in commas):
        raise UserError(
            f"{where}: the commas may be decimal ones or stand between thousands",
            got=commas[0],
            fix="write decimal points, and nothing between thousands",
        )
    return [value.replace(",", ".") if _DECIMAL.fullmatch(value.strip()) else value for value in values]

"""Records that were damaged or written by hand: each is refused in one line, or every report of it can be made."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from example_record import full_record, train_record, tree_record
from sparsebert.errors import UserError
from sparsebert.records import FILE_NAME, Record, read_record
from sparsebert.reports import (
    as_json,
    as_markdown,
    curves,
    families,
    family_rows,
    family_table,
    model_card,
    timing_table,
)
from sparsebert.reports.details import detail_table
from sparsebert.reports.methods import methods
from sparsebert.reports.sections import results

ODD: tuple[Any, ...] = (
    *(None, -1, 0, 7, 10**30, 1e300, 0.5, True),
    *("", "x" * 3000, "a\nb|`<b>", "..", [], [1], {}, {"a": 1}, ["a"]),
)
TRIED = 400


def places(value: Any, so_far: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value; of a list, to its first two only."""
    yield so_far
    if isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else range(min(2, len(value)))
        for key in keys:
            yield from places(value[key], (*so_far, key))


def damaged(values: Any, place: tuple[Any, ...], odd: Any) -> Any:
    if not place:
        return odd
    first, *rest = place
    copy = dict(values) if isinstance(values, dict) else list(values)
    copy[first] = damaged(values[first], tuple(rest), odd)
    return copy


def outcome(folder: Path) -> tuple[Record | None, str]:
    """The record, or none and the message that says why."""
    try:
        return read_record(folder), ""
    except UserError as error:
        return None, str(error)


@pytest.mark.parametrize("record", [full_record(), train_record(), tree_record()], ids=["compress", "train", "fff"])
def test_a_damaged_record_is_refused_in_a_line_or_shown(record: Record, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("sparsebert.reports.figures.picture", lambda draw, words: words)
    values = json.loads(record.model_dump_json(exclude_none=True))
    tries = [(place, odd) for place in places(values) if place for odd in ODD]
    refused = 0
    for place, odd in random.Random(0).sample(tries, TRIED):
        (tmp_path / FILE_NAME).write_text(json.dumps(damaged(values, place, odd)), encoding="utf-8")
        read, message = outcome(tmp_path)
        assert "\n" not in message, (place, odd)
        if read is None:
            refused += 1
            continue
        groups, found = families([read]), curves([read])
        for table in (
            family_table(groups),
            family_table(groups, compact=True),
            timing_table(groups),
            detail_table(groups),
        ):
            as_markdown(table)
        json.dumps(as_json(family_rows(groups)), allow_nan=False)
        assert all(methods(family) for family in groups)
        list(results(groups, found, groups, [[]] * len(groups)))
        for model in read.models:
            model_card(read, model.name)
    assert TRIED / 4 < refused < TRIED

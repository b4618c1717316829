"""Records: what is written can be read, and what cannot be read is said in one line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from example_record import example_record
from sparsebert.errors import UserError
from sparsebert.records import FILE_NAME, Score, read_record, record_files, write_record


def test_a_record_comes_back_as_it_was(tmp_path: Path):
    record = example_record()
    write_record(record, tmp_path)
    assert read_record(tmp_path) == read_record(tmp_path / FILE_NAME) == record


def test_a_number_that_is_none_is_never_written():
    with pytest.raises(ValidationError, match="finite"):
        Score(metric="accuracy", value=math.nan, split="validation", examples=4)


def test_fields_that_are_no_more_are_passed_over(tmp_path: Path):
    values = json.loads(write_record(example_record(), tmp_path).read_text(encoding="utf-8"))
    for model in values["models"]:
        model |= {"notes": [], "peak_memory_mb": 5.0}
    (tmp_path / FILE_NAME).write_text(json.dumps(values), encoding="utf-8")
    assert read_record(tmp_path) == example_record()


def test_another_schema_is_named_before_its_fields(tmp_path: Path):
    values = json.loads(write_record(example_record(), tmp_path).read_text(encoding="utf-8"))
    (tmp_path / FILE_NAME).write_text(json.dumps(values | {"schema_version": 2, "flavour": "new"}), encoding="utf-8")
    with pytest.raises(UserError, match="The record has another schema; got 2; allowed: 1"):
        read_record(tmp_path)
    (tmp_path / FILE_NAME).write_text(json.dumps(values | {"flavour": "new"}), encoding="utf-8")
    with pytest.raises(UserError, match="not readable: Extra inputs are not permitted"):
        read_record(tmp_path)


def test_a_folder_stands_for_its_record_or_for_those_of_its_runs(tmp_path: Path):
    for name in ("b", "a"):
        write_record(example_record(), tmp_path / name)
    (tmp_path / "plots").mkdir()
    assert record_files(tmp_path) == [tmp_path / "a" / FILE_NAME, tmp_path / "b" / FILE_NAME]
    assert record_files(tmp_path / "b") == record_files(tmp_path / "b" / FILE_NAME) == [tmp_path / "b" / FILE_NAME]
    with pytest.raises(UserError, match="No record found"):
        record_files(tmp_path / "plots")

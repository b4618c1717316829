"""Records: what is written can be read, and what cannot be read is said in one line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from example_record import example_record, train_record
from sparsebert.errors import UserError
from sparsebert.records import FILE_NAME, Record, Score, read_record, record_files, write_record


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


def damaged(folder: Path, record: Record, where: str, value: Any) -> Path:
    """The folder of a record with one value replaced; `where` is its dotted place."""
    values = json.loads(write_record(record, folder).read_text(encoding="utf-8"))
    *way, last = (int(part) if part.isdecimal() else part for part in where.split("."))
    inner = values
    for part in way:
        inner = inner[part]
    inner[last] = value
    (folder / FILE_NAME).write_text(json.dumps(values), encoding="utf-8")
    return folder


@pytest.mark.parametrize("field", ["name", "folder"])
@pytest.mark.parametrize("name", ["..", ".", "", "../escaped", "/etc", "a/b", "C:\\a", ".hidden", "a\0b"])
def test_a_model_lies_in_a_folder_of_its_run(tmp_path: Path, field: str, name: str):
    with pytest.raises(
        UserError, match=rf"^The record is not readable: it names a folder, .* at models\.1\.{field}; got"
    ):
        read_record(damaged(tmp_path, example_record(), f"models.1.{field}", name))


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("kind", "squash", "Unknown run type 'squash'; allowed: compress, train, .* at kind"),
        ("models.1.target_kind", 5, "Input should be a valid string at models.1.target_kind"),
        ("models.1.name", "dense", "models need names of their own"),
        ("models.1.shape.full_heads", 0, "greater than 0 at models.1.shape.full_heads"),
        ("models.1.shape.heads", [1, 2], "one entry a layer in each of its lists, .* at models.1.shape"),
        ("models.1.shape.heads", [13] * 6, "a layer has no more heads and neurons than the largest has"),
        ("models.1.shape.dropped_layers", [6], "a dropped layer must be one of the layers"),
        ("models.1.shape.kept_heads", [[0]] * 6, "as many as it has left"),
        ("models.1.timings.0.median_ms", 0, "greater than 0 at models.1.timings.0.median_ms"),
        ("recipe.targets.0.value", 0.5, "in the recipe, targets.0: .*target speedup must lie between 1 and 1000"),
        ("recipe.measure", 5, "in the recipe, measure: Input should be"),
        ("recipe.sparsity", "much", "in the recipe, sparsity: Input should be a valid number"),
    ],
)
def test_what_a_report_could_not_show_is_refused_when_read(tmp_path: Path, where: str, value: Any, words: str):
    with pytest.raises(UserError, match=f"^The record is not readable: .*{words}"):
        read_record(damaged(tmp_path, example_record(), where, value))


def test_a_training_of_a_phase_that_the_recipe_has_not_is_refused(tmp_path: Path):
    folder = damaged(tmp_path, train_record(), "recipe.phases.0.name", "other")
    with pytest.raises(UserError, match="a training is of a phase that the recipe has not: 'warm'"):
        read_record(folder)


def test_every_record_kept_here_is_readable():
    files = sorted((Path(__file__).parents[1] / "results").rglob(FILE_NAME))
    assert len(files) > 100
    assert {read_record(file).status for file in files} == {"finished"}

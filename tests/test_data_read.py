"""Files: only what is wanted of them must be sound, and what is not is named."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparsebert.data.load import load_task
from sparsebert.data.read import column, read_file
from sparsebert.errors import UserError

TEXTS, LABELS = ["a", "b", "c", "d"], ["x", "y", "x", "y"]
UNUSED = {
    "map": pa.array([[("key", 1)]] * 4, type=pa.map_(pa.string(), pa.int64())),
    "list view": pa.array([[1]] * 4, type=pa.list_view(pa.int64())),
    "nulls": pa.array([None] * 4),
}


def jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def refused(path: Path, *wanted: str) -> str:
    with pytest.raises(UserError) as caught:
        read_file(path, wanted or ("text", "label"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("unused", UNUSED)
def test_unused_columns_of_parquet_may_hold_anything(tmp_path, unused):
    pq.write_table(pa.table({"extra": UNUSED[unused], "text": TEXTS, "label": LABELS}), tmp_path / "mine.parquet")
    assert load_task("mine", str(tmp_path / "mine.parquet")).spec.labels == ("x", "y")


def test_categories_and_names_with_dots_in_parquet(tmp_path):
    table = {"a": [{"b": "no"}] * 4, "a.b": TEXTS, "label": pa.array(LABELS).dictionary_encode()}
    pq.write_table(pa.table(table), tmp_path / "mine.parquet")
    found = read_file(tmp_path / "mine.parquet", ("a.b", "label"))
    assert found.to_pydict() == {"a.b": TEXTS, "label": LABELS}


def test_a_folder_named_like_a_column_adds_none(tmp_path):
    """Arrow's own reader takes `label=1` in a path for a column."""
    home = tmp_path / "label=1"
    home.mkdir()
    pq.write_table(pa.table({"text": TEXTS}), home / "mine.parquet")
    assert "has no column 'label'; allowed: text" in refused(home / "mine.parquet")


def test_columns_of_parquet_that_cannot_be_used(tmp_path):
    file = tmp_path / "mine.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(TEXTS)] * 3, names=["text", "text", "label"]), file)
    assert "mine.parquet has column 'text' twice" in refused(file)
    broken = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(bytes([0, 0, 0, 0, 1, 0, 0, 0])), pa.py_buffer(b"\xff")]
    )
    pq.write_table(pa.table({"text": broken, "label": ["x"]}), file)
    with pytest.raises(UserError, match=r"mine, column 'text' cannot be read \('utf-8' codec"):
        column(read_file(file, ("text",)), "text", "mine")


def test_unused_values_of_jsonl_may_differ_in_type(tmp_path):
    ids = [1, "b2", [3], {"d": None}]
    rows = [{"id": one, "text": text, "label": label} for one, text, label in zip(ids, TEXTS, LABELS, strict=True)]
    assert load_task("mine", str(jsonl(tmp_path / "mine.jsonl", rows))).spec.labels == ("x", "y")


@pytest.mark.parametrize(
    ("labels", "got"),
    [([1, None, 2.5, "b"], "got str; allowed: int"), (["a", "b", "c", True], "got bool; allowed: str")],
)
def test_wanted_values_of_jsonl_that_differ_in_type_are_named(tmp_path, labels, got):
    file = jsonl(tmp_path / "mine.jsonl", [{"text": "t", "label": label} for label in labels])
    assert refused(file).startswith("mine.jsonl, line 4, column 'label': another type than in the lines before; " + got)


BEYOND_PYTHON = {"digits": "9" * 5000, "cut": "[" * 100_000, "deep": "[" * 100_000 + "]" * 100_000}


@pytest.mark.parametrize("value", BEYOND_PYTHON)
def test_json_that_python_cannot_hold(tmp_path, value):
    file = tmp_path / "mine.jsonl"
    file.write_text(
        '{"text": "a", "label": "x"}\n\n{"text": "b", "label": "y", "id": ' + BEYOND_PYTHON[value] + "}\n",
        encoding="utf-8",
    )
    assert refused(file).startswith("mine.jsonl, line 3: cannot be read (")


def test_deep_json_in_a_wanted_column(tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"text": "a", "label": ' + "[" * 900 + "]" * 900 + "}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"row 1: a class label must be a word or a whole number; got list"):
        load_task("mine", str(tmp_path / "mine.jsonl"))


def test_long_values_of_csv(tmp_path):
    usual = 131_072
    csv.field_size_limit(usual)
    (tmp_path / "mine.csv").write_text(f"text,label\n{'a' * 200_000},x\nb,y\n", encoding="utf-8")
    assert len(read_file(tmp_path / "mine.csv", ("text",))["text"][0].as_py()) == 200_000
    assert csv.field_size_limit() == usual


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ('text,label\n"one\ntwo",x\n"b"c,y\n', 4, "',' expected after '\"'"),
        ('text,label\na,x\n\n"b\nc,y\nd,x\n', 4, "unexpected end of data"),
    ],
)
def test_quotes_of_csv_that_do_not_fit_are_named(tmp_path, content, line, reason):
    (tmp_path / "mine.csv").write_text(content, encoding="utf-8")
    assert refused(tmp_path / "mine.csv").startswith(
        f"mine.csv, the row that begins on line {line} is not CSV ({reason}); "
    )


def test_columns_of_csv_without_a_name_may_be_there_twice(tmp_path):
    (tmp_path / "mine.csv").write_text("text,label,,\na,x,,\n", encoding="utf-8")
    assert read_file(tmp_path / "mine.csv", ("label", "text")).to_pylist() == [{"label": "x", "text": "a"}]


def test_capitals_in_a_suffix(tmp_path):
    for name in ("train.CSV", "validation.Csv"):
        text = name.split(".")[0]
        (tmp_path / name).write_text(f"text,label\n{text} a,x\n{text} b,y\n", encoding="utf-8")
    for path in (tmp_path, tmp_path / "train.CSV"):
        task = load_task("mine", str(path))
        assert (len(task.train), task.validation_name) == (2, "validation")
        assert task.notes == ("validation rows are those of validation.Csv",)


def test_one_column_may_be_wanted_twice(tmp_path):
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "mine.parquet")
    assert column(read_file(tmp_path / "mine.parquet", ("text", "text")), "text", "mine") == TEXTS

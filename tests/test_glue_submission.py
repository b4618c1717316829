"""The zip for the GLUE server, byte for byte, and test splits that are missing or damaged."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparsebert.data.glue_test import missing_test_files, server_rows
from sparsebert.errors import UserError
from sparsebert.runs.submission import as_tsv, check_test_files, pack_answers
from sparsebert.tasks.glue import AX, GLUE, glue_tasks
from sparsebert.tasks.table import task_spec
from tiny_glue import write_glue

TWO = np.array([[0.1, 0.9], [2.0, -1.0], [0.0, 3.0]])
THREE = np.array([[0.0, 1.0, 5.0], [4.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
# What the server takes, by the task whose model answers: names of classes for inference, numbers for the others.
WANTED = {
    "CoLA": ("cola", TWO, ["1", "0", "1"]),
    "SST-2": ("sst2", TWO, ["1", "0", "1"]),
    "MRPC": ("mrpc", TWO, ["1", "0", "1"]),
    "QQP": ("qqp", TWO, ["1", "0", "1"]),
    "WNLI": ("wnli", TWO, ["1", "0", "1"]),
    "STS-B": ("stsb", np.array([[5.7], [-0.2], [2.71849]]), ["5.000", "0.000", "2.718"]),
    "MNLI-m": ("mnli", THREE, ["contradiction", "entailment", "neutral"]),
    "MNLI-mm": ("mnli", THREE, ["contradiction", "entailment", "neutral"]),
    "AX": ("mnli", THREE, ["contradiction", "entailment", "neutral"]),
    "QNLI": ("qnli", TWO, ["not_entailment", "entailment", "not_entailment"]),
    "RTE": ("rte", TWO, ["not_entailment", "entailment", "not_entailment"]),
}
FILES = {file.name: file for task in GLUE.values() for file in task.files}


def test_the_server_wants_eleven_files():
    assert FILES.keys() == WANTED.keys()


@pytest.mark.parametrize("name", WANTED)
def test_each_file_byte_for_byte(name):
    task, outputs, said = WANTED[name]
    rows = "".join(f"{place}\t{word}\n" for place, word in enumerate(said))
    assert as_tsv(FILES[name], task_spec(task), range(3), outputs) == f"index\tprediction\n{rows}"


def test_the_zip_holds_all_of_them_at_its_top_and_is_the_same_every_time(tmp_path: Path):
    for name, (task, outputs, _) in WANTED.items():
        (tmp_path / f"{name}.tsv").write_text(as_tsv(FILES[name], task_spec(task), range(3), outputs))
    packed, wrong = pack_answers(tmp_path, tmp_path / "a.zip")
    assert packed is not None and len(wrong) == 11
    assert "CoLA.tsv has 3 rows, of which the server wants 1,063" in wrong
    with zipfile.ZipFile(packed) as opened:
        assert sorted(opened.namelist()) == sorted(f"{name}.tsv" for name in WANTED)
        assert opened.read("WNLI.tsv") == b"index\tprediction\n0\t1\n1\t0\n2\t1\n"
        assert opened.testzip() is None
    again, _ = pack_answers(tmp_path, tmp_path / "b.zip")
    assert again is not None and again.read_bytes() == packed.read_bytes()


def test_without_one_of_them_there_is_no_zip(tmp_path: Path):
    for name in WANTED.keys() - {"AX"}:
        (tmp_path / f"{name}.tsv").write_text("index\tprediction\n")
    (tmp_path / "old.zip").write_bytes(b"of before")
    packed, said = pack_answers(tmp_path, tmp_path / "old.zip")
    assert packed is None and not (tmp_path / "old.zip").exists()
    assert said == ["no old.zip, as the server wants all eleven files; missing: AX"]


def test_rows_have_the_index_of_their_file(tmp_path: Path):
    write_glue(tmp_path, ["mnli", "cola"], test=3)
    found = server_rows(AX, tmp_path)
    assert found.index == [0, 1, 2] and found.second is not None and len(found.first) == 3
    other = pa.table({"sentence": ["b", "a"], "idx": [7, 3]})
    pq.write_table(other, tmp_path / "cola" / "test.parquet")
    found = server_rows(FILES["CoLA"], tmp_path)
    assert (found.index, found.first, found.second) == ([7, 3], ["b", "a"], None)
    pq.write_table(other.drop_columns("idx"), tmp_path / "cola" / "test.parquet")
    assert server_rows(FILES["CoLA"], tmp_path).index == [0, 1]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"sentence": ["a", "b"], "idx": [1, 1]}, "idx of cola test does not number the rows"),
        ({"sentence": ["a", None], "idx": [0, 1]}, "cola test, column 'sentence', row 2: the text must be a string"),
        ({"text": ["a"]}, "no column 'sentence'"),
    ],
)
def test_bad_test_splits(tmp_path: Path, columns, said):
    (tmp_path / "cola").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "cola" / "test.parquet")
    with pytest.raises(UserError, match=said):
        server_rows(FILES["CoLA"], tmp_path)


def test_all_missing_test_splits_are_named(tmp_path: Path):
    write_glue(tmp_path, ["cola"])
    tasks = glue_tasks(["cola", "mnli"])
    wanted = ["mnli/test_matched.parquet", "mnli/test_mismatched.parquet", "ax/test.parquet"]
    assert missing_test_files([file for task in tasks for file in task.files], tmp_path) == wanted
    with pytest.raises(UserError, match=f"Test splits are missing: {', '.join(wanted)}.*leave --test out"):
        check_test_files(tasks, tmp_path)

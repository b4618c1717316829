"""The tasks of CS224N: from the course's own files, rows without a label, and what is said of files that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score

from course import write_course, write_file
from sparsebert.data.load import load_task
from sparsebert.errors import UserError
from sparsebert.tasks.bootstrap import resampled_scores
from sparsebert.tasks.metrics import constant_scores, score
from sparsebert.tasks.multilabel import macro_f1
from tiny_run import assert_refused, run_cli

SHARED = Path(__file__).parents[2] / "shared" / "data"


def write_sst5(folder: Path, labels: list[object], dev: list[object] | None = None, compressed: bool = False) -> Path:
    for part, values in (("train", labels), ("dev", dev or [0, 4])):
        write_file(folder, f"ids-sst-{part}", [(f" text {one} ", one) for one in values], compressed)
    return folder


@pytest.mark.parametrize("compressed", [False, True])
def test_sentiment_is_read_as_the_course_writes_it(tmp_path: Path, compressed: bool):
    task = load_task("sst5", str(write_sst5(tmp_path, [0, 3, 4], compressed=compressed)))
    assert task.train.to_dict() == {"text_a": ["text 0", "text 3", "text 4"], "label": [0, 3, 4]}
    assert task.validation["label"][:] == [0, 4] and task.validation_name == "validation"
    assert task.spec.metrics == ("accuracy", "macro_f1") and task.notes == () and not task.subset


def test_quora_has_classes_that_are_written_as_fractions_and_quotes(tmp_path: Path):
    rows = [("a", '"He said ""is it""?"', "0.0"), ("", "b", "1.0")]
    for part in ("train", "dev"):
        write_file(tmp_path, f"quora-{part}", rows)
    task = load_task("quora", str(tmp_path))
    assert task.train.to_dict() == {"text_a": ["a", ""], "text_b": [rows[0][1], "b"], "label": [0, 1]}
    assert task.spec.kind == "pair_classification" and task.spec.metrics == ("accuracy", "f1")


def test_rows_without_a_label_are_left_out_and_said(tmp_path: Path):
    write_file(tmp_path, "quora-train", [("a", "b", "0.0"), ("c", "all in one cell"), ("d", "e", " "), ("f", "g", 1)])
    write_file(tmp_path, "quora-dev", [("a", "b", "0.0")])
    task = load_task("quora", str(tmp_path))
    assert task.train["text_a"][:] == ["a", "f"]
    assert task.notes == ("2 of 4 rows of quora-train.csv have no label and are left out",)


def test_parquet_folders_serve_too_under_either_name(tmp_path: Path):
    for name in ("sts", "cs224n_sts"):
        home = tmp_path / name / name
        home.mkdir(parents=True)
        for split in ("train", "validation"):
            values = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [0.5, 5.0]}
            pq.write_table(pa.table(values), home / f"{split}.parquet")
        task = load_task("sts", str(tmp_path / name))
        assert task.train["label"][:] == [0.5, 5.0] and task.spec.main_metric == "pearson"


WRONG = {
    "row 2: not in the label set; got '7'; allowed: very negative, negative, neutral": [1, 7],
    "row 1: not in the label set; got 'good'": ["good"],
    "row 1: not in the label set; got '2.5'": ["2.5"],
}


@pytest.mark.parametrize("said", WRONG)
def test_labels_that_are_none(tmp_path: Path, said: str):
    with pytest.raises(UserError, match="sst5 train, column 'label', ") as caught:
        load_task("sst5", str(write_sst5(tmp_path, WRONG[said])))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("much", "must be a finite number; got 'much'"),
        (5.2, "not of the scale of similarities; got 5.2; allowed: 0 to 5"),
    ],
)
def test_similarities_that_are_none(tmp_path: Path, value: object, said: str):
    for part, second in (("train", value), ("dev", 2)):
        write_file(tmp_path, f"sts-{part}", [("a", "b", 1), ("c", "d", second)])
    with pytest.raises(UserError, match="sts train, column 'label', row 2") as caught:
        load_task("sts", str(tmp_path))
    assert said in str(caught.value)


def test_files_that_are_missing_are_named_with_where_they_come_from(tmp_path: Path):
    write_sst5(tmp_path, [0, 1])
    (tmp_path / "ids-sst-dev.csv").unlink()
    said = run_cli("finetune", "--task", "sst5", "--data", tmp_path, "-o", tmp_path / "run")
    wanted = ["A file of task 'sst5' is missing: ids-sst-dev.csv", f"got {tmp_path}, where neither", "https://"]
    assert_refused(said, [*wanted, "ids-sst-train.csv and ids-sst-dev.csv", "DIR/sst5/*.parquet"])
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=r"Task 'cfimdb' needs the files of the course; give their folder with --data"):
        load_task("cfimdb", None)


def test_files_that_are_damaged(tmp_path: Path):
    write_sst5(tmp_path, [0, 1], compressed=True)
    file = tmp_path / "ids-sst-train.csv.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    with pytest.raises(UserError, match=r"cannot be read as gz .*ids-sst-train.csv.gz"):
        load_task("sst5", str(tmp_path))
    write_file(tmp_path, "ids-sst-train", [("a", 1, "more")])
    with pytest.raises(UserError, match=r"ids-sst-train.csv, line 2: 5 values for 4 columns"):
        load_task("sst5", str(tmp_path))
    (tmp_path / "ids-sst-train.csv").write_text("id\tsentences\tsentiment\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"no column 'sentence'; allowed: id, sentences, sentiment; did you mean"):
        load_task("sst5", str(tmp_path))
    (tmp_path / "ids-sst-train.csv").write_text("id\tsentence\tsentiment\n", encoding="utf-8")
    with pytest.raises(UserError, match="no rows"):
        load_task("sst5", str(tmp_path))


def test_macro_f1_of_classes_is_that_of_scikit_learn():
    generator = np.random.default_rng(3)
    labels, outputs = generator.integers(5, size=60), generator.normal(size=(60, 5))
    expected = f1_score(labels, outputs.argmax(axis=1), average="macro")
    assert macro_f1(outputs, labels) == pytest.approx(expected)
    # By hand: class 0 has precision 1/2 and recall 1, class 1 nothing, class 2 is neither true nor given.
    assert macro_f1(np.eye(3)[[0, 0]], np.array([0, 1])) == pytest.approx((2 / 3 + 0) / 2)
    draws = np.random.default_rng(5).integers(60, size=(40, 60))
    expected = [score(["macro_f1"], outputs[rows], labels[rows])["macro_f1"] for rows in draws]
    assert resampled_scores("macro_f1", outputs, labels, 40, 5) == pytest.approx(np.array(expected))
    assert constant_scores(["macro_f1"], np.eye(5)[[1] * 4], np.array([1, 1, 0, 2]))["macro_f1"] == pytest.approx(2 / 9)


OFFICIAL = {"sst5": (8544, 1101), "sts": (6040, 863)}


@pytest.mark.shared
@pytest.mark.parametrize("name", list(OFFICIAL))
def test_real_files(name: str):
    if not (SHARED / f"cs224n_{name}").is_dir():
        pytest.skip(f"{name}: no real data beside the checkout")
    own, parquet = (load_task(name, str(folder)) for folder in (SHARED / "cs224n_raw", SHARED))
    assert (len(own.train), len(own.validation)) == OFFICIAL[name]
    assert own.train["text_a"][:] == parquet.train["text_a"][:]
    assert np.allclose(own.train["label"][:], parquet.train["label"][:])


def test_all_tasks_of_the_course_load(tmp_path: Path):
    write_course(tmp_path, train=10, dev=6)
    for part in ("train", "dev"):
        write_file(tmp_path, f"ids-cfimdb-{part}", [("a", 0), ("b", 1)])
    sizes = {name: len(load_task(name, str(tmp_path)).train) for name in ("sst5", "quora", "sts", "cfimdb")}
    assert sizes == {"sst5": 10, "quora": 10, "sts": 10, "cfimdb": 2}

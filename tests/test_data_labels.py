"""Labels in every way a file may write them: numbers, words with spaces, words for nothing, declared names."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparsebert.data.load import Task, load_task
from sparsebert.errors import UserError


def task_of(folder, train: list[str], validation: list[str]) -> Task:
    """A task from two CSV files with these labels."""
    for name, labels in (("train", train), ("validation", validation)):
        lines = [f"{name} text {row},{label}\n" for row, label in enumerate(labels)]
        (folder / f"{name}.csv").write_text("text,label\n" + "".join(lines), encoding="utf-8")
    return load_task("mine", str(folder))


@pytest.mark.parametrize(
    ("train", "validation", "names", "train_ids", "validation_ids"),
    [
        (["1.0", "2.0", "3.0"], ["1", "2", "3.0"], ("1", "2", "3"), [0, 1, 2], [0, 1, 2]),
        (["1", "2"], ["2.0", "1.00"], ("1", "2"), [0, 1], [1, 0]),
        (["1", "1.0", "2"], ["1"], ("1", "2"), [0, 0, 1], [0]),
        (["10.0", "2.0", "-1.0"], ["2"], ("-1", "2", "10"), [2, 1, 0], [1]),
        (["9007199254740992", "9007199254740993"], ["9007199254740993"], ("9007199254740992", "9007199254740993"),
         [0, 1], [1]),
        (["01", "10"], ["10"], ("01", "10"), [0, 1], [1]),
        (["01", "1", "001"], ["1"], ("001", "01", "1"), [1, 2, 0], [2]),
        (["1_0", "2_0"], ["2_0"], ("1_0", "2_0"), [0, 1], [1]),
    ],
)  # fmt: skip
def test_numbers_are_one_class_however_they_are_written(tmp_path, train, validation, names, train_ids, validation_ids):
    task = task_of(tmp_path, train, validation)
    assert task.spec.labels == names
    assert task.train["label"][:] == train_ids
    assert task.validation["label"][:] == validation_ids


@pytest.mark.parametrize(
    ("train", "validation"),
    [(["1.0", "2.0"], "0"), (["1.0", "other"], "1"), (["0.5", "other"], "1"), (["1", "2"], "1.5")],
)
def test_a_number_stands_for_a_place_only_where_no_name_is_a_number(tmp_path, train, validation):
    with pytest.raises(UserError, match=rf"row 1: not in the label set; got '{validation}'") as caught:
        task_of(tmp_path, train, [validation])
    assert "(0 to" not in str(caught.value)


def test_a_number_stands_for_a_place_among_words(tmp_path):
    task = task_of(tmp_path, ["no", "yes"], ["1", "no"])
    assert task.validation["label"][:] == [1, 0]
    assert [note for note in task.notes if "numbers" in note] == [
        "numbers in validation.csv are taken to be places in the alphabet of the train file's classes: "
        "0 is 'no', 1 is 'yes'"
    ]


def test_no_number_stands_for_a_place_where_numbers_are_names(tmp_path):
    assert not any("numbers" in note for note in task_of(tmp_path, ["1.0", "2"], ["1", "2.0"]).notes)


def test_two_ways_to_write_one_number_are_one_class_and_too_few(tmp_path):
    with pytest.raises(UserError, match=r"every row has the same label, so there is nothing to learn; got '1'"):
        task_of(tmp_path, ["1", "1.0"], ["1"])


@pytest.mark.parametrize("digit", ["9", "0"])
def test_more_digits_than_python_reads_are_a_name(tmp_path, digit):
    longest = digit * 5000
    task = task_of(tmp_path, [longest, "1"], ["1", longest])
    assert set(task.spec.labels) == {"1", longest}
    assert [task.spec.labels[label] for label in task.validation["label"]] == ["1", longest]


def parquet(file: Path, labels: list, names: list[str]) -> Path:
    """A file as `datasets` writes it: numbers in the column, the names of the classes in the metadata."""
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    rows = {"text": [f"{file.stem} text {row}" for row in range(len(labels))], "label": labels}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(file))
    return file


def test_spaces_around_a_label_make_no_class(tmp_path):
    task = task_of(tmp_path, ["pos", " pos", "neg\t", "neg"], ["neg ", "pos"])
    assert task.spec.labels == ("neg", "pos")
    assert (task.train["label"][:], task.validation["label"][:]) == ([1, 1, 0, 0], [0, 1])


@pytest.mark.parametrize("word", ["NA", "None", "nan", "null", "N/A", "#N/A", " NA "])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_word_for_nothing_is_no_class_in_csv(tmp_path, word, split):
    labels = {"train": ["pos", "neg"], "validation": ["pos", "neg"]}
    labels[split][1] = word
    with pytest.raises(UserError) as caught:
        task_of(tmp_path, labels["train"], labels["validation"])
    assert str(caught.value) == (
        f"{split}.csv, column 'label', row 2: the label reads as a missing value; got '{word}'; drop the row, or if "
        "that is a class, give it another name, or write the data as JSONL or parquet."
    )


def test_where_a_file_can_say_that_nothing_is_there_the_word_is_a_class_and_said(tmp_path):
    rows = [{"text": f"t{row}", "label": ("NA", "EU")[row % 2]} for row in range(8)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = load_task("mine", str(tmp_path / "mine.jsonl"))
    assert task.spec.labels == ("EU", "NA")
    assert task.notes[0] == "a label that reads as a missing value is a class of its own: 'NA'"


def test_declared_names_of_classes_stay_in_the_order_of_their_numbers(tmp_path):
    parquet(tmp_path / "train.parquet", [0, 1, 1, 0], ["positive", "negative", "unused"])
    (tmp_path / "validation.csv").write_text("text,label\na,negative\nb,positive\n", encoding="utf-8")
    task = load_task("mine", str(tmp_path))
    assert task.spec.labels == ("positive", "negative", "unused")
    assert (task.train["label"][:], task.validation["label"][:]) == ([0, 1, 1, 0], [1, 0])


def test_names_that_are_numbers_are_not_taken_for_places(tmp_path):
    task = load_task("mine", str(parquet(tmp_path / "train.parquet", [0, 1] * 4, ["1", "0"])))
    found = [*task.train, *task.validation]
    assert task.spec.labels == ("1", "0")
    assert {row["text_a"]: row["label"] for row in found} == {f"train text {row}": row % 2 for row in range(8)}


def test_numbers_without_a_declared_name(tmp_path):
    with pytest.raises(UserError, match=r"row 3: not a declared class; got -1; allowed: 0 to 1; -1 marks a row"):
        load_task("mine", str(parquet(tmp_path / "mine.parquet", [0, 1, -1], ["no", "yes"])))
    table = pq.read_table(parquet(tmp_path / "other.parquet", [0, 1, 1], ["no", "yes"]))
    pq.write_table(table.set_column(1, "label", pa.array([0, 1, 7])), tmp_path / "other.parquet")
    with pytest.raises(UserError, match=r"row 3: not a declared class; got 7; allowed: 0 to 1\."):
        load_task("mine", str(tmp_path / "other.parquet"))


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ("{", "features that its metadata declare cannot be read"),
        ('{"info": []}', "features that its metadata declare cannot be read"),
        ('{"info": {"features": {"label": {"_type": "ClassLabel", "names": [1, 2]}}}}', "class names are not words"),
        ('{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["a", "a "]}}}}', "is declared twice"),
    ],
)
def test_declarations_that_cannot_be_used(tmp_path, stored, message):
    table = pa.table({"text": ["a", "b", "c", "d"], "label": [0, 1, 0, 1]})
    pq.write_table(table.replace_schema_metadata({"huggingface": stored}), tmp_path / "mine.parquet")
    with pytest.raises(UserError, match=message):
        load_task("mine", str(tmp_path / "mine.parquet"))


@pytest.mark.parametrize("stem", ["validation", "valid", "val", "dev"])
def test_names_of_a_validation_file(tmp_path, stem):
    for name in ("train", stem, "test"):
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{name} a,x\n{name} b,y\n", encoding="utf-8")
    task = load_task("mine", str(tmp_path / "train.csv"))
    assert task.validation["text_a"][:] == [f"{stem} a", f"{stem} b"]
    assert task.notes == (f"validation rows are those of {stem}.csv",)


def test_two_validation_files(tmp_path):
    for name in ("train", "dev", "val"):
        (tmp_path / f"{name}.csv").write_text("text,label\na,x\nb,y\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"More than one validation file; got dev.csv, val.csv; keep one"):
        load_task("mine", str(tmp_path))


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["entailment", "not_entailment"], [0, 1]), (["not_entailment", "entailment"], [1, 0]), (["yes", "no"], [0, 1])],
)
def test_a_benchmark_file_with_the_names_in_another_order(tmp_path, names, expected):
    (tmp_path / "rte").mkdir()
    features = {"sentence1": datasets.Value("string"), "sentence2": datasets.Value("string")}
    features |= {"label": datasets.ClassLabel(names=names)}
    rows = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [0, 1]}
    for split in ("train", "validation"):
        dataset = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
        dataset.to_parquet(str(tmp_path / "rte" / f"{split}.parquet"))
    task = load_task("rte", str(tmp_path))
    assert task.train["label"][:] == task.validation["label"][:] == expected

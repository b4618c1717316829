"""Labels that are numbers, in every way a file may write them."""

from __future__ import annotations

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
    assert task_of(tmp_path, ["no", "yes"], ["1", "no"]).validation["label"][:] == [1, 0]


def test_two_ways_to_write_one_number_are_one_class_and_too_few(tmp_path):
    with pytest.raises(UserError, match=r"every row has the same label, so there is nothing to learn; got '1'"):
        task_of(tmp_path, ["1", "1.0"], ["1"])


@pytest.mark.parametrize("digit", ["9", "0"])
def test_more_digits_than_python_reads_are_a_name(tmp_path, digit):
    longest = digit * 5000
    task = task_of(tmp_path, [longest, "1"], ["1", longest])
    assert set(task.spec.labels) == {"1", longest}
    assert [task.spec.labels[label] for label in task.validation["label"]] == ["1", longest]

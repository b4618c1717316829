"""Train and validation rows: which are held out, and texts that would be in both."""

from __future__ import annotations

from collections import Counter

import pytest
from datasets import Dataset

from sparsebert.data.hold_out import hold_out
from sparsebert.data.load import load_task
from sparsebert.tasks.classification import CLASSIFICATION
from sparsebert.tasks.kind import TaskKind
from sparsebert.tasks.regression import REGRESSION


def rows_of(texts: list[str], labels: list, **more: list[str]) -> Dataset:
    return Dataset.from_dict({"text_a": texts, **more, "label": labels})


def kind_of(by_class: bool) -> TaskKind:
    return CLASSIFICATION if by_class else REGRESSION


def texts_of(rows: Dataset) -> set[str]:
    return set(rows["text_a"])


@pytest.mark.parametrize("stratify", [True, False])
def test_equal_texts_stay_on_one_side(stratify):
    rows = rows_of([f"text {row % 100}" for row in range(400)], [row % 2 for row in range(400)])
    train, validation = hold_out(rows, 0, kind_of(stratify))
    assert not texts_of(train) & texts_of(validation)
    assert (len(train), len(validation)) == (360, 40)
    assert Counter(validation["label"]) == {0: 20, 1: 20} or not stratify
    again, other = (hold_out(rows, seed, kind_of(stratify))[1] for seed in (0, 1))
    assert texts_of(again) == texts_of(validation) != texts_of(other)


def test_a_text_of_both_labels_stays_on_one_side():
    rows = rows_of([f"text {row // 2}" for row in range(200)], [row % 2 for row in range(200)])
    train, validation = hold_out(rows, 0, kind_of(True))
    assert not texts_of(train) & texts_of(validation)
    assert Counter(validation["label"]) == {0: 10, 1: 10}


def test_pairs_are_equal_if_both_sides_are():
    rows = rows_of(["same"] * 40, [0, 1] * 20, text_b=[f"text {row // 2}" for row in range(40)])
    train, validation = hold_out(rows, 0, kind_of(False))
    assert len(validation) == 4
    assert not set(train["text_b"]) & set(validation["text_b"])


def test_a_text_too_frequent_for_the_share_leaves_room_for_others():
    rows = rows_of(["often"] * 50 + [f"text {row}" for row in range(50)], [0] * 100)
    _, validation = hold_out(rows, 0, kind_of(True))
    assert len(validation) == 10
    assert "often" not in texts_of(validation)


def test_where_all_texts_are_too_frequent_the_rarest_is_held_out():
    rows = rows_of(["a"] * 30 + ["b"] * 20 + ["c"] * 25, [0] * 75)
    assert texts_of(hold_out(rows, 0, kind_of(True))[1]) == {"b"}


def test_a_class_with_one_text_stays_in_train():
    rows = rows_of(["only"] * 6 + [f"text {row}" for row in range(10)], [1] * 6 + [0] * 10)
    for seed in range(5):
        train, validation = hold_out(rows, seed, kind_of(True))
        assert Counter(validation["label"]) == {0: 1}
        assert len(train) == 15


@pytest.mark.parametrize(
    ("shared", "note"), [(2, "2 of 4 validation rows have texts that are also in train.csv"), (0, "")]
)
def test_texts_of_train_in_a_validation_file_are_counted(tmp_path, shared, note):
    texts = [f"text {row}" for row in range(6)]
    held = [*texts[:shared], *(f"other {row}" for row in range(4 - shared))]
    for name, given in (("train", texts), ("validation", held)):
        lines = [f"{text},{'ab'[row % 2]}\n" for row, text in enumerate(given)]
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "".join(lines), encoding="utf-8")
    assert load_task("mine", str(tmp_path)).notes[1:] == ((note,) if note else ())

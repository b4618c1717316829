"""The user's own file: three formats, two kinds of task, and what each mistake says."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparsebert.data.load import load_task
from sparsebert.errors import UserError
from sparsebert.recipe.schema import Columns

ROWS = [{"body": f'text {row}, with "quotes"', "stars": "good" if row % 4 else "bad"} for row in range(40)]
COLUMNS = Columns(text=("body",), label="stars")


def write(path: Path, rows: list[dict]) -> str:
    """Write rows in the format of the suffix."""
    if path.suffix == ".csv":
        lines = [",".join(rows[0])] + [
            ",".join(json.dumps(str(v)).replace('\\"', '""') for v in r.values()) for r in rows
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def rows_of(texts: list, labels: list) -> list[dict]:
    return [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_each_format_gives_the_same_task(tmp_path, suffix):
    task = load_task("custom", write(tmp_path / f"mine{suffix}", ROWS), COLUMNS)
    assert task.spec.labels == ("bad", "good")
    assert task.spec.metrics == ("accuracy", "matthews")
    assert task.validation_name == "held_out"
    assert task.notes == ("no validation file was given: 4 of 40 rows were held out with seed 0",)
    assert task.train.column_names == ["text_a", "label"]
    seen = {(row["text_a"], row["label"]) for part in (task.train, task.validation) for row in part}
    assert seen == {(row["body"], int(row["stars"] == "good")) for row in ROWS}


def test_nothing_is_written_beside_the_data(tmp_path):
    load_task("custom", write(tmp_path / "mine.csv", ROWS), COLUMNS)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]


def test_held_out_rows_are_a_stratified_seeded_tenth(tmp_path):
    path = write(tmp_path / "mine.csv", ROWS)
    first, again, other = (load_task("custom", path, COLUMNS, seed=seed).validation for seed in (0, 0, 1))
    assert Counter(first["label"]) == {0: 1, 1: 3}
    assert first["text_a"][:] == again["text_a"][:]
    assert first["text_a"][:] != other["text_a"][:]


def test_a_class_with_one_row_stays_in_train(tmp_path):
    rows = rows_of([f"t{i}" for i in range(5)], ["a", "a", "b", "b", "rare"])
    task = load_task("custom", write(tmp_path / "mine.csv", rows))
    assert Counter(task.validation["label"]) == {0: 1, 1: 1}
    assert 2 in task.train["label"]


def test_too_few_rows_to_hold_out(tmp_path):
    with pytest.raises(
        UserError, match=r"Too few different texts to hold some out; got 2; add a file of validation rows"
    ):
        load_task("x", write(tmp_path / "mine.jsonl", rows_of(["a", "b"] * 5, ["p", "q"] * 5)))


@pytest.mark.parametrize("given", ["folder", "train file"])
def test_a_validation_file_is_used(tmp_path, given):
    train = write(tmp_path / "train.csv", ROWS)
    write(tmp_path / "validation.jsonl", [row | {"body": f"new {row['body']}"} for row in ROWS[:6]])
    task = load_task("mine", train if given == "train file" else str(tmp_path), COLUMNS)
    assert (len(task.train), len(task.validation), task.validation_name) == (40, 6, "validation")
    assert task.notes == ("validation rows are those of validation.jsonl",)


def test_pair_of_texts_and_regression(tmp_path):
    rows = [{"q": f"question {i}", "a": f"answer {i}", "score": i / 8} for i in range(20)]
    columns = Columns(text=("q", "a"), label="score", kind="regression")
    for suffix in (".csv", ".parquet"):
        task = load_task("mine", write(tmp_path / f"mine{suffix}", rows), columns)
        assert task.spec.labels == ()
        assert task.spec.metrics == ("pearson", "spearman")
        assert len(task.validation) == 2
        assert task.train[0] == {"text_a": "question 0", "text_b": "answer 0", "label": 0.0}


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([10, 9, 10, 9], ("9", "10")),
        ([-1, 1, 0, 1], ("-1", "0", "1")),
        ([2.0, 1.0, 2.0, 1.0], ("1", "2")),
        (["b", "a", "b", "a"], ("a", "b")),
        ([True, False, True, False], ("False", "True")),
    ],
)
def test_class_names(tmp_path, labels, names):
    task = load_task("mine", write(tmp_path / "mine.parquet", rows_of([f"t{i}" for i in range(12)], labels * 3)))
    assert task.spec.labels == names
    found = {row["text_a"]: names[row["label"]] for part in (task.train, task.validation) for row in part}
    assert found == {f"t{i}": str(int(x) if isinstance(x, float) else x) for i, x in enumerate(labels * 3)}


def test_words_that_look_like_missing_values_stay_text(tmp_path):
    rows = rows_of(["NA", "null", "None", "nan"] * 2, ["no", "yes"] * 4)
    task = load_task("mine", write(tmp_path / "mine.csv", rows))
    assert set(task.train["text_a"]) | set(task.validation["text_a"]) == {"NA", "null", "None", "nan"}


def test_a_quoted_line_break_is_part_of_the_text(tmp_path):
    (tmp_path / "mine.csv").write_text('\ufefftext,label\n"one\ntwo",a\nx,b\ny,a\nz,b\n', encoding="utf-8")
    task = load_task("mine", str(tmp_path / "mine.csv"))
    assert "one\ntwo" in set(task.train["text_a"]) | set(task.validation["text_a"])


GOOD = rows_of(["a", "b", "c", "d"], ["x", "y", "x", "y"])


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (ROWS, Columns(), "mine.jsonl has no column 'label'; allowed: body, stars; name it with --text-column"),
        (ROWS, Columns(text=("bodi",), label="stars"), "no column 'bodi'; allowed: body, stars; did you mean 'body'"),
        (GOOD, Columns(text=("a", "b", "c")), "one or two text columns; got a, b, c"),
        (GOOD, Columns(text=("text", "text")), "two text columns of a pair are the same; got text, text"),
        (rows_of(["a", " ", "c"], ["x", "y", "x"]), Columns(), "column 'text', row 2: the text is empty"),
        (rows_of(["a", None, "c"], ["x", "y", "x"]), Columns(), "row 2: the text must be a string; got nothing"),
        (rows_of([1, 2], ["x", "y"]), Columns(), "row 1: the text must be a string; got int"),
        (rows_of(["a", "b"], ["x", None]), Columns(), "column 'label', row 2: the label is missing"),
        (rows_of(["a", "b"], ["x", ""]), Columns(), "column 'label', row 2: the label is missing"),
        (rows_of(["a", "b"], ["x", "x"]), Columns(), "every row has the same label"),
        (rows_of(["a", "b"], [0.5, 1.0]), Columns(), "row 1: a class label must be .*columns.kind=regression"),
        (
            rows_of(["a", "b"], ["1", "0.5"]),
            Columns(),
            "column 'label': a class label must be .*got 0.5; .*--kind regression",
        ),
        (rows_of(["a", "b"], [["x"], ["y"]]), Columns(), "row 1: a class label must be .*got list"),
        (rows_of(["a", "b"], [1, "x"]), Columns(kind="regression"), "row 2: .*must be a finite number; got 'x'"),
        (rows_of(["a", "b"], ["1", "inf"]), Columns(kind="regression"), "row 2: .*must be a finite number; got 'inf'"),
        (rows_of(["a", "b"], [1.5, None]), Columns(kind="regression"), "row 2: the label is missing"),
    ],
)
def test_bad_rows(tmp_path, rows, columns, message):
    (tmp_path / "mine.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    if message.startswith("row 2: .*must be a finite") and isinstance(rows[0]["label"], int):
        write(tmp_path / "mine.csv", rows)
        path = tmp_path / "mine.csv"
    else:
        path = tmp_path / "mine.jsonl"
    with pytest.raises(UserError, match=message) as caught:
        load_task("mine", str(path), columns)
    assert "\n" not in str(caught.value)


def test_a_label_only_validation_has(tmp_path):
    write(tmp_path / "train.csv", GOOD)
    write(tmp_path / "validation.csv", rows_of(["e", "f"], ["x", "z"]))
    with pytest.raises(
        UserError, match=r"validation.csv, column 'label', row 2: not in the label set; got 'z'; allowed: x, y"
    ):
        load_task("mine", str(tmp_path))


def test_many_labels_are_not_all_listed(tmp_path):
    write(tmp_path / "train.csv", rows_of(["a"] * 25, [f"l{number}" for number in range(10, 35)]))
    write(tmp_path / "validation.csv", rows_of(["e"], ["z"]))
    with pytest.raises(UserError, match=r"allowed: l10, .*, l29 and 5 more \(0 to 24\)"):
        load_task("mine", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mine.csv", b"text,label\na,x,extra\n", "mine.csv, line 2: 3 values for 2 columns"),
        ("mine.csv", b"text,text,label\na,b,x\n", "mine.csv has column 'text' twice; got text, text, label"),
        ("mine.csv", b'text,label\n"a,x\n', "row that begins on line 2 is not CSV"),
        ("mine.csv", b"text,label\n", "has no rows"),
        ("mine.csv", b"", "has no rows"),
        (
            "mine.csv",
            b"text,label\n\xff\xfe,x\n",
            r"mine.csv is not UTF-8 \(invalid start byte on line 2\); name its .*--encoding cp1252",
        ),
        ("mine.jsonl", b'{"text": "a", "label": 1}\n{"text": \n', "mine.jsonl, line 2: not JSON"),
        ("mine.jsonl", b"[1, 2]\n", "line 1: not a JSON object; got list"),
        ("mine.jsonl", b'{"text": "a", "label": 123456789012345678901234567890}\n', "cannot be read as jsonl"),
        ("mine.jsonl", b'{"text": "\\ud800", "label": 1}\n', "cannot be read as jsonl"),
        ("mine.parquet", b"PAR1 not really", "cannot be read as parquet"),
        ("mine.xlsx", b"", "format of the data file; got mine.xlsx; allowed: .csv, .tsv, .jsonl, .parquet"),
    ],
)
def test_unreadable_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_task("mine", str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_wrong_paths_and_names(tmp_path):
    with pytest.raises(UserError, match=r"The data path does not exist; got .*nothing.csv"):
        load_task("mine", str(tmp_path / "nothing.csv"))
    with pytest.raises(
        UserError, match=r"Task 'sts2' is not one of the table.*no train.csv or train.tsv or train.jsonl or"
    ):
        load_task("sts2", str(tmp_path))
    with pytest.raises(UserError, match=r"Unknown task 'sts2'.*Did you mean"):
        load_task("sts2", None)
    write(tmp_path / "train.csv", GOOD)
    write(tmp_path / "train.jsonl", GOOD)
    with pytest.raises(UserError, match=r"More than one train file; got train.csv, train.jsonl"):
        load_task("mine", str(tmp_path))

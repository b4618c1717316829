"""CSV as spreadsheets of the world write it: delimiters, encodings, decimal commas; and where that cannot be known."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsebert.data.load import load_task
from sparsebert.data.read import DELIMITER, read_file
from sparsebert.data.text import Written
from sparsebert.errors import UserError
from sparsebert.models.load import load_config
from sparsebert.recipe.schema import Columns
from tiny_run import QUICK, assert_refused, run_cli, save_tiny

ROWS = [("schön, ja", "gut"), ("schlecht; „nein“", "übel"), ("mittel | so", "gut"), ('er sagte "nie"', "übel")]
WANTED = ("text", "label")


def content(delimiter: str, rows: list[tuple[str, ...]] = ROWS, header: tuple[str, ...] = WANTED) -> str:
    """CSV in which every value is quoted that Excel would quote."""

    def value(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if {delimiter, '"'} & set(text) else text

    return "".join(delimiter.join(map(value, row)) + "\r\n" for row in [header, *rows])


def refused(file: Path, *wanted: str, written: Written | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read_file(file, wanted or WANTED, written or Written())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_delimiter_and_encoding_are_found_out(tmp_path, delimiter, encoding):
    (tmp_path / "mine.csv").write_bytes(content(delimiter).encode(encoding))
    table = read_file(tmp_path / "mine.csv", WANTED)
    assert list(zip(*table.to_pydict().values(), strict=True)) == ROWS
    assert table.schema.metadata[DELIMITER].decode() == delimiter


def test_an_encoding_without_a_mark_is_named(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_bytes(content(";").encode("cp1252"))
    assert refused(file) == (
        "mine.csv is not UTF-8 (invalid start byte on line 2); name its encoding, for example --encoding cp1252 "
        "(columns.encoding in a recipe)."
    )
    columns = Columns(encoding="cp1252", delimiter=";")
    assert load_task("mine", str(file), columns).spec.labels == ("gut", "übel")
    file.write_bytes(content(";").encode("utf-16-le"))
    assert refused(file).startswith(
        "mine.csv holds zero bytes, so it is not UTF-8; name its encoding, for example --encoding utf-16-le"
    )
    assert len(read_file(file, WANTED, Written(encoding="utf-16-le"))) == 4


@pytest.mark.parametrize("encoding", ["latin-5000", "hex", "a\0b", "undefined", "\udc80"])
def test_encodings_that_are_none(tmp_path, encoding):
    (tmp_path / "mine.csv").write_text(content(","), encoding="utf-8")
    assert "Unknown encoding; got " in refused(tmp_path / "mine.csv", written=Written(encoding=encoding))


def test_jsonl_in_another_encoding(tmp_path):
    rows = '{"text": "schön", "label": "x"}\r\n{"text": "gut", "label": "y"}\r\n'
    for encoding in ("utf-16", "utf-8-sig"):
        (tmp_path / "mine.jsonl").write_bytes(rows.encode(encoding))
        assert read_file(tmp_path / "mine.jsonl", WANTED)["text"].to_pylist() == ["schön", "gut"]
    (tmp_path / "mine.jsonl").write_bytes(rows.encode("cp1252"))
    assert "mine.jsonl is not UTF-8" in refused(tmp_path / "mine.jsonl")
    assert len(read_file(tmp_path / "mine.jsonl", WANTED, Written(encoding="cp1252"))) == 2


def test_a_header_that_two_delimiters_divide(tmp_path):
    file = tmp_path / "mine.csv"
    # Only commas give both columns; then: only semicolons give rows as wide as the header; then: both do.
    file.write_text("text,label,a;b\nx;y,p,1\nz,q,2\n", encoding="utf-8")
    assert read_file(file, WANTED)["text"].to_pylist() == ["x;y", "z"]
    file.write_text("a,b;text;c,d\n1;one, two;3\n4;five;6\n", encoding="utf-8")
    assert read_file(file, ("text",))["text"].to_pylist() == ["one, two", "five"]
    file.write_text("a,b;c\n1,2;3\n", encoding="utf-8")
    assert refused(file) == (
        "mine.csv could be divided by comma or semicolon; say which with --delimiter (columns.delimiter in a recipe)."
    )
    assert read_file(file, ("b;c",), Written(delimiter=","))["b;c"].to_pylist() == ["2;3"]
    assert read_file(file, ("c",), Written(delimiter=";"))["c"].to_pylist() == ["3"]


def test_a_delimiter_that_is_given(tmp_path):
    file = tmp_path / "mine.tsv"
    file.write_text("text\tlabel\na^b\tx\n", encoding="utf-8")
    assert read_file(file, WANTED, Written(delimiter="\\t"))["text"].to_pylist() == ["a^b"]
    file.write_text("text^label\na^b\n", encoding="utf-8")
    assert read_file(file, WANTED, Written(delimiter="^"))["label"].to_pylist() == ["b"]
    for wrong in (";;", '"', "\n", ""):
        if wrong:
            assert "A delimiter is one character" in refused(file, written=Written(delimiter=wrong))


def test_mistakes_in_a_file_with_semicolons_are_told_as_such(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("text;label\na;x\nb;y;z\n", encoding="utf-8")
    assert refused(file).startswith("mine.csv, line 3: 3 values for 2 columns; put text that holds a semicolon")
    file.write_text('text;label\na;x\n"b"c;y\n', encoding="utf-8")
    assert refused(file).startswith("mine.csv, the row that begins on line 3 is not CSV (';' expected")
    file.write_text("body;stars\na;x\n", encoding="utf-8")
    assert refused(file).startswith("mine.csv has no column 'text'; allowed: body, stars")


def test_spaces_in_a_header_are_no_part_of_a_name(tmp_path):
    (tmp_path / "mine.csv").write_text("text, label\na,x\n", encoding="utf-8")
    assert read_file(tmp_path / "mine.csv", WANTED).to_pylist() == [{"text": "a", "label": "x"}]


def scores(folder: Path, delimiter: str, labels: list[str]) -> tuple[list[float], tuple[str, ...]]:
    """Labels of a regression in the order of the file, and what was said."""
    rows = [(f"t{row}", label) for row, label in enumerate(labels)]
    for name in ("train", "validation"):
        text = content(delimiter, [(f"{name} {text}", label) for text, label in rows])
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    task = load_task("mine", str(folder), Columns(kind="regression"))
    assert task.train["label"][:] == task.validation["label"][:]
    return task.train["label"][:], task.notes


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_decimal_commas_where_commas_do_not_divide(tmp_path, delimiter):
    labels, notes = scores(tmp_path, delimiter, ["3,5", "-0,25", "4", "1,5e2", " ,5"])
    assert labels == [3.5, -0.25, 4.0, 150.0, 0.5]
    assert notes[0] == "commas in column 'label' are read as decimal points"
    assert scores(tmp_path, delimiter, ["3.5", "1", "2"])[0] == [3.5, 1.0, 2.0]
    assert scores(tmp_path, delimiter, ["1,234", "0,5"])[0] == [1.234, 0.5]


@pytest.mark.parametrize(
    ("delimiter", "labels", "message"),
    [
        (",", ["3,5", "4"], "row 1: the label of a regression must be a finite number; got '3,5'"),
        (";", ["3,5", "4.5"], "some numbers have a comma and some a point; got 3,5 and 4.5; write points"),
        (";", ["1,234", "2,500"], "the commas may be decimal ones or stand between thousands; got 1,234"),
        (";", ["1.234,5", "2"], "row 1: the label of a regression must be a finite number; got '1.234,5'"),
        (";", ["3,5,1", "2"], "row 1: the label of a regression must be a finite number; got '3,5,1'"),
    ],
)
def test_commas_that_may_mean_something_else(tmp_path, delimiter, labels, message):
    with pytest.raises(UserError) as caught:
        scores(tmp_path, delimiter, labels)
    assert message in str(caught.value)


def test_delimiter_and_encoding_on_the_command_line(tmp_path):
    rows = [(f"schön {number}", ("gut", "übel")[number % 2]) for number in range(40)]
    (tmp_path / "mine.csv").write_bytes(content("^", rows).encode("cp1252"))
    model = save_tiny(tmp_path / "model")
    given = ("compress", model, "--task", "mine", "--data", tmp_path / "mine.csv", "--sparsity", 0.5, "--no-finetune")
    assert_refused(run_cli(*given, "-o", tmp_path / "run"), ["is not UTF-8", "--encoding cp1252"])
    assert not (tmp_path / "run").exists()
    said = run_cli(*given, "-o", tmp_path / "run", *QUICK, "--encoding", "cp1252", "--delimiter", "^")
    assert said.exit_code == 0, said.stderr
    assert load_config(tmp_path / "run" / "dense").id2label == {0: "gut", 1: "übel"}

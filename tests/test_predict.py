"""`sparsebert predict`: a row for each line, and models that it is not for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import BertTokenizerFast
from typer.testing import CliRunner

from sparsebert.cli import app
from tiny import tiny_model
from tiny_run import QUICK, SPECIAL, WORDS, assert_refused, run_cli, save_tiny, write_task


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("predict") / "model")


def given_bytes(model: Path, content: bytes) -> Any:
    return CliRunner().invoke(app, ["predict", str(model), "-", "--json"], input=content)


def found(said: Any) -> dict[str, Any]:
    assert said.exit_code == 0, said.output
    return json.loads(said.stdout)


@pytest.mark.parametrize("where", ["stdin", "file"])
def test_only_line_breaks_end_a_line(model, tmp_path, where):
    content = "\ufeffgood\u2028bad\x0cw1\x85w2\x1dw3\r\ncafé\rbad".encode()
    (tmp_path / "texts.txt").write_bytes(content)
    given = given_bytes(model, content) if where == "stdin" else None
    said = given or run_cli("predict", model, "--file", tmp_path / "texts.txt", "--json")
    texts = [row["text"] for row in found(said)["predictions"]]
    assert texts == ["good\u2028bad\x0cw1\x85w2\x1dw3", "café", "bad"]


def test_empty_lines_have_their_row_and_a_note(model):
    said = given_bytes(model, b"good\n\n  \nbad\n")
    assert [row["text"] for row in found(said)["predictions"]] == ["good", "", "  ", "bad"]
    assert found(said)["notes"] == ["2 of 4 texts are empty"]
    assert "Note: 2 of 4 texts are empty" in said.stderr


def test_nothing_on_stdin(model):
    assert_refused(given_bytes(model, b""), ["There is no text"])


def test_texts_that_are_not_utf8(model, tmp_path):
    assert_refused(given_bytes(model, b"caf\xe9\n"), ["The texts are not UTF-8", "got stdin"])
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    said = run_cli("predict", model, "--file", tmp_path / "latin.txt")
    assert_refused(said, ["The texts are not UTF-8", "latin.txt"])


def test_capitals_in_a_suffix(model, tmp_path):
    (tmp_path / "texts.CSV").write_text("body,id\ngood,1\nbad,2\n", encoding="utf-8")
    said = run_cli("predict", model, "--file", tmp_path / "texts.CSV", "--text-column", "body", "--json")
    assert [row["text"] for row in found(said)["predictions"]] == ["good", "bad"]
    assert_refused(
        run_cli("predict", model, "--file", tmp_path / "texts.CSV"), ["no column 'text'", "allowed: body, id"]
    )


def test_several_labels_at_once_are_refused(tmp_path):
    several = save_tiny(tmp_path / "model", problem_type="multi_label_classification")
    said = run_cli("predict", several, "good")
    assert_refused(said, ["several labels at once", "problem_type multi_label_classification"])


def test_a_tokenizer_with_more_words_than_the_model(tmp_path):
    small = save_tiny(tmp_path / "model", vocab_size=20)
    assert len(found(run_cli("predict", small, "good", "--json"))["predictions"]) == 1
    last = len(SPECIAL) + len(WORDS) - 1
    said = run_cli("predict", small, "good", WORDS[-1])
    assert_refused(said, [f"got {last}", "allowed: 0 to 19, as vocab_size is 20", "the model's own tokenizer"])


def test_without_a_table_of_positions_longer_texts_are_read_when_asked_for(tmp_path):
    folder = tmp_path / "model"
    tiny_model("deberta-v2", num_labels=2).save_pretrained(folder)
    words = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    BertTokenizerFast(vocab=words, model_input_names=["input_ids", "attention_mask"]).save_pretrained(folder)
    arguments = ("predict", folder, "good " * 70, "--json")
    usual, longer = found(run_cli(*arguments)), found(run_cli(*arguments, "--max-length", 100))
    assert usual["notes"] == ["1 of 1 texts were longer than 64 tokens and were truncated"]
    assert longer["notes"] == []
    assert usual["predictions"] != longer["predictions"]
    assert_refused(run_cli("predict", folder, "a", "--max-length", 2), ["too short", "allowed: 4 or more"])


def test_a_run_and_predict_read_the_same_length_which_is_said_before_training(tmp_path):
    model = save_tiny(tmp_path / "model", num_labels=3)
    BertTokenizerFast.from_pretrained(model, padding_side="left").save_pretrained(model)
    data = write_task(tmp_path / "data")
    arguments = ("--task", "mine", "--data", data, "--sparsity", 0.5, "--max-length", 6, "--no-finetune", *QUICK)
    said = run_cli("compress", model, *arguments, "--output", tmp_path / "run")
    assert said.exit_code == 0, said.stderr
    long = sum(len(line.split(",")[0].split()) > 4 for line in (data / "train.csv").read_text().splitlines()[1:])
    note = f"Note: train: {long} of 64 texts were longer than 6 tokens and were truncated"
    assert 0 <= said.stderr.replace("\n", " ").index(note) < said.stderr.index("dense: ")
    assert "Note: The tokenizer pads on the left; here texts are padded on the right" in said.stderr.replace("\n", " ")
    for member in ("dense", "0.5-sparsity"):
        (row,) = found(run_cli("predict", tmp_path / "run" / member, "good w1 w2 w3", "--json"))["predictions"]
        longer = found(run_cli("predict", tmp_path / "run" / member, "good w1 w2 w3 bad bad", "--json"))
        assert longer["notes"] == ["1 of 1 texts were longer than 6 tokens and were truncated"]
        assert longer["predictions"][0]["probability"] == row["probability"]
        assert BertTokenizerFast.from_pretrained(tmp_path / "run" / member).padding_side == "right"

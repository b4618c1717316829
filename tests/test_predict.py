"""`sparsebert predict`: a row for each line, and models that it is not for."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import BertTokenizerFast
from typer.testing import CliRunner

from sparsebert import progress, registry
from sparsebert.cli.application import app
from sparsebert.data import tokens
from sparsebert.data.tokens import Reader
from sparsebert.models.load import load_model, load_tokenizer
from sparsebert.runtimes.runtime import Prepared, Runtime
from sparsebert.training.collate import padding_collator
from sparsebert.training.inference import Inference
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
    assert_refused(given_bytes(model, b"caf\xe9\n"), ["stdin is not UTF-8", "--encoding cp1252"])
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    said = run_cli("predict", model, "--file", tmp_path / "latin.txt")
    assert_refused(said, ["latin.txt is not UTF-8", "--encoding cp1252"])


def test_capitals_in_a_suffix(model, tmp_path):
    (tmp_path / "texts.CSV").write_text("body,id\ngood,1\nbad,2\n", encoding="utf-8")
    said = run_cli("predict", model, "--file", tmp_path / "texts.CSV", "--text-column", "body", "--json")
    assert [row["text"] for row in found(said)["predictions"]] == ["good", "bad"]
    assert_refused(
        run_cli("predict", model, "--file", tmp_path / "texts.CSV"), ["no column 'text'", "allowed: body, id"]
    )


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


MANY = [" ".join(WORDS[(row * 7 + i) % 60] for i in range(row * 5 % 23 + 1)) for row in range(50)]


def csv_rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def test_rows_are_written_in_the_format_of_the_suffix(model, tmp_path):
    (tmp_path / "mine.csv").write_text('key;text\na1;"good; w1"\nb2;"bad\nw2"\n', encoding="utf-8")
    arguments = ("predict", model, "--file", tmp_path / "mine.csv", "--id-column", "key")
    whole = found(run_cli(*arguments, "--json"))["predictions"]
    assert [row["id"] for row in whole] == ["a1", "b2"]
    assert list(whole[0]) == ["id", "text", "label", "probability", "probabilities"]
    assert set(whole[0]["probabilities"]) == {"LABEL_0", "LABEL_1"}
    assert sum(whole[0]["probabilities"].values()) == pytest.approx(1)
    for name in ("pred.csv", "pred.jsonl", "pred.JSON"):
        said = run_cli(*arguments, "-o", tmp_path / "new" / name)
        assert (said.exit_code, said.stdout) == (0, f"2 rows written to {tmp_path / 'new' / name}\n")
    lines = (tmp_path / "new" / "pred.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == whole
    assert json.loads((tmp_path / "new" / "pred.JSON").read_text(encoding="utf-8"))["predictions"] == whole
    rows = csv_rows(tmp_path / "new" / "pred.csv")
    assert list(rows[0]) == ["id", "text", "label", "probability", "probability_LABEL_0", "probability_LABEL_1"]
    assert [(row["id"], row["text"], row["label"]) for row in rows] == [
        (row["id"], row["text"], row["label"]) for row in whole
    ]
    assert [float(row["probability_LABEL_1"]) for row in rows] == [row["probabilities"]["LABEL_1"] for row in whole]
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["pred.JSON", "pred.csv", "pred.jsonl"]


def test_an_output_of_no_known_format_and_one_that_is_a_link(model, tmp_path):
    said = run_cli("predict", model, "good", "-o", tmp_path / "pred.xlsx")
    assert_refused(said, ["format of the output", "got pred.xlsx", "allowed: .csv, .jsonl, .json"])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "own.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "pred.csv").symlink_to(tmp_path / "own.txt")
    assert run_cli("predict", model, "good", "-o", tmp_path / "pred.csv").exit_code == 0
    assert (tmp_path / "own.txt").read_text(encoding="utf-8") == "mine"
    assert [row["id"] for row in csv_rows(tmp_path / "pred.csv")] == ["1"]


def test_an_output_in_place_of_what_is_read_and_one_that_is_a_folder(model, tmp_path):
    file = tmp_path / "texts.csv"
    file.write_text("text,more\ngood,1\n", encoding="utf-8")
    assert_refused(
        run_cli("predict", model, "--file", file, "-o", file), ["replace the file of the texts", "texts.csv"]
    )
    (tmp_path / "taken.csv").mkdir()
    assert_refused(run_cli("predict", model, "good", "-o", tmp_path / "taken.csv"), ["is a folder", "taken.csv"])
    assert file.read_text(encoding="utf-8") == "text,more\ngood,1\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken.csv", "texts.csv"]


def test_labels_of_one_name_keep_their_own_probabilities(tmp_path):
    twice = save_tiny(tmp_path / "twice", id2label={0: "a", 1: "a"})
    (row,) = found(run_cli("predict", twice, "good", "--json"))["predictions"]
    assert list(row["probabilities"]) == ["a (0)", "a (1)"]
    assert sum(row["probabilities"].values()) == pytest.approx(1)
    assert row["probability"] == row["probabilities"][row["label"]]


def test_texts_and_labels_cannot_steer_the_terminal(tmp_path):
    steering = save_tiny(tmp_path / "steering", id2label={0: "\x1b[31ma", 1: "\x1b[31mb"})
    said = run_cli("predict", steering, "good \x1b]0;title\x07", "[red]bad[/red]")
    assert said.exit_code == 0 and "\x1b" not in said.stdout and "[red]bad[/red]" in said.stdout
    assert said.stdout.count("\N{REPLACEMENT CHARACTER}[31m") == 2


def test_several_numbers_and_a_single_class(tmp_path):
    several = save_tiny(
        tmp_path / "several", num_labels=3, problem_type="regression", id2label={0: "a", 1: "b", 2: "c"}
    )
    (row,) = found(run_cli("predict", several, "good", "--json"))["predictions"]
    with torch.no_grad():
        logits = load_model(several)(**load_tokenizer(several)("good", return_tensors="pt")).logits[0].tolist()
    assert list(row) == ["id", "text", "values"]
    assert row["values"] == pytest.approx(dict(zip("abc", logits, strict=True)), abs=1e-6)
    run_cli("predict", several, "good", "-o", tmp_path / "pred.csv")
    assert list(csv_rows(tmp_path / "pred.csv")[0]) == ["id", "text", "value_a", "value_b", "value_c"]
    assert "Value a" in run_cli("predict", several, "good").stdout
    alone = save_tiny(tmp_path / "alone", num_labels=1, problem_type="regression")
    config = json.loads((alone / "config.json").read_text(encoding="utf-8"))
    config["problem_type"] = "single_label_classification"
    (alone / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert_refused(run_cli("predict", alone, "good"), ["single_label_classification"])


def test_a_model_without_a_task_is_named_by_its_class(tmp_path):
    said = run_cli("predict", save_tiny(tmp_path / "base", "base"), "good")
    assert_refused(said, ["is not fine-tuned for a task", "got BertModel"])
    said = run_cli("predict", save_tiny(tmp_path / "language", "masked_lm"), "good")
    assert_refused(said, ["Text 1 has no [MASK] to be filled", "add --loss"])


def test_what_follows_the_model_is_text(model, tmp_path, monkeypatch):
    assert_refused(run_cli("predict", model, model, "good"), ["predict takes one model", f"got {model}"])
    (tmp_path / "mine.csv").write_text("text\ngood\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert_refused(run_cli("predict", model, "mine.csv"), ["this is a file", "give it as --file"])
    assert len(found(run_cli("predict", model, "other.csv", "a" * 5000, ".", "--json"))["predictions"]) == 3
    assert_refused(run_cli("predict", model, "good", "--id-column", "key"), ["--id-column needs --file with columns"])


@pytest.mark.parametrize("window", [7, 64])
def test_every_text_has_its_own_answer_in_whatever_order_they_are_read(model, monkeypatch, window):
    monkeypatch.setattr(tokens, "WINDOW_TEXTS", window)
    ready, words = load_model(model), load_tokenizer(model)
    reader, counted = Reader(words, 16, ready.config.vocab_size), []
    one = Inference(ready, reader, padding_collator(words), "eager", 4)
    parts = list(one.logits(MANY, None, counted.append))
    with torch.no_grad():
        alone = [ready(**words(text, return_tensors="pt", truncation=True, max_length=16)).logits[0] for text in MANY]
    assert np.abs(np.concatenate([read.outputs for read in parts]) - torch.stack(alone).numpy()).max() < 1e-5
    assert sum(len(read.cut) for read in parts) == sum(len(text.split()) > 14 for text in MANY)
    assert sum(counted) == len(MANY) and len(parts) == -(-len(MANY) // window)


def test_what_runs_as_one_program_gets_few_shapes_and_only_those_it_was_made_for(model, monkeypatch):
    made = []

    class Whole(Runtime):
        def prepare(self, model: Any, inputs: Any) -> Prepared:
            made.append(tuple(inputs["input_ids"].shape))

            def run(given: Any) -> torch.Tensor:
                assert {value.shape for value in given.values()} == {inputs["input_ids"].shape}
                return model(**given)[0]

            return Prepared(run, "float32", "sdpa", True, None, any_shape=False)

    expected = found(given_bytes(model, "\n".join(MANY).encode()))["predictions"]
    monkeypatch.setitem(registry._TABLE["runtime"], "whole", "somewhere:whole")
    get = registry.get
    monkeypatch.setattr(registry, "get", lambda kind, name: Whole() if name == "whole" else get(kind, name))
    said = run_cli("predict", model, "-", "--json", "--runtime", "whole", "--batch", 3, stdin="\n".join(MANY))
    for row, other in zip(found(said)["predictions"], expected, strict=True):
        assert row["probability"] == pytest.approx(other["probability"], abs=1e-5)
    assert sorted(made) == [(3, 16), (3, 32)]
    assert run_cli("predict", model, "good", "--runtime", "whole").exit_code == 0
    assert made[2:] == [(1, 16)]


def test_runtimes_and_threads(model):
    plain = found(run_cli("predict", model, "good", "--json", "--threads", 1, "--batch", 1))["predictions"]
    half = found(run_cli("predict", model, "good", "--json", "--runtime", "eager-bf16"))["predictions"]
    assert plain[0]["probability"] == pytest.approx(half[0]["probability"], abs=0.02)
    assert plain != half
    assert_refused(
        run_cli("predict", model, "good", "--runtime", "eagre"), ["Unknown runtime", "Did you mean 'eager'?"]
    )
    assert_refused(run_cli("predict", model, "good", "--threads", 0), ["no number of threads"])


def test_onnx_answers_as_eager_for_texts_of_any_length(model):
    pytest.importorskip("onnxruntime")
    texts = "\n".join(MANY[:7])
    expected = found(run_cli("predict", model, "-", "--json", stdin=texts))["predictions"]
    said = found(run_cli("predict", model, "-", "--json", "--runtime", "onnx", "--batch", 3, stdin=texts))
    for row, other in zip(said["predictions"], expected, strict=True):
        assert row["label"] == other["label"] and row["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_a_bar_is_shown_once_work_is_slow(monkeypatch):
    screen = Console(stderr=True, force_terminal=True, width=80)
    monkeypatch.setattr(progress, "console", screen)
    for patience, shown in ((1000.0, False), (0.0, True)):
        monkeypatch.setattr(progress, "PATIENCE_S", patience)
        with screen.capture() as captured, progress.bar_if_slow("Predicting", 4) as done:
            done(3)
        assert ("Predicting" in captured.get()) == shown

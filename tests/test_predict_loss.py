"""`sparsebert predict --loss`: the pseudo-log-likelihood of texts, and models and texts that have none."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForMaskedLM, BertTokenizerFast

from sparsebert.deployment.plain import inference_of, masked_lm
from sparsebert.measurement import text_loss
from tiny import tiny_model
from tiny_run import SPECIAL, WORDS, assert_refused, run_cli, save_tiny

TEXTS = ["good w1 bad", "w2", "", "w3 w4 w5 w6 w7 good w8 w9", "good unheard w1", "[MASK]", "w1 [SEP] w2"]
COUNTS = [3, 1, 0, 8, 3, 0, 2]
COLUMNS = ["id", "text", "tokens", "loss", "pseudo_perplexity"]
UNKNOWN = SPECIAL.index("[UNK]")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("loss") / "model", "masked_lm")


@pytest.fixture(scope="module")
def by_hand(model) -> list[float | None]:
    """Each text alone, one forward pass a token, by transformers."""
    loaded, tokenizer = BertForMaskedLM.from_pretrained(model).eval(), BertTokenizerFast.from_pretrained(model)
    found: list[float | None] = []
    for text in TEXTS:
        given = tokenizer(text, return_tensors="pt")
        losses = []
        for place, token in enumerate(given["input_ids"][0].tolist()):
            if token < len(SPECIAL) and token != UNKNOWN:
                continue
            ids = given["input_ids"].clone()
            ids[0, place] = tokenizer.mask_token_id
            with torch.no_grad():
                logits = loaded(**{**given, "input_ids": ids}).logits[0, place].double()
            losses.append(-math.log(logits.exp()[token] / logits.exp().sum()))
        found.append(sum(losses) / len(losses) if losses else None)
    return found


def rows_of(said: Any) -> list[dict[str, Any]]:
    assert said.exit_code == 0, said.output
    return json.loads(said.stdout)["predictions"]


def assert_losses(rows: list[dict[str, Any]], expected: list[float | None], tolerance: float = 1e-5) -> None:
    assert [row["tokens"] for row in rows] == COUNTS
    for row, loss in zip(rows, expected, strict=True):
        assert (row["loss"] is None) == (row["pseudo_perplexity"] is None) == (loss is None)
        if loss is not None:
            assert row["loss"] == pytest.approx(loss, abs=tolerance)
            assert row["pseudo_perplexity"] == pytest.approx(math.exp(loss), rel=2 * tolerance)


@pytest.mark.parametrize("batch", [1, 5, 32])
@pytest.mark.parametrize("window", [2, 256])
def test_each_token_is_masked_once_whatever_else_is_in_the_batch(model, by_hand, monkeypatch, batch, window):
    monkeypatch.setattr(text_loss, "WINDOW_TEXTS", window)
    rows = rows_of(run_cli("predict", model, *TEXTS, "--loss", "--json", "--batch", batch))
    assert [list(row) for row in rows] == [COLUMNS] * len(TEXTS)
    assert [row["text"] for row in rows] == TEXTS
    assert_losses(rows, by_hand)
    losses = [loss for loss in by_hand if loss is not None]
    assert len({round(loss, 3) for loss in losses}) == len(losses)


@pytest.mark.parametrize("family", ["roberta", "modernbert", "distilbert"])
def test_other_families(tmp_path, family):
    tiny_model(family, "masked_lm").save_pretrained(tmp_path)
    words = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    BertTokenizerFast(vocab=words, model_input_names=["input_ids", "attention_mask"]).save_pretrained(tmp_path)
    together = rows_of(run_cli("predict", tmp_path, *TEXTS, "--loss", "--json"))
    alone = [rows_of(run_cli("predict", tmp_path, text, "--loss", "--json", "--batch", 1))[0] for text in TEXTS]
    assert_losses(together, [row["loss"] for row in alone])


def test_onnx_and_half_precision(model, by_hand):
    half = rows_of(run_cli("predict", model, *TEXTS, "--loss", "--json", "--runtime", "eager-bf16"))
    assert_losses(half, by_hand, tolerance=0.1)
    pytest.importorskip("onnxruntime")
    assert_losses(rows_of(run_cli("predict", model, *TEXTS, "--loss", "--json", "--runtime", "onnx")), by_hand)


def test_all_texts_are_counted_as_they_get_ready(model):
    counted: list[int] = []
    inference = inference_of(masked_lm(str(model)), None, "eager", 4)
    found = [one for part, _ in text_loss.text_losses(inference, TEXTS, counted.append) for one in part]
    assert [one.tokens for one in found] == COUNTS
    assert sum(counted) == len(TEXTS) and len(counted) == 1 + math.ceil(sum(COUNTS) / 4)


def test_tables_and_files(model, tmp_path):
    whole = rows_of(run_cli("predict", model, *TEXTS, "--loss", "--json"))
    shown = run_cli("predict", model, *TEXTS[1:3], "--loss").stdout
    assert "Pseudo perplexity" in shown and f"{whole[1]['loss']:.3f}" in shown and shown.count("–") == 2
    for name in ("losses.csv", "losses.jsonl", "losses.json"):
        said = run_cli("predict", model, *TEXTS, "--loss", "-o", tmp_path / name)
        assert (said.exit_code, said.stdout) == (0, f"7 rows written to {tmp_path / name}\n")
    lines = (tmp_path / "losses.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == whole
    assert json.loads((tmp_path / "losses.json").read_text(encoding="utf-8"))["predictions"] == whole
    with (tmp_path / "losses.csv").open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert list(written[0]) == COLUMNS
    assert [row["loss"] for row in written] == ["" if row["loss"] is None else str(row["loss"]) for row in whole]


def test_a_text_that_was_cut_has_the_loss_of_what_was_read(model):
    said = run_cli("predict", model, "good w1 bad w2 w3", "--loss", "--json", "--max-length", 5)
    short = rows_of(run_cli("predict", model, "good w1 bad", "--loss", "--json"))
    assert rows_of(said)[0]["loss"] == pytest.approx(short[0]["loss"], abs=1e-6)
    assert json.loads(said.stdout)["notes"] == ["1 of 1 texts were longer than 5 tokens and were truncated"]


def test_models_without_a_language_model_and_pairs_are_refused(model, tmp_path):
    out = tmp_path / "losses.csv"
    for task, class_name in (("classification", "BertForSequenceClassification"), ("base", "BertModel")):
        said = run_cli("predict", save_tiny(tmp_path / task, task), "good", "--loss", "-o", out)
        allowed = "allowed: classes that end in ForMaskedLM"
        assert_refused(said, ["--loss needs a masked language model", f"got {class_name}", allowed])
    assert_refused(run_cli("predict", model, "good", "-o", out), ["has no [MASK]", "got 'good'", "--loss"])
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("a,b\ngood,bad\n", encoding="utf-8")
    columns = ("--text-column", "a", "--text-column", "b")
    said = run_cli("predict", model, "--file", pairs, *columns, "--loss", "-o", out)
    assert_refused(said, ["--loss takes one text a row", "got 2 text columns"])
    assert not out.exists()


@pytest.mark.parametrize(("word", "got"), [(None, "got none"), ("w50", "got id 57, where vocab_size is 40")])
def test_a_tokenizer_without_a_mask_token_that_the_model_knows(tmp_path, word, got):
    folder = save_tiny(tmp_path / "model", "masked_lm", vocab_size=40)
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**config, "mask_token": word}), encoding="utf-8")
    said = run_cli("predict", folder, "good", "--loss", "-o", tmp_path / "losses.csv")
    assert_refused(said, ["needs a mask token", got, "tokenizer.mask_token"])
    assert [path.name for path in tmp_path.iterdir()] == ["model"]

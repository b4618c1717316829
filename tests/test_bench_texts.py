"""`bench --texts`: the user's texts at the lengths that they have, in the same order for every model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertTokenizerFast, PreTrainedTokenizerBase

import sparsebert
from sparsebert.errors import UserError
from sparsebert.measurement.bench import BenchRow, bench
from sparsebert.measurement.setting import RealTexts, Setting
from sparsebert.measurement.station import Here
from tiny import tiny_model
from tiny_run import SPECIAL, WORDS, assert_refused, run_cli, save_tiny

QUICK = {"rounds": 3, "min_sample_ms": 0.1, "warmup_ms": 0.0, "threads": 1}
# In tokens with the two around them: 3, 6, 2, 4 and 12, of which the last is cut to 8.
TEXTS = ["good", "bad w1 w2 w3", "", "w4 good", "bad " * 10]


def tokenizer_of(words: tuple[str, ...] = WORDS, **more: Any) -> PreTrainedTokenizerBase:
    return BertTokenizerFast(vocab={word: place for place, word in enumerate((*SPECIAL, *words))}, **more)


@pytest.fixture(scope="module")
def rows() -> list[BenchRow]:
    """Two equal models of which one has words of its own numbers, and a third whose first score is higher."""
    torch.manual_seed(0)
    dense, moved, other = (tiny_model("bert", num_hidden_layers=1, num_labels=2) for _ in range(3))
    for model in (moved, other):
        model.load_state_dict(dense.state_dict())
    backwards = torch.arange(len(SPECIAL) + len(WORDS))
    backwards[len(SPECIAL) :] = backwards[len(SPECIAL) :].flip(0)
    with torch.no_grad():
        moved.get_parameter("classifier.bias")[0] += 0.5
        table = other.get_parameter("bert.embeddings.word_embeddings.weight")
        table[: len(backwards)] = table[backwards].clone()
    plain, turned = tokenizer_of(model_max_length=8), tokenizer_of(WORDS[::-1], model_max_length=8)
    models = {"dense": dense, "other": other, "moved": moved}
    texts = RealTexts(TEXTS, None, {"dense": plain, "other": turned, "moved": plain})
    return bench(models, [Setting(2, 1)], ["eager"], texts=texts, **QUICK)


def test_rates_and_percentiles_are_of_all_texts(rows: list[BenchRow]):
    for row in rows:
        assert row.real and (row.batch, row.length, row.real.texts) == (2, round((3 + 6 + 2 + 4 + 8) / 5), 5)
        whole, encoder = row.timings
        # Three batches hold five texts.
        assert row.real.texts_per_s == pytest.approx(1000 * 5 / (3 * whole.median_ms))
        assert whole.tokens_per_s == pytest.approx(1000 * (3 + 6 + 2 + 4 + 8) / (3 * whole.median_ms))
        assert 0 < row.real.p50_ms <= row.real.p95_ms <= row.real.p99_ms
        assert 0 < encoder.median_ms < whole.median_ms


def test_outputs_are_compared_text_by_text_whatever_the_numbers_of_the_tokens(rows: list[BenchRow]):
    other, moved = (row.against_baseline for row in rows[1:])
    assert other and other.sequences == 5 and other.largest_difference == pytest.approx(0, abs=1e-6)
    assert moved and moved.largest_difference == pytest.approx(0.5, abs=1e-5)


def test_batches_are_of_like_length_and_cut_where_the_model_was():
    model = tiny_model("bert", num_hidden_layers=1)
    given = RealTexts(TEXTS, None, {"a": tokenizer_of(model_max_length=8)}).given({"a": model}, 2)
    shapes = [batch["input_ids"].shape for batch in given.batches["a"]]
    assert (shapes, given.timed, given.words) == ([(2, 3), (2, 6), (1, 8)], 3, "batch 2, 5 texts")
    assert given.batches["a"][0]["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_lengths_of_settings_mean_nothing_and_a_batch_has_a_text():
    models = {"a": tiny_model("bert", num_hidden_layers=1)}
    texts = RealTexts(["good"], None, {"a": tokenizer_of()})
    rows = bench(models, [Setting(2, 8), Setting(2, 16), Setting(1, 8)], ["eager"], texts=texts, **QUICK)
    assert [row.batch for row in rows] == [2, 1]
    with pytest.raises(UserError, match="A batch needs at least one text; got 0"):
        bench(models, [Setting(0, 8)], ["eager"], texts=texts, **QUICK)


def test_every_batch_after_the_warm_up_is_clocked():
    model = tiny_model("bert", num_hidden_layers=1)
    given = RealTexts(TEXTS, None, {"a": tokenizer_of()}).given({"a": model}, 2)
    station = Here("eager", {"a": model})
    station.prepare(given.batches, given.timed)
    station.warm_up("a", 0.0, 0.0)
    spent = [station.sample("a", 2)[0] for _ in range(4)]
    times = station.batches_ms("a")
    station.close()
    assert len(times) == 4 * 2 * 3 and times.min() > 0 and times.sum() <= sum(spent) / 1e6


def test_pairs_that_are_read_apart_have_both_sides():
    model = tiny_model("bert", "pair_classification", num_hidden_layers=1)
    texts = RealTexts(["good", "bad w1 w2"], ["w1", "w2"], {"a": tokenizer_of()})
    [batch] = texts.given({"a": model}, 2).batches["a"]
    assert batch["input_ids"].shape == (4, 5)
    [row] = bench({"a": model}, [Setting(2, 1)], ["eager"], texts=texts, **QUICK)
    assert row.real and row.real.texts == 2


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = save_tiny(tmp_path / "model", num_hidden_layers=1)
    (tmp_path / "many.txt").write_text("\n".join(f"good w{n % 60}" for n in range(230)), encoding="utf-8")
    command = ("bench", model, "--texts", tmp_path / "many.txt", "--batch", 16, "--rounds", 3)
    said = run_cli(*command, "--json")
    assert said.exit_code == 0, said.output
    [row] = json.loads(said.stdout)["rows"]
    assert (row["batch"], row["length"], row["real"]["texts"]) == (16, 4, 200)
    (tmp_path / "few.csv").write_text("body,rest\ngood,1\n,3\nbad w1,2\n", encoding="utf-8")
    shown = run_cli("bench", model, "--texts", tmp_path / "few.csv", "--text-column", "body", "--rounds", 3).stdout
    assert "Batch 1, 2 texts of 4 tokens on average" in shown and "Texts/s" in shown and "p95, p99" in shown
    assert "each as long as it is" in shown
    few = run_cli("bench", model, "--texts", tmp_path / "few.csv", "--text-column", "body", "--batch", 3)
    assert_refused(few, ["fewer texts than go into a batch; got 2; allowed: at least 3"])


def test_from_python_and_where_a_runtime_takes_one_shape(tmp_path: Path):
    model = save_tiny(tmp_path / "model", num_hidden_layers=1)
    found = sparsebert.bench([model], texts=["good", "bad w1"], rounds=1, runtimes="compile", progress=False)
    assert found.rows[0].unavailable == "it runs inputs of one shape, and texts are of many"
    with pytest.raises(UserError, match="Texts need models with tokenizers; allowed: folders or hub names"):
        sparsebert.bench({"a": tiny_model("bert")}, texts=["good"], progress=False)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--texts", "t.txt", "--length", 16), ["Texts have lengths of their own", "leave out --length"]),
        (("--texts", "t.txt", "--task", "sst2"), ["Texts have lengths of their own"]),
        (("--texts", "t.txt", "--memory"), ["--memory measures inputs of one shape"]),
        (("--text-column", "body"), ["--text-column, --delimiter and --encoding need --texts"]),
        (("--texts", "t.txt", "--text-column", "body"), ["--text-column needs --texts with columns"]),
        (("--texts", "none.txt"), ["none.txt"]),
        (("--texts", "empty.txt"), ["There is no text"]),
        (("--texts", "bytes.txt"), ["bytes.txt is not UTF-8"]),
    ],
)
def test_what_does_not_go_together_is_refused(
    more: tuple[object, ...], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("good\n", encoding="utf-8")
    Path("empty.txt").touch()
    Path("bytes.txt").write_bytes(b"good\n\xfa")
    assert_refused(run_cli("bench", save_tiny(tmp_path / "model", num_hidden_layers=1), *more), words)
    assert {file.name for file in tmp_path.iterdir()} == {"bytes.txt", "empty.txt", "model", "t.txt"}

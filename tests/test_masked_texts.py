"""The kind of hidden tokens on the user's texts: what is hidden when, runs, masks that are filled, and a check."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

import sparsebert
from sparsebert.data.load import load_task
from sparsebert.data.masking import Masking
from sparsebert.deployment.plain import inference_of, masked_lm
from sparsebert.errors import UserError
from sparsebert.measurement.text_loss import loss_sums
from sparsebert.models.load import load_model
from sparsebert.recipe.schema import Columns, Distill
from sparsebert.records import Record, read_record
from sparsebert.runs.scoring import nats_score
from sparsebert.tasks.kind import IGNORED
from sparsebert.training.collate import EpochOrder, PaddingCollator
from sparsebert.training.live_distill import LiveDistiller
from sparsebert.training.masked_texts import MaskedTexts, PassOrder, hidden_once, shown
from sparsebert.training.text_rows import Hider
from tiny import tiny_model
from tiny_run import QUICK, WORDS, assert_refused, run_cli, save_tiny

HIDER = Hider(Masking(0.3), 7, 4, 90, frozenset(range(5)))
QUICKLY = tuple(part for one in ("measure.timed=false", "max_length=16") for part in ("--set", one))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model, and texts: one is longer than is read, and of one no word is known."""
    folder = tmp_path_factory.mktemp("masked")
    save_tiny(folder / "dense", "masked_lm")
    draw = np.random.default_rng(0)
    lines = [" ".join(draw.choice(WORDS, size=draw.integers(3, 9))) for _ in range(60)]
    lines += [" ".join(WORDS[:24]), "unknown words"]
    (folder / "texts.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def run(home: Path, *words: object, name: str) -> Record:
    given = ("--kind", "masked_lm", "--data", home / "texts.txt", "-o", home / name, *QUICKLY)
    said = run_cli(words[0], home / "dense", *words[1:], *given)
    assert said.exit_code == 0, said.output
    return read_record(home / name)


@pytest.fixture(scope="module")
def small(home: Path) -> Record:
    cut = ("--sparsity", 0.5, "--vocabulary", 50, "--set", "finetune.max_steps=4", *QUICK)
    return run(home, "compress", *cut, name="small")


def rows_of(*texts: list[int]) -> Dataset:
    return Dataset.from_dict({"input_ids": list(texts), "length": [len(one) for one in texts]})


def test_a_pass_of_training_hides_other_tokens_of_the_same_texts() -> None:
    texts = [[2, *range(10 + number, 18 + number), 3] for number in range(6)]
    rows = hidden_once(rows_of(*texts), HIDER)
    assert [shown(row).tolist() for row in rows] == texts
    drawn = MaskedTexts(rows, HIDER)
    # In the first pass as where they are scored, in the next ones otherwise.
    assert [drawn[row]["input_ids"] for row in range(6)] == rows["input_ids"][:]
    assert all(drawn[row + 6]["label"] != drawn[row]["label"] for row in range(6))
    for position in range(18):
        labels = np.array(drawn[position]["label"])
        assert shown(drawn[position]).tolist() == texts[position % 6] and (labels != IGNORED).sum() == 2


def test_positions_go_on_from_pass_to_pass() -> None:
    order = PassOrder(EpochOrder([3, 9, 5, 4], 2, seed=0))
    first = list(order)
    order.set_epoch(2)
    assert sorted(first) == [0, 1, 2, 3] and sorted(order) == [8, 9, 10, 11] and len(order) == 4


def test_labels_of_tokens_are_filled_up() -> None:
    batch = PaddingCollator(0, 0, every_token=True)(
        [{"input_ids": [2, 4, 3], "label": [-100, 9, -100]}, {"input_ids": [2, 3], "label": [-100, -100]}]
    )
    assert batch["labels"].tolist() == [[-100, 9, -100], [-100, -100, -100]]


def test_nats_a_token_and_their_exponential_by_hand() -> None:
    sums = np.array([[2.0, 2], [4, 1], [0, 0]] * 4)
    loss = nats_score("loss", "texts", sums, sums + np.array([[0.0, 0], [3, 0], [0, 0]] * 4), baseline=3.0)
    assert loss.value == 2.0 and loss.examples == 12 and loss.baseline == 3.0
    assert loss.change_low is not None and -3 <= loss.change_low < 0
    assert nats_score("p", "texts", sums, perplexity=True).value == pytest.approx(math.exp(2))


def test_layers_are_learned_from_a_teacher_that_runs_along() -> None:
    teacher = tiny_model("bert", "masked_lm")
    batch = {"input_ids": torch.tensor([[2, 7, 9, 3]]), "attention_mask": torch.tensor([[1, 1, 1, 0]])}
    batch["labels"] = torch.tensor([[-100, 8, -100, -100]])
    with torch.no_grad():
        every = teacher(**batch, output_hidden_states=True)
    weights = Distill(labels=0.0, logits=0.0, hidden=2.0)
    output: Any = SimpleNamespace(loss=torch.tensor(1.0), logits=every.logits)

    def loss(distiller: LiveDistiller, *states: torch.Tensor) -> float:
        return float(distiller.loss(output, states, batch))

    layers = every.hidden_states[1:]
    assert loss(LiveDistiller(teacher, weights, (0, 2)), layers[0], layers[2]) == pytest.approx(0, abs=1e-3)
    # What is no more than 0 has the error of the whole output; the padding does not count.
    zero = torch.zeros_like(layers[1])
    zero[:, 3] = 99.0
    assert loss(LiveDistiller(teacher, weights, (1,)), zero) == pytest.approx(2.0, rel=0.01)
    assert LiveDistiller(teacher, weights).wants_hidden is False


def test_a_model_goes_on_with_the_users_texts(home: Path) -> None:
    record = run(home, "finetune", "--set", "training.epochs=3", "--set", "training.learning_rate=3e-3", name="tuned")
    [model] = record.models
    before, after = ({one.metric: one.value for one in each} for each in (model.one_shot_scores, model.scores))
    assert after["loss"] < before["loss"] and record.main_metric == "masked_accuracy"
    assert "1 texts of which the tokenizer knows no word are left out" in " ".join(record.notes)
    assert any(note.startswith(f"finetuned: loss {after['loss']:.3f} ({before['loss']:.3f} b") for note in record.notes)
    assert model.training is not None and model.training.evaluations
    loaded = AutoModelForMaskedLM.from_pretrained(home / "tuned" / "finetuned")
    assert type(loaded).__name__ == "BertForMaskedLM"
    assert AutoTokenizer.from_pretrained(home / "tuned" / "finetuned").mask_token == "[MASK]"


def test_what_is_scored_is_hidden_alike_whatever_the_seed_of_the_training(home: Path) -> None:
    settings = ("--set", "training.max_steps=3", "--set", "training.evaluate=null")
    one, other = (run(home, "finetune", *settings, "--seed", seed, name=f"seed-{seed}") for seed in (1, 2))
    (first,), (second,) = one.models, other.models
    assert first.one_shot_scores == second.one_shot_scores and first.scores != second.scores


def test_a_family_is_cut_from_hidden_tokens(home: Path, small: Record) -> None:
    assert [model.name for model in small.models] == ["dense", "vocabulary", "0.5-sparsity"]
    dense, _, cut = small.models
    scores = {one.metric: one for one in cut.scores}
    assert list(scores) == ["masked_accuracy", "loss", "pseudo_perplexity"]
    assert all(scores[name].change_low is not None for name in ("loss", "pseudo_perplexity"))
    assert cut.sparsity.encoder_linear > 0.4 and cut.vocabulary is not None and cut.decisions is None
    loaded: Any = sparsebert.load_model(home / "small" / "0.5-sparsity")
    assert type(loaded).__name__ == "SparseBertForMaskedLM" and loaded.config.vocab_size == cut.vocabulary.entries
    tied = loaded.get_output_embeddings().weight, loaded.get_input_embeddings().weight
    assert tied[0] is tied[1]
    # What the record calls pseudo-perplexity is that of the texts, each token hidden alone.
    told = load_task("custom", str(home / "texts.txt"), Columns(kind="masked_lm"))
    texts = list(told.validation["text_a"])
    found = loss_sums(inference_of(masked_lm(str(home / "dense")), 16, "eager", 8), texts, lambda count: None)
    whole = math.exp(found[:, 0].sum() / found[:, 2].sum())
    assert {one.metric: one.value for one in dense.scores}["pseudo_perplexity"] == pytest.approx(whole, rel=1e-4)
    files = load_file(home / "small" / "dense" / "model.safetensors")
    assert all(
        torch.equal(files[name], value)
        for name, value in load_model(home / "dense").state_dict().items()
        if name in files
    )


def test_masks_are_filled_as_the_pipeline_does(home: Path) -> None:
    texts = ["good [MASK] w1 w2", "w3 [MASK] w4 [MASK]"]
    said = run_cli("predict", home / "dense", *texts, "--json")
    assert said.exit_code == 0, said.output
    rows = json.loads(said.stdout)["predictions"]
    fill: Any = pipeline("fill-mask", model=str(home / "dense"))
    expected = [fill(texts[0]), *fill(texts[1])]
    found = [mask for row in rows for mask in row["masks"]]
    for own, theirs in zip(found, expected, strict=True):
        assert [one["token"] for one in own] == [one["token_str"] for one in theirs]
        assert [one["probability"] for one in own] == pytest.approx([one["score"] for one in theirs], rel=1e-4)
    words = [mask[0]["token"] for mask in found]
    assert [row["filled"] for row in rows] == [f"good {words[0]} w1 w2", f"w3 {words[1]} w4 {words[2]}"]
    assert "Likeliest" in run_cli("predict", home / "dense", texts[0]).stdout
    assert_refused(run_cli("predict", home / "dense", "good w1"), ["Text 1 has no [MASK] to be filled", "--loss"])
    cut = run_cli("predict", home / "dense", "w1 w2 w3 w4 [MASK]", "--max-length", 5)
    assert_refused(cut, ["no [MASK] among the tokens that are read", "--max-length"])


def test_two_models_are_checked_token_by_token(home: Path, small: Record) -> None:
    other = home / "small" / "0.5-sparsity"
    said = run_cli("check", home / "dense", other, "--data", home / "texts.txt", "--json", "--max-drop", 100)
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    sums = loss_sums(
        inference_of(masked_lm(str(other)), None, "eager", 8),
        (home / "texts.txt").read_text().splitlines(),
        lambda count: None,
    )
    values = {one["metric"]: one["value"] for one in found["second"]}
    assert values["loss"] == pytest.approx(sums[:, 0].sum() / sums[:, 2].sum(), rel=1e-4)
    assert values["pseudo_perplexity"] == pytest.approx(math.exp(values["loss"]), rel=1e-6)
    assert values["masked_accuracy"] == pytest.approx(sums[:, 1].sum() / sums[:, 2].sum())
    assert all("change_low" in one for one in found["second"][1:]) and "tokenizers differ" in found["notes"][1]
    shown_table = run_cli("check", home / "dense", home / "dense", "--data", home / "texts.txt")
    assert "pseudo_perplexity" in shown_table.stdout and "+0.00 (+0.00 to +0.00)" in shown_table.stdout


def test_what_cannot_be_is_refused(home: Path, tmp_path: Path) -> None:
    save_tiny(tmp_path / "base", "base")
    given = ("--kind", "masked_lm", "--data", home / "texts.txt", "-o", tmp_path / "run")
    assert_refused(run_cli("finetune", tmp_path / "base", *given), ["no head that names hidden tokens", "BertModel"])
    (tmp_path / "other.txt").write_text("unknown words\nmore of them\nand more\n", encoding="utf-8")
    said = run_cli("finetune", home / "dense", *given[:3], tmp_path / "other.txt", "-o", tmp_path / "run")
    assert_refused(said, ["knows none of the words", "texts of train"])
    (tmp_path / "pairs.csv").write_text("a,b\ngood,bad\n", encoding="utf-8")
    pairs = ("--data", tmp_path / "pairs.csv", "--text-column", "a", "--text-column", "b")
    assert_refused(run_cli("check", home / "dense", home / "dense", *pairs), ["read single texts", "a, b"])
    pairs = ("--file", *pairs[1:])
    assert_refused(run_cli("predict", home / "dense", *pairs), ["reads single texts", "got pairs"])
    with pytest.raises(UserError, match="BertForMaskedLM; `sparsebert predict` alone fills its masks"):
        sparsebert.Predictor(home / "dense")
    assert not (tmp_path / "run").exists()

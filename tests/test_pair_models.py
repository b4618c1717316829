"""Pairs whose sides are read apart: the heads by hand, every family cut, saved and loaded, and the commands."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import AutoModel, PreTrainedModel

from course import write_course
from sparsebert.counts import example_inputs
from sparsebert.data.encode import encode
from sparsebert.data.load import load_task
from sparsebert.data.tokens import Reader
from sparsebert.errors import UserError
from sparsebert.models.heads import saved_head, saved_kind
from sparsebert.models.labels import take_labels
from sparsebert.models.layout import layout_of
from sparsebert.models.load import load_config, load_model, load_tokenizer, save_model
from sparsebert.models.storage import Packing
from sparsebert.models.surgeon import mask_model, shrink
from sparsebert.recipe.schema import Columns
from sparsebert.records import read_record
from sparsebert.tasks.pair import PAIR_SIMILARITY
from sparsebert.training.collate import padding_collator
from sparsebert.training.teacher import cache_teacher
from tiny import FAMILIES, tiny_batch, tiny_model
from tiny_run import assert_refused, run_cli, save_tiny

HEADS = {"pair_classification": 2, "pair_similarity": 1}
SHORT = ("--set", "training.max_steps=4", "--set", "training.evaluate=null")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, the course's files, and a file of pairs."""
    folder = tmp_path_factory.mktemp("pairs")
    save_tiny(folder / "base", "base")
    write_course(folder / "course")
    (folder / "pairs.csv").write_text("x,y\ngood w1,bad\nw3 w4 w5,w6 w7\nw9,\n", encoding="utf-8")
    return folder


def sides(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """BERT's pooler output of the first and of the second sides, each text read on its own."""
    pooled = []
    for row in range(len(batch["input_ids"])):
        length = int(batch["attention_mask"][row].sum())
        pooled.append(model.base_model(batch["input_ids"][row : row + 1, :length]).pooler_output)
    return torch.cat(pooled[0::2]), torch.cat(pooled[1::2])


@torch.no_grad()
def test_a_class_of_a_pair_is_a_linear_layer_on_both_embeddings():
    model, batch = tiny_model("bert", "pair_classification", num_labels=2), tiny_batch(rows=4)
    one, other = sides(model, batch)
    z = torch.cat([one, other], dim=1) @ model.classifier.linear.weight[0] + model.classifier.linear.bias
    labels = torch.tensor([1, 0])
    given = model(**batch, labels=labels)
    assert torch.allclose(given.logits, torch.stack([torch.zeros(2), z], dim=1), atol=1e-5)
    assert float(given.loss) == pytest.approx(float(F.binary_cross_entropy_with_logits(z, labels.float())), rel=1e-5)


@torch.no_grad()
def test_a_similarity_is_a_cosine_of_two_projections_from_0_to_5():
    model, batch = tiny_model("bert", "pair_similarity", num_labels=1), tiny_batch(rows=4)
    one, other = sides(model, batch)
    first, second = (
        side @ part.weight.T + part.bias
        for side, part in ((one, model.classifier.first), (other, model.classifier.second))
    )
    cosine = (first * second).sum(dim=1) / (first.norm(dim=1) * second.norm(dim=1))
    labels = torch.tensor([5.0, 0.0])
    given = model(**batch, labels=labels)
    assert torch.allclose(given.logits[:, 0], 2.5 * (cosine + 1), atol=1e-5)
    assert float(given.loss) == pytest.approx(float((given.logits[:, 0] - labels).abs().mean()))
    model.classifier.second.load_state_dict(model.classifier.first.state_dict())
    same = {name: value[[0, 0, 1, 1]] for name, value in batch.items()}
    assert torch.allclose(model(**same).logits, torch.tensor(5.0), atol=1e-5)


@torch.no_grad()
def test_classes_in_another_order_keep_their_probabilities():
    names = {0: "no", 1: "maybe", 2: "yes"}
    model, batch = tiny_model("bert", "pair_classification", num_labels=3, id2label=names), tiny_batch(rows=4)
    before = model(**batch).logits.softmax(dim=-1)
    take_labels(model, ("yes", "no", "maybe"))
    assert torch.allclose(model(**batch).logits.softmax(dim=-1), before[:, [2, 0, 1]], atol=1e-6)
    assert model.config.id2label == {0: "yes", 1: "no", 2: "maybe"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_every_family_is_masked_cut_saved_packed_and_loaded(family: str, head: str, tmp_path: Path):
    problem = "regression" if head == "pair_similarity" else "single_label_classification"
    model = tiny_model(family, head, num_labels=HEADS[head], problem_type=problem)
    batch = tiny_batch(rows=4)
    mask_model(model, {group.name: torch.arange(group.units) % 2 == 0 for group in layout_of(model).groups})
    small = shrink(model, {group.name: torch.arange(group.units) % 2 == 0 for group in layout_of(model).groups})
    assert torch.allclose(model(**batch).logits, small(**batch).logits, atol=1e-5)
    assert model(**batch).logits.shape == (2, max(2, HEADS[head]) if head == "pair_classification" else 1)
    for saved, packing in ((model, None), (small, None), (small, Packing())):
        save_model(saved, None, tmp_path, packing)
        again, expected = load_model(tmp_path), saved.state_dict()
        assert type(again).__name__ == type(saved).__name__ and again.state_dict().keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())
        assert saved_head(load_config(tmp_path)) == saved_kind(load_config(tmp_path)) == head
    # Its encoder is an ordinary one.
    assert AutoModel.from_pretrained(tmp_path).config.model_type == small.config.model_type


def test_a_batch_holds_the_sides_of_a_pair_one_below_the_other(home: Path):
    tokenizer = load_tokenizer(home / "base")
    rows = Dataset.from_dict({"text_a": ["good", "w1 w2"], "text_b": ["w3 w4 w5", "bad"], "label": [1, 0]})
    encoded = encode(rows, tokenizer, 64, kind=PAIR_SIMILARITY).dataset
    assert encoded["length"][:] == [5, 4] and encoded["second"][:] == [3, 4]
    batch = padding_collator(tokenizer)([encoded[0], encoded[1]])
    alone = [tokenizer(text)["input_ids"] for text in ("good", "w3 w4 w5", "w1 w2", "bad")]
    assert batch["input_ids"].tolist() == [ids + [0] * (5 - len(ids)) for ids in alone]
    assert batch["attention_mask"].sum(dim=1).tolist() == [3, 5, 4, 3] and batch["labels"].tolist() == [1, 0]
    cut = encode(rows, tokenizer, 4, kind=PAIR_SIMILARITY)
    assert cut.truncated == 1 and cut.dataset["length"][:] == [4, 4]
    with pytest.raises(UserError, match="reads pairs of texts; got single texts"):
        Reader(tokenizer, 8, apart=True).read(["good"])


def test_what_a_teacher_says_of_layers_is_found_again_by_pair(home: Path, tmp_path: Path):
    tokenizer, model = load_tokenizer(home / "base"), tiny_model("bert", "pair_similarity", num_labels=1)
    rows = load_task("sts", str(home / "course")).train.select(range(5))
    encoded = encode(rows, tokenizer, 64, kind=PAIR_SIMILARITY).dataset.add_column("row", list(range(5)))
    collate = padding_collator(tokenizer)
    cache = cache_teacher(model, encoded, collate, tmp_path / "cache", hidden=True)
    batch = cache.add_to(collate([encoded[3], encoded[1]]), [2])
    with torch.no_grad():
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        expected = model.base_model(**inputs, output_hidden_states=True).hidden_states[3]
    real = batch["attention_mask"].bool()
    assert batch["teacher_hidden"].shape[1] == 4
    assert torch.allclose(batch["teacher_hidden"][0][real], expected[real], atol=2e-2)
    assert np.allclose(batch["teacher_logits"], model(**inputs).logits.detach(), atol=1e-5)


def test_random_input_has_both_sides_of_each_pair():
    pairs, texts = tiny_model("bert", "pair_similarity"), tiny_model("bert")
    assert example_inputs([pairs], 3, 8)["input_ids"].shape == (6, 8)
    with pytest.raises(UserError, match="read pairs apart and others take no input in common"):
        example_inputs([pairs, texts], 3, 8)


def finetuned(home: Path, task: str, *options: object) -> Path:
    """The folder of a run."""
    given = ("finetune", home / "base", "--task", task, "--data", home / "course", "-o", home / task)
    said = run_cli(*given, *SHORT, *options)
    assert said.exit_code == 0, said.output
    return home / task


def test_a_paraphrase_network_is_trained_scored_and_asked(home: Path):
    out = finetuned(home, "quora", "--set", "score_train=true", "--set", "measure.timed=false")
    [result] = read_record(out).models
    assert result.architecture == "BertForPairClassification"
    assert {one.split for one in result.scores} == {"validation", "train"}
    card = (out / "finetuned" / "README.md").read_text(encoding="utf-8")
    assert "from sparsebert import load_model" in card and "AutoModelForSequenceClassification" not in card
    ask = ("predict", out / "finetuned", "--file", home / "pairs.csv", "--text-column", "x", "--text-column", "y")
    rows = {}
    for runtime in ("eager", "onnx"):
        said = run_cli(*ask, "--json", "--runtime", runtime)
        assert said.exit_code == 0, said.output
        rows[runtime] = [one["probabilities"]["duplicate"] for one in json.loads(said.stdout)["predictions"]]
    assert rows["onnx"] == pytest.approx(rows["eager"], abs=1e-4)
    assert_refused(run_cli("predict", out / "finetuned", "good"), ["reads pairs of texts", "--text-column twice"])


def test_a_similarity_network_is_compressed(home: Path):
    out = finetuned(home, "sts", "--set", "measure.timed=false")
    few = [f"search.{key}" for key in ("examples=32", "score_examples=16", "candidates=2")]
    options = [part for one in (*few, "measure.timed=false", "finetune.max_steps=2") for part in ("--set", one)]
    given = ("--task", "sts", "--data", home / "course", "--sparsity", 0.5, "-o", home / "small")
    said = run_cli("compress", out / "finetuned", *given, *options)
    assert said.exit_code == 0, said.output
    assert type(load_model(home / "small" / "0.5-sparsity")).__name__ == "SparseBertForPairSimilarity"


def test_a_pair_needs_two_columns(home: Path, tmp_path: Path):
    with (tmp_path / "train.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), ("a", "1"), ("b", "2")])
    with pytest.raises(UserError, match="Texts of kind pair_similarity are pairs; got text column text"):
        load_task("mine", str(tmp_path / "train.csv"), Columns(kind="pair_similarity"))

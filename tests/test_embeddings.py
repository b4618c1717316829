"""Vectors of texts: the maths beside sentence-transformers, every family cut, saved and loaded, and the commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from sparsebert import Predictor
from sparsebert.data.load import load_task
from sparsebert.errors import UserError
from sparsebert.models.heads import has_task_head, kind_of, saved_kind
from sparsebert.models.layout import layout_of
from sparsebert.models.load import load_config, load_model, load_tokenizer, save_model
from sparsebert.models.sentence import KEY, POOLINGS, SentenceVector
from sparsebert.models.sentence_folder import length_note, write_sentence_files
from sparsebert.models.storage import Packing
from sparsebert.models.surgeon import mask_model, shrink
from sparsebert.records import read_record
from sparsebert.tasks.bootstrap import resampled_scores
from sparsebert.tasks.embeddings import EMBEDDINGS
from sparsebert.tasks.kind import TextColumn
from sparsebert.tasks.metrics import constant_scores, score
from tiny import FAMILIES, tiny_batch, tiny_model
from tiny_run import QUICK, WORDS, assert_refused, run_cli, save_tiny

MEAN = SentenceVector(("mean",), normalize=True)
FEW = tuple(part for one in ("measure.timed=false", "finetune.max_steps=4") for part in ("--set", one))


def save_embedder(folder: Path, how: SentenceVector = MEAN) -> Path:
    """A tiny BERT with the files that make it a model of sentence-transformers."""
    save_tiny(folder, "base", max_position_embeddings=32)
    config, tokenizer = load_config(folder), load_tokenizer(folder)
    vars(config)[KEY] = how.plain()
    tokenizer.model_max_length = 16
    write_sentence_files(config, tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and texts, one a line."""
    folder = tmp_path_factory.mktemp("embeddings")
    save_embedder(folder / "dense")
    draw = np.random.default_rng(0)
    lines = [" ".join(draw.choice(WORDS, size=draw.integers(3, 9))) for _ in range(160)]
    (folder / "texts.txt").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    """A family of one smaller model."""
    given = ("--task", "embeddings", "--data", home / "texts.txt", "--sparsity", 0.5, "-o", home / "run")
    said = run_cli("compress", home / "dense", *given, *QUICK, *FEW)
    assert said.exit_code == 0, said.output
    return home / "run"


@pytest.mark.parametrize("modes", [*((mode,) for mode in POOLINGS), ("max", "cls"), ("mean", "lasttoken")])
@pytest.mark.parametrize("normalize", [True, False])
def test_vectors_are_pooled_as_sentence_transformers_does(modes: tuple[str, ...], normalize: bool):
    hidden = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]])
    reference: Any = Pooling(8, modes if len(modes) > 1 else modes[0])
    expected = reference({"token_embeddings": hidden, "attention_mask": mask})["sentence_embedding"]
    expected = torch.nn.functional.normalize(expected, dim=-1) if normalize else expected
    assert torch.allclose(SentenceVector(modes, normalize).of(hidden, mask), expected, atol=1e-6)


def test_the_kind_by_hand():
    taught, own = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 0.0], [1.0, 1.0]])
    cosine = (1 + np.sqrt(0.5)) / 2
    assert score(["cosine"], own, taught)["cosine"] == pytest.approx(cosine)
    assert EMBEDDINGS.divergence(taught, own) == EMBEDDINGS.mean_loss(own, taught) == pytest.approx(1 - cosine)
    both = torch.tensor(own), torch.tensor(taught)
    assert float(EMBEDDINGS.loss(*both)) == pytest.approx(1 - cosine)
    # Besides, the two texts lie at a cosine of 0.71 in place of 0.
    assert float(EMBEDDINGS.distillation(*both, 2.0)) == pytest.approx(1 - cosine + np.sqrt(0.5))
    assert float(EMBEDDINGS.distillation(both[1], both[1], 2.0)) == pytest.approx(0, abs=1e-9)
    constant = EMBEDDINGS.constant(taught, ())
    assert constant.outputs == pytest.approx([0.5, 0.5])
    assert constant_scores(EMBEDDINGS.metrics, constant.everywhere(taught), taught) == pytest.approx(
        {"cosine": np.sqrt(0.5), "neighbours": 0.0}
    )
    assert EMBEDDINGS.answer((), np.array([0.5, 1.0])) == {"embedding": [0.5, 1.0]}


def test_neighbours_by_hand():
    # On a circle the ten nearest of 24 are five on each side; turned as a whole they stay the same.
    angles = 2 * np.pi * np.arange(24) / 24
    taught = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert score(["neighbours"], 5 * taught[:, ::-1], taught) == {"neighbours": 1.0}
    # With every other text at the opposite side, those at an even distance are left: four of ten.
    flipped = taught * np.where(np.arange(24) % 2, -1, 1)[:, None]
    assert score(["neighbours"], flipped, taught)["neighbours"] == pytest.approx(0.4)
    assert score(["neighbours"], taught[:11], taught[:11]) == {}
    for metric in EMBEDDINGS.metrics:
        found = resampled_scores(metric, flipped, taught, 40, 3)
        assert found.shape == (40,) and abs(found.mean() - score([metric], flipped, taught)[metric]) < 0.1
    assert np.isnan(resampled_scores("neighbours", taught[:11], taught[:11], 5, 0)).all()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_family_is_masked_cut_saved_packed_and_loaded(family: str, tmp_path: Path):
    model, batch = tiny_model(family, "embeddings", **{KEY: MEAN.plain()}), tiny_batch()
    keep = {group.name: torch.arange(group.units) % 2 == 0 for group in layout_of(model).groups}
    mask_model(model, keep)
    small = shrink(model, keep)
    vectors = model(**batch).logits
    assert vectors.shape == (3, model.config.hidden_size) and torch.allclose(vectors.norm(dim=1), torch.ones(3))
    assert torch.allclose(vectors, small(**batch).logits, atol=1e-5)
    for saved, packing in ((model, None), (small, None), (small, Packing())):
        save_model(saved, None, tmp_path, packing)
        again, expected = load_model(tmp_path), saved.state_dict()
        assert type(again).__name__ == type(saved).__name__ and again.state_dict().keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())
        config = load_config(tmp_path)
        assert saved_kind(config) == "embeddings" and kind_of(again) is EMBEDDINGS
        assert has_task_head(config, EMBEDDINGS, 0) and not str(config.architectures).endswith("ForEmbeddings']")


def test_sentence_transformers_loads_what_was_saved_and_gives_the_same(home: Path, run: Path, tmp_path: Path):
    texts = ["good w1 w2", "w5 w6 w7 " * 9, "bad"]
    mixed = save_embedder(tmp_path / "two", SentenceVector(("mean", "cls"), False, {"query": "w3 "}, "dot"))
    for folder in (home / "dense", run / "0.5-sparsity", mixed):
        theirs = SentenceTransformer(str(folder))
        own = Predictor(folder)
        assert np.allclose(theirs.encode(texts), own.outputs(texts), atol=1e-6)
        assert own.max_length == theirs.max_seq_length == 16
    assert theirs.prompts["query"] == "w3 " and theirs.similarity_fn_name == "dot"
    assert load_config(mixed).to_dict()[KEY]["pooling"] == ["mean", "cls"]
    again = save_model(load_model(mixed), load_tokenizer(mixed), tmp_path / "again")
    assert again is None and load_config(tmp_path / "again").to_dict()[KEY] == load_config(mixed).to_dict()[KEY]


def test_a_model_of_embeddings_starts_any_other_task_without_a_trace(home: Path):
    model = load_model(home / "dense", num_labels=2)
    assert type(model).__name__ == "BertForSequenceClassification" and KEY not in model.config.to_dict()


def test_texts_alone_make_a_smaller_model_that_is_scored_by_its_likeness(home: Path, run: Path):
    dense, small = read_record(run).models
    assert {one.metric: one.value for one in dense.scores} == pytest.approx({"cosine": 1.0, "neighbours": 1.0})
    cosine, shared = small.scores
    assert cosine.metric == "cosine" and 0.2 < cosine.value < 1 and cosine.examples == 16
    assert cosine.change_low is not None and cosine.baseline is not None
    assert shared.metric == "neighbours" and 0 < shared.value < 1 and shared.baseline == 0
    assert small.architecture == "SparseBertForEmbeddings"
    note = f"0.5-sparsity: neighbours kept {100 * shared.value:.1f}% on 16 rows of held_out"
    assert any(one.startswith(note) for one in read_record(run).notes)
    card = (run / "0.5-sparsity" / "README.md").read_text(encoding="utf-8")
    assert "SentenceTransformer(" in card and "pipeline_tag: sentence-similarity" in card
    # It reads as much of a text as before, whatever it was trained at.
    assert load_tokenizer(run / "0.5-sparsity").model_max_length == 16


def test_answers_are_vectors_on_the_screen_and_in_files(home: Path, tmp_path: Path):
    said = run_cli("predict", home / "dense", "good w1")
    assert said.exit_code == 0 and "(32 numbers)" in said.stdout
    expected = Predictor(home / "dense").outputs(["good w1"])[0]
    shown = json.loads(run_cli("predict", home / "dense", "good w1", "--json").stdout)["predictions"][0]
    assert shown["embedding"] == pytest.approx(expected.tolist(), abs=1e-6)
    written = run_cli("predict", home / "dense", "good w1", "-o", tmp_path / "a.csv")
    assert written.exit_code == 0
    header, row = (tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()
    assert header == "id,text,embedding" and json.loads(row.split(",", 2)[2].strip('"')) == pytest.approx(
        expected.tolist(), abs=1e-6
    )
    assert Predictor(home / "dense")("good w1") == [{"embedding": pytest.approx(expected.tolist(), abs=1e-6)}]


def test_an_exported_program_gives_the_same_vectors(home: Path, tmp_path: Path):
    said = run_cli("export", home / "dense", "--to", "onnx", "-o", tmp_path / "out")
    assert said.exit_code == 0, said.output
    texts = ["good w1 w2", "bad"]
    assert np.allclose(Predictor(tmp_path / "out").outputs(texts), Predictor(home / "dense").outputs(texts), atol=1e-5)


def test_a_smaller_vocabulary_is_to_give_the_vectors_of_the_whole_one(home: Path, tmp_path: Path):
    given = ("--task", "embeddings", "--data", home / "texts.txt", "--sparsity", 0.2, "-o", tmp_path / "run")
    few = (*QUICK, *FEW, "--set", "finetune=null", "--vocabulary", "40")
    said = run_cli("compress", home / "dense", *given, *few)
    assert said.exit_code == 0, said.output
    whole, cut = read_record(tmp_path / "run").models[:2]
    assert whole.scores[0].value == pytest.approx(1) and cut.scores[0].value < 0.999


def test_a_recovery_is_scored_by_the_teacher_that_is_named(home: Path, run: Path, tmp_path: Path):
    given = ("--task", "embeddings", "--data", home / "texts.txt", "--teacher", home / "dense", "-o", tmp_path / "run")
    more = ("--set", "training.max_steps=1", "--set", "training.learning_rate=1e-9", "--set", "training.evaluate=null")
    small = run / "0.5-sparsity"
    said = run_cli("finetune", small, *given, *more, *FEW[:2])
    assert said.exit_code == 0, said.output
    [tuned] = read_record(tmp_path / "run").models
    # By its own vectors it would have all points.
    assert tuned.scores[0].value == pytest.approx(read_record(run).models[1].scores[0].value, abs=1e-5)


def test_texts_are_read_from_lines_and_columns(home: Path, tmp_path: Path):
    packaged = load_task("embeddings", None)
    assert "label" not in packaged.train.column_names and len(packaged.validation) > 100
    (tmp_path / "a.csv").write_text("sentence,label\none two,x\nthree four,y\nfive,z\n", encoding="utf-8")
    said = run_cli("predict", home / "dense", "--file", tmp_path / "a.csv", "--text-column", "sentence", "--json")
    assert len(json.loads(said.stdout)["predictions"]) == 3
    lines = load_task("embeddings", str(home / "texts.txt"))
    assert len(lines.train) + len(lines.validation) == 160 and lines.train.column_names == ["text_a"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"modules.json": None}, "Nothing says how the vectors of tokens become the vector of a text"),
        ({"modules.json": "[1]"}, "does not name modules by type and path"),
        (
            {"modules.json": '[{"type": "a.Transformer", "path": ""}, {"type": "a.Dense", "path": "1"}]'},
            "not supported; got Transformer, Dense; allowed: Transformer, Pooling, and Normalize",
        ),
        ({"1_Pooling/config.json": '{"pooling_mode": "median"}'}, "Pooling of an unknown mode; got 'median'"),
        ({"1_Pooling/config.json": "{}"}, "Pooling of an unknown mode"),
        ({"1_Pooling/config.json": None}, "is missing; download the whole folder again"),
        (
            {"1_Pooling/config.json": '{"pooling_mode": "mean", "include_prompt": false}'},
            "leaves prompts out of its vectors",
        ),
        ({"sentence_bert_config.json": '{"do_lower_case": true}'}, "Texts are made lower case before the tokenizer"),
        (
            {"config_sentence_transformers.json": '{"default_prompt_name": "query"}'},
            "puts a prompt before every text by default; got query",
        ),
    ],
)
def test_a_folder_that_makes_vectors_otherwise_is_refused(change: dict[str, str | None], expected: str, tmp_path: Path):
    save_embedder(tmp_path)
    for name, text in change.items():
        (tmp_path / name).unlink()
        if text is not None:
            (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_model(tmp_path, kind="embeddings")
    assert expected in str(caught.value)
    # Its encoder is as good as ever.
    assert type(load_model(tmp_path, num_labels=2)).__name__ == "BertForSequenceClassification"
    assert saved_kind(load_config(tmp_path)) is None


def test_labels_are_refused_in_words():
    with pytest.raises(UserError, match=r"Texts of kind embeddings have no labels; got a\.csv, column 'x'"):
        EMBEDDINGS.labels(["a"], (), "a.csv, column 'x'")
    with pytest.raises(UserError, match="Texts of kind embeddings have no labels"):
        EMBEDDINGS.from_text(TextColumn(["a"], "a.csv", "x", ","))


def test_columns_that_are_missing_and_empty_texts_are_named(home: Path, tmp_path: Path):
    (tmp_path / "a.csv").write_text("sentence\none\n", encoding="utf-8")
    given = ("compress", home / "dense", "--task", "embeddings", "--sparsity", 0.5, "-o", tmp_path / "run")
    assert_refused(run_cli(*given, "--data", tmp_path / "a.csv"), ["no column 'text'", "allowed: sentence"])
    (tmp_path / "c.csv").write_text("text,other\none,x\ntwo,y\n", encoding="utf-8")
    assert_refused(run_cli(*given, "--data", tmp_path / "c.csv", "--label-column", "other"), ["no labels; got other"])
    both = ("--text-column", "text", "--text-column", "other")
    assert_refused(run_cli(*given, "--data", tmp_path / "c.csv", *both), ["stand alone; got text columns text, other"])
    pairs = ("predict", home / "dense", "--file", tmp_path / "c.csv", *both)
    assert_refused(run_cli(*pairs), ["kind embeddings reads single texts"])
    (tmp_path / "b.txt").write_text("\n\n", encoding="utf-8")
    assert_refused(run_cli(*given, "--data", tmp_path / "b.txt"), ["has no rows"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "held",
    ["mean", {"pooling": ["middle"], "normalize": True}, {"pooling": [], "normalize": True}, {"pooling": ["cls"]}],
)
def test_a_configuration_that_names_no_known_pooling_is_refused(held: Any, tmp_path: Path):
    save_tiny(tmp_path, "base")
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {KEY: held}), encoding="utf-8")
    with pytest.raises(UserError, match="does not say how vectors of texts are made, under sentence_embedding"):
        load_config(tmp_path)


def test_a_length_that_the_tokenizer_does_not_read_is_said(home: Path, tmp_path: Path):
    shutil.copytree(home / "dense", tmp_path / "dense")
    file = tmp_path / "dense" / "sentence_bert_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_seq_length": 24}), encoding="utf-8")
    tokenizer = tmp_path / "dense" / "tokenizer_config.json"
    tokenizer.write_text(json.dumps(json.loads(tokenizer.read_text()) | {"model_max_length": 16}), encoding="utf-8")
    said = length_note(tmp_path / "dense", load_tokenizer(tmp_path / "dense"))
    assert said.startswith("The folder says that 24 tokens of a text are read, and its tokenizer 16")
    assert length_note(home / "dense", load_tokenizer(home / "dense")) == ""

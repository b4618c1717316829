"""Encoders that become models of embeddings by a named pooling, and pairs that belong together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from sparsebert.models.load import load_config, load_model
from sparsebert.models.sentence import KEY
from sparsebert.recipe.load import load_recipe
from sparsebert.records import Record, read_record
from sparsebert.tasks.bootstrap import resampled_scores
from sparsebert.tasks.embedding_pairs import EMBEDDING_PAIRS
from sparsebert.tasks.embeddings import EMBEDDINGS
from sparsebert.tasks.metrics import constant_scores, score
from tiny import HIDDEN, VOCAB, tiny_model
from tiny_run import QUICK, WORDS, assert_refused, run_cli, save_tiny

FEW = tuple(part for one in ("measure.timed=false", "max_length=16") for part in ("--set", one))


def write_pairs(file: Path, count: int) -> Path:
    """Both texts of a pair share their first word, which no other pair has."""
    draw = np.random.default_rng(0)
    names = list(WORDS[:count])
    rows = [f"{name} {' '.join(draw.choice(WORDS, 3))},{' '.join(draw.choice(WORDS, 2))} {name}" for name in names]
    file.write_text("anchor,positive\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of which nothing says how it makes vectors, the same with a head for hidden tokens, and data."""
    folder = tmp_path_factory.mktemp("pairs")
    save_tiny(folder / "plain", "base")
    save_tiny(folder / "language", "masked_lm")
    write_pairs(folder / "pairs.csv", 60)
    (folder / "texts.txt").write_text("\n".join(f"{one} {other}" for one, other in zip(WORDS, WORDS[3:], strict=False)))
    return folder


def run(home: Path, *words: object, name: str) -> Record:
    said = run_cli(*words, *FEW, "-o", home / name)
    assert said.exit_code == 0, said.output
    return read_record(home / name)


@pytest.fixture(scope="module")
def tuned(home: Path) -> Record:
    settings = ("training.epochs=12", "training.learning_rate=2e-3", "training.batch_size=16", "normalize=true")
    own = tuple(part for one in settings for part in ("--set", one))
    given = ("--kind", "embedding_pairs", "--data", home / "pairs.csv", "--pooling", "mean")
    return run(home, "finetune", home / "plain", *given, *own, name="tuned")


def test_the_loss_is_that_of_sentence_transformers():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(5, 8, generator=generator) for _ in range(2))
    theirs: Any = MultipleNegativesRankingLoss(torch.nn.Identity())  # type: ignore[arg-type]
    expected = theirs.compute_loss_from_embeddings([first, second], None)
    found = EMBEDDING_PAIRS.loss(torch.cat([first, second], dim=1), torch.zeros(5, 16))
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    # Texts that are alike in pairs, and unlike else, have next to none.
    assert float(EMBEDDING_PAIRS.loss(torch.cat([torch.eye(5), 3 * torch.eye(5)], dim=1), torch.zeros(5, 10))) < 1e-6


def test_a_model_gives_pairs_that_loss_and_its_vectors_side_by_side():
    model = tiny_model(
        "bert", "embeddings", **{KEY: {"pooling": ["mean"], "normalize": False, "prompts": {}, "similarity": None}}
    )
    ids = torch.randint(5, 60, (6, 7), generator=torch.Generator().manual_seed(1))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        vectors = model(**batch).logits
        output = model(**batch, labels=torch.zeros(3, 2 * vectors.shape[1]))
    pairs = EMBEDDING_PAIRS.outputs(output)
    assert torch.equal(pairs, torch.cat([vectors[::2], vectors[1::2]], dim=1))
    assert float(output.loss) == pytest.approx(float(EMBEDDING_PAIRS.loss(pairs, pairs)), rel=1e-6)
    # What is learned from a teacher is as for as many texts.
    taught = torch.randn(pairs.shape, generator=torch.Generator().manual_seed(2))
    told = EMBEDDINGS.distillation(vectors, taught.reshape(6, -1), 1.0)
    assert float(EMBEDDING_PAIRS.distillation(pairs, taught, 1.0)) == pytest.approx(float(told), rel=1e-5)


def test_ranks_and_cosines_by_hand():
    # The second text of the first pair is nearest to the first of the second pair, and the other way round.
    outputs = np.array([[1.0, 0, 0.1, 0.9], [0, 1, 0.9, 0.1], [-1, -1, -1, -1]])
    values = score(EMBEDDING_PAIRS.metrics, outputs, outputs)
    assert values == pytest.approx({"positive_mrr": (0.5 + 0.5 + 1) / 3, "pair_cosine": 1.0})
    turned = outputs * [1, 1, -1, -1]
    assert score(["pair_cosine"], turned, outputs)["pair_cosine"] == pytest.approx(0)
    assert EMBEDDING_PAIRS.divergence(outputs, turned) == EMBEDDING_PAIRS.mean_loss(turned, outputs) == pytest.approx(1)
    assert score(["positive_mrr"], outputs[:1], outputs[:1]) == {}
    constant = EMBEDDING_PAIRS.constant(outputs, ())
    baselines = constant_scores(EMBEDDING_PAIRS.metrics, constant.everywhere(outputs), outputs)
    assert baselines["positive_mrr"] == 0 and baselines["pair_cosine"] < 1
    for metric in EMBEDDING_PAIRS.metrics:
        assert resampled_scores(metric, turned, outputs, 30, 1).mean() == pytest.approx(
            score([metric], turned, outputs)[metric], abs=0.2
        )


def test_an_encoder_learns_which_texts_belong_together(home: Path, tuned: Record):
    [model] = tuned.models
    before, after = ({one.metric: one.value for one in each} for each in (model.one_shot_scores, model.scores))
    assert tuned.main_metric == "positive_mrr" and after["positive_mrr"] >= before["positive_mrr"]
    assert before["pair_cosine"] == pytest.approx(1) and after["pair_cosine"] < 0.999
    folder = home / "tuned" / "finetuned"
    assert {file.name for file in folder.iterdir()} >= {"modules.json", "1_Pooling", "sentence_bert_config.json"}
    theirs = SentenceTransformer(str(folder))
    assert theirs.get_embedding_dimension() == load_config(folder).hidden_size
    assert np.linalg.norm(theirs.encode(["good bad"])) == pytest.approx(1, abs=1e-5)


def test_it_is_cut_by_pairs_and_both_losses_are_weighed(home: Path, tuned: Record):
    given = ("--kind", "embedding_pairs", "--data", home / "pairs.csv", "--sparsity", 0.5, *QUICK)
    cut = run(home, "compress", home / "tuned" / "finetuned", *given, "--set", "finetune.max_steps=4", name="cut")
    dense, small = ({one.metric: one.value for one in model.scores} for model in cut.models)
    assert dense["pair_cosine"] == pytest.approx(1) and 0 < small["pair_cosine"] < 1
    assert load_recipe(None, ["kind=compress", "targets=[]"]).plain()["distill"]["labels"] == 0.2
    assert not load_config(home / "cut" / "0.5-sparsity").architectures[0].endswith("ForEmbeddings")


def test_a_language_model_becomes_one_of_embeddings(home: Path):
    given = ("--task", "embeddings", "--data", home / "texts.txt", "--pooling", "cls", "--sparsity", 0.3)
    run(home, "compress", home / "language", *given, *QUICK, "--set", "finetune.max_steps=2", name="language-run")
    dense = load_model(home / "language-run" / "dense")
    assert type(dense).__name__ == "BertForEmbeddings" and load_config(home / "language-run" / "dense").to_dict()[KEY][
        "pooling"
    ] == ["cls"]
    first = json.loads((home / "language-run" / "dense" / "1_Pooling" / "config.json").read_text())
    assert first["pooling_mode_cls_token"] and first["word_embedding_dimension"] == dense.config.hidden_size
    own = load_model(home / "language").base_model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in dense.base_model.state_dict().items() if name in own)


def test_what_does_not_fit_is_refused(home: Path, tuned: Record, tmp_path: Path):
    def said(model: Path, *words: object) -> Any:
        return run_cli("finetune", model, *words, "-o", tmp_path / "run")

    texts = ("--task", "embeddings", "--data", home / "texts.txt")
    assert_refused(said(home / "plain", *texts), ["gives nothing of kind embeddings", "--pooling mean"])
    folder = home / "tuned" / "finetuned"
    assert_refused(said(folder, *texts, "--pooling", "mean"), ["own files say how its vectors are made"])
    save_tiny(tmp_path / "classifier")
    assert_refused(said(tmp_path / "classifier", *texts, "--pooling", "mean"), ["its head would be lost"])
    assert_refused(said(home / "plain", "--task", "reviews", "--pooling", "mean"), ["Only vectors of texts"])
    assert_refused(said(home / "plain", *texts, "--pooling", "meen"), ["pooling"])
    assert_refused(said(home / "plain", *texts, "--set", "normalize=true"), ["normalize goes with pooling"])
    lines = ("--kind", "embedding_pairs", "--data", home / "texts.txt", "--pooling", "mean")
    assert_refused(said(home / "plain", *lines), ["texts.txt has no column 'anchor'"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "given", "last"),
    [
        ("plain", ("--kind", "embedding_pairs", "--pooling", "mean", "--data", "pairs.csv"), HIDDEN),
        ("language", ("--kind", "masked_lm", "--data", "texts.txt"), VOCAB),
    ],
)
def test_models_of_runs_without_labels_are_exported(
    home: Path, tmp_path: Path, model: str, given: tuple[str, ...], last: int
):
    runtime = pytest.importorskip("onnxruntime")
    *kind, file = given
    one_step = ("--set", "training.max_steps=1", "--set", "training.evaluate=null", "-o", tmp_path / "run")
    said = run_cli("finetune", home / model, *kind, home / file, *FEW, *one_step)
    assert said.exit_code == 0, said.output
    program = ("--to", "onnx", "-o", tmp_path / "program", "--json")
    said = run_cli("export", tmp_path / "run" / "finetuned", *program)
    assert said.exit_code == 0, said.output
    (found,) = json.loads(said.stdout)["programs"]
    assert found["relative_difference"] < 1e-4
    # Vectors of texts, or logits of all tokens.
    session = runtime.InferenceSession(tmp_path / "program" / found["file"])
    assert session.get_outputs()[0].shape[-1] == last

"""Cross-encoders: learned from their own scores, loaded by sentence-transformers, judged by the order of passages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sentence_transformers import CrossEncoder
from sklearn.metrics import ndcg_score

from sparsebert import Predictor
from sparsebert.data.load import load_task
from sparsebert.errors import UserError
from sparsebert.models.heads import has_task_head
from sparsebert.models.load import load_config, load_model, load_tokenizer, save_model
from sparsebert.recipe.schema import Columns
from sparsebert.records import read_record
from sparsebert.tasks.kind import TextColumn
from sparsebert.tasks.ranking import RANKING
from tiny_run import QUICK, WORDS, assert_refused, run_cli, save_tiny

PAIRS = ("--text-column", "query", "--text-column", "passage")
FEW = tuple(part for one in ("measure.timed=false", "finetune.max_steps=4") for part in ("--set", one))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder as sentence-transformers saves it; 30 queries with four passages, one of them right."""
    folder = tmp_path_factory.mktemp("ranking")
    save_tiny(folder / "plain", num_labels=1)
    model: Any = CrossEncoder(str(folder / "plain"), activation_fn=torch.nn.Identity(), max_length=16)
    model.save(str(folder / "dense"))
    draw = np.random.default_rng(0)
    lines = ["query,passage,right"]
    for number in range(30):
        lines += [
            f"{WORDS[number]} w3,{' '.join(draw.choice(WORDS, size=4))},{int(place == number % 4)}"
            for place in range(4)
        ]
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    """A family of one smaller model, from pairs without labels."""
    given = ("--task", "search", "--kind", "ranking", "--data", home / "pairs.csv", *PAIRS, "--sparsity", 0.5)
    said = run_cli("compress", home / "dense", *given, *QUICK, *FEW, "-o", home / "run")
    assert said.exit_code == 0, said.output
    return home / "run"


def test_the_kind_by_hand():
    taught, own = np.array([[0.0], [4.0]]), np.array([[1.0], [6.0]])
    # Squared errors of 1 and 4, over a variance of 4.
    assert RANKING.divergence(taught, own) == pytest.approx(2.5 / 4)
    assert RANKING.mean_loss(own, taught[:, 0]) == pytest.approx(2.5)
    # A batch of one: over a tenth of the square of 4.
    assert float(RANKING.distillation(torch.tensor(own[1:]), torch.tensor(taught[1:]), 2.0)) == pytest.approx(4 / 1.6)
    assert float(RANKING.distillation(torch.tensor(own), torch.tensor(taught), 2.0)) == pytest.approx(2.5 / 4)
    assert np.isfinite(RANKING.divergence(np.zeros((2, 1)), np.ones((2, 1))))
    for refused in (lambda: RANKING.labels([1], (), "a"), lambda: RANKING.from_text(TextColumn(["1"], "a", "b", ","))):
        with pytest.raises(UserError, match="Pairs of kind ranking have no labels"):
            refused()


def test_pairs_without_labels_make_a_smaller_model_of_the_same_kind(home: Path, run: Path):
    dense, small = read_record(run).models
    assert {one.metric: one.value for one in dense.scores} == pytest.approx({"spearman": 1.0, "pearson": 1.0})
    texts = [line.split(",")[:2] for line in (home / "pairs.csv").read_text(encoding="utf-8").splitlines()[1:]]
    one, other = (Predictor(folder) for folder in (home / "dense", run / "0.5-sparsity"))
    scores = [model.outputs(*zip(*texts, strict=True))[:, 0] for model in (one, other)]
    assert 0 < small.scores[0].value < 1 and spearmanr(*scores).statistic > 0.1
    assert has_task_head(load_config(run / "0.5-sparsity"), RANKING, 1)


def test_a_model_without_a_score_of_its_own_has_nothing_to_keep(home: Path, tmp_path: Path):
    save_tiny(tmp_path / "base", "base")
    save_tiny(tmp_path / "classes")
    given = ("--task", "search", "--kind", "ranking", "--data", home / "pairs.csv", "--sparsity", 0.5)
    for name in ("base", "classes"):
        said = run_cli("compress", tmp_path / name, *given, *PAIRS, "-o", tmp_path / "run")
        assert_refused(said, ["gives nothing of kind ranking", "a CrossEncoder for ranking"])
    alone = run_cli("compress", home / "dense", *given, "--text-column", "query", "-o", tmp_path / "run")
    assert_refused(alone, ["Texts of kind ranking are pairs; got text column query"])
    assert not (tmp_path / "run").exists()


def test_a_query_is_on_one_side_of_the_split(home: Path):
    columns = Columns(kind="ranking", text=("query", "passage"))
    task = load_task("search", str(home / "pairs.csv"), columns)
    train, held = ({*rows["text_a"][:]} for rows in (task.train, task.validation))
    assert len(held) == 3 and not train & held and len(task.validation) == 12


def test_sentence_transformers_gives_the_same_scores(home: Path, run: Path):
    for folder in (home / "dense", run / "0.5-sparsity"):
        theirs: Any = CrossEncoder(str(folder))
        # Identity: the logits as they are, also where the file that said so is not written again.
        assert isinstance(theirs.activation_fn, torch.nn.Identity)
        expected = Predictor(folder).outputs(["good", "w1"], ["w2 w3", "bad"])[:, 0]
        assert np.allclose(theirs.predict([("good", "w2 w3"), ("w1", "bad")]), expected, atol=1e-5)
    assert load_tokenizer(run / "0.5-sparsity").model_max_length == load_tokenizer(home / "dense").model_max_length


def test_the_order_of_passages_is_judged_query_by_query(home: Path, run: Path):
    data = ("--data", home / "pairs.csv", *PAIRS, "--label-column", "right", "--by-query", "--json")
    said = run_cli("check", home / "dense", run / "0.5-sparsity", *data)
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    texts = [line.split(",") for line in (home / "pairs.csv").read_text(encoding="utf-8").splitlines()[1:]]
    queries, passages, right = zip(*texts, strict=True)
    scores = Predictor(home / "dense").outputs(queries, passages)[:, 0].reshape(30, 4)
    expected = ndcg_score(np.array(right, dtype=float).reshape(30, 4), scores, k=10)
    assert found["metric"] == "ndcg_at_10" and found["first"][0]["value"] == pytest.approx(expected)
    assert found["first"][0]["examples"] == 30 and found["second"][0]["change_low"] is not None
    assert "mixed" not in found or not found["mixed"]


def test_a_model_that_says_the_same_of_all_finds_nothing(home: Path, tmp_path: Path):
    flat = load_model(home / "dense")
    torch.nn.init.zeros_(flat.get_parameter("classifier.weight"))
    save_model(flat, load_tokenizer(home / "dense"), tmp_path / "flat")
    data = ("--data", home / "pairs.csv", *PAIRS, "--label-column", "right", "--by-query", "--json")
    found = json.loads(run_cli("check", home / "dense", tmp_path / "flat", *data).stdout)
    # The right one of four comes last.
    assert found["second"][2]["value"] == pytest.approx(0.25)


def test_what_says_nothing_of_an_order_is_refused(home: Path, run: Path, tmp_path: Path):
    ask = ("check", home / "dense", run / "0.5-sparsity", *PAIRS, "--by-query")
    assert_refused(run_cli(*ask, "--data", home / "pairs.csv"), ["judged by grades", "--label-column"])
    (tmp_path / "a.csv").write_text("query,passage,right\na,b,1\nc,d,0\nc,e,0\n", encoding="utf-8")
    alone = run_cli(*ask, "--data", tmp_path / "a.csv", "--label-column", "right")
    assert_refused(alone, ["No query has two passages, one of them right; got 2 queries"])
    save_tiny(tmp_path / "classes")
    classes = ("check", tmp_path / "classes", tmp_path / "classes", *PAIRS, "--by-query", "--label-column", "right")
    assert_refused(run_cli(*classes, "--data", home / "pairs.csv"), ["one score", "got classification"])

"""SetFit models: the body is made smaller as vectors, its head goes along unopened, and is opened only when trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier

from sparsebert import Predictor
from sparsebert.records import read_record
from sparsebert.runs.check_heads import OpenHead
from test_embeddings import save_embedder
from tiny_run import QUICK, WORDS, assert_refused, run_cli

TEXTS = [f"{WORDS[row % 2]} w{row % 50} w{(7 * row) % 50}" for row in range(60)]
OPENED: list[str] = []


def spring() -> None:
    """What the trap does, found by its name when it is unpickled."""
    OPENED.append("opened")


class Trap:
    """Says so when it is unpickled."""

    def __reduce__(self) -> Any:
        return spring, ()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SetFit model as setfit 1.2 saves it, texts, and the model made smaller."""
    folder = tmp_path_factory.mktemp("setfit")
    save_embedder(folder / "model")
    vectors = Predictor(folder / "model").outputs(TEXTS)
    joblib.dump(
        LogisticRegression(C=1e4).fit(vectors, [row % 2 for row in range(60)]), folder / "model" / "model_head.pkl"
    )
    settings = {"labels": ["praise", "blame"], "normalize_embeddings": False}
    (folder / "model" / "config_setfit.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    given = ("--task", "embeddings", "--data", folder / "texts.txt", "--sparsity", 0.5, *QUICK)
    said = run_cli("compress", folder / "model", *given, "-o", folder / "run", "--set", "finetune.max_steps=4")
    assert said.exit_code == 0, said.output
    return folder


def test_the_head_lies_beside_every_model_byte_for_byte(home: Path):
    record = read_record(home / "run" / "record.json")
    for model in record.models:
        for name in ("model_head.pkl", "config_setfit.json"):
            assert (home / "run" / model.folder / name).read_bytes() == (home / "model" / name).read_bytes()
            assert name in model.files
    assert any("model_head.pkl" in note and "--trust-head" in note for note in record.notes)
    assert run_cli("pack", home / "run" / "0.5-sparsity", "-o", home / "packed").exit_code == 0
    assert (home / "packed" / "model_head.pkl").read_bytes() == (home / "model" / "model_head.pkl").read_bytes()


def test_check_compares_the_classes_of_trusted_heads(home: Path):
    small = home / "run" / "0.5-sparsity"
    said = run_cli("check", home / "model", small, "--data", home / "texts.txt", "--trust-head", "--json")
    found = json.loads(said.stdout)
    head = joblib.load(home / "model" / "model_head.pkl")
    classes = [head.predict(Predictor(one).outputs(TEXTS)) for one in (home / "model", small)]
    assert found["agreement"] == pytest.approx(np.mean(classes[0] == classes[1])) and found["by_head"]
    differing = int(np.sum(classes[0] != classes[1]))
    assert len(found["flips"]) == min(20, differing)
    assert {one["own"] for one in found["flips"]} <= {"praise", "blame"}
    # Vectors are no better than they are: only the gate of classes is looked at here.
    limit = 100 * (1 - found["agreement"]) - 0.01
    said = run_cli("check", home / "model", small, "--data", home / "texts.txt", "--trust-head", "--max-drop", limit)
    assert (f"{limit + 0.01:.2f} of 100 texts are decided otherwise" in said.stdout) == (differing > 0)


def test_a_head_is_not_opened_unless_it_is_trusted(home: Path):
    small = home / "run" / "0.5-sparsity"
    before = (small / "model_head.pkl").read_bytes()
    try:
        joblib.dump(Trap(), small / "model_head.pkl")
        said = run_cli("check", home / "model", small, "--data", home / "texts.txt", "--json")
        found = json.loads(said.stdout)
        assert not OPENED and found.get("agreement") is None and not found["by_head"]
        assert "model_head.pkl is a pickle" in " ".join(found["notes"]) and "--trust-head" in " ".join(found["notes"])
        for command in (("predict", small, "good"), ("info", small), ("pack", small, "-o", home / "again")):
            assert run_cli(*command).exit_code == 0 and not OPENED
        given = ("check", home / "model", small, "--data", home / "texts.txt", "--trust-head")
        assert_refused(run_cli(*given), ["The head is no classifier of scikit-learn; got NoneType"])
        assert OPENED == ["opened"]
    finally:
        (small / "model_head.pkl").write_bytes(before)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model_head.pkl", b"", "The head cannot be opened here: EOFError"),
        ("model_head.pkl", b"no pickle", "The head cannot be opened here: "),
        ("config_setfit.json", b"{", "config_setfit.json cannot be read"),
        ("config_setfit.json", b"[1]", "config_setfit.json cannot be read"),
    ],
)
def test_damaged_files_are_refused(name: str, content: bytes, words: str, home: Path):
    small = home / "run" / "0.5-sparsity"
    before = (small / name).read_bytes()
    try:
        (small / name).write_bytes(content)
        said = run_cli("check", home / "model", small, "--data", home / "texts.txt", "--trust-head")
        assert_refused(said, [words])
    finally:
        (small / name).write_bytes(before)


def test_a_model_without_a_head_and_texts_in_order_are_refused(home: Path, tmp_path: Path):
    save_embedder(tmp_path / "plain")
    given = ("--data", home / "texts.txt", "--trust-head")
    assert_refused(run_cli("check", tmp_path / "plain", home / "model", *given), ["has no head of SetFit"])
    (tmp_path / "pairs.csv").write_text("a,b,score\ngood,bad,0.1\ngood,good,1\n", encoding="utf-8")
    columns = ("--text-column", "a", "--text-column", "b", "--label-column", "score")
    said = run_cli("check", home / "model", home / "model", "--data", tmp_path / "pairs.csv", *columns, "--trust-head")
    assert_refused(said, ["Heads give classes to texts, and these are to be put in order"])


def test_classes_are_named_and_several_labels_too():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 4))
    many = MultiOutputClassifier(LogisticRegression(C=1e6)).fit(vectors, (vectors[:, :2] > 0).astype(int))
    head = OpenHead(Path("x"), many, ("food", "price"), normalised=False)
    rows = np.array([[3.0, 3, 0, 0], [3, -3, 0, 0], [-3, -3, 0, 0]])
    assert head.classes(rows) == ["food, price", "food", "none"]
    words = LogisticRegression().fit(vectors, np.where(vectors[:, 0] > 0, "yes", "no"))
    assert OpenHead(Path("x"), words, (), normalised=True).classes(rows) == ["yes", "yes", "no"]


def test_vectors_get_length_1_where_the_head_was_trained_on_such():
    nearest = KNeighborsClassifier(1).fit([[1, 0], [10, 10]], ["near", "far"])
    said = [
        OpenHead(Path("x"), nearest, (), normalised).classes(np.array([[10.0, 1.0]])) for normalised in (False, True)
    ]
    assert said == [["far"], ["near"]]

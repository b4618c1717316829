"""`sparsebert export` of models of other shapes and other tasks: headless, layerless, of trees, without a head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import pipeline

import sparsebert
from sparsebert import Predictor, UserError
from sparsebert.models.families import HeadName
from sparsebert.models.load import load_tokenizer
from sparsebert.runs.export import export
from sparsebert.runs.subject import Wish
from tiny import HEADS, NEURONS
from tiny_run import run_cli, save_tiny

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
TEXTS = ["good", "bad w1 w2 w3", "w4 good w5", "", "unheard-of words", "bad " * 90]


def headless(folder: Path) -> Path:
    """A model without heads in one layer, without neurons in the next, and one layer gone."""
    gone = {"layer.0.heads": torch.zeros(HEADS) > 0, "layer.1.neurons": torch.zeros(NEURONS) > 0}
    save_tiny(folder)
    small = sparsebert.shrink(sparsebert.load_model(folder), gone, [2])
    sparsebert.save_model(small, load_tokenizer(folder), folder)
    return folder


def treelike(folder: Path) -> Path:
    save_tiny(folder, num_hidden_layers=1)
    model = sparsebert.convert_ffn(sparsebert.load_model(folder), depth=2)
    sparsebert.save_model(model, load_tokenizer(folder), folder)
    return folder


@pytest.mark.parametrize("make", [headless, treelike])
def test_shrunk_and_tree_models_as_they_are(make: Callable[[Path], Path], tmp_path: Path):
    model = make(tmp_path / "model")
    made = export(Wish(str(model), tmp_path / "out", ("onnx", "openvino")))
    assert all(one.relative_difference < 1e-5 for one in made.programs)
    expected = Predictor(model, "eager")(TEXTS, top_k=None)
    for runtime in ("onnx", "openvino"):
        for one, other in zip(Predictor(tmp_path / "out", runtime)(TEXTS, top_k=None), expected, strict=True):
            assert one[0]["label"] == other[0]["label"]
            assert one[0]["score"] == pytest.approx(other[0]["score"], abs=1e-5)


def test_an_encoder_without_a_head_has_hidden_states_and_no_answers(tmp_path: Path):
    save_tiny(tmp_path / "model", "base", num_hidden_layers=1)
    made = export(Wish(str(tmp_path / "model"), tmp_path / "out", ("onnx",)))
    assert (made.kind, made.labels, made.programs[0].agreement) == (None, (), None)
    with pytest.raises(UserError, match="is not fine-tuned for a task"):
        Predictor(tmp_path / "out")


def test_the_pipeline_of_a_regression_gives_the_same(tmp_path: Path):
    save_tiny(tmp_path / "model", num_labels=1, problem_type="regression", num_hidden_layers=1)
    own, pipe = Predictor(tmp_path / "model"), pipeline("text-classification", str(tmp_path / "model"))
    [found], [expected] = own("good w1"), pipe("good w1")
    assert found["label"] == expected["label"] and found["score"] == pytest.approx(expected["score"], abs=1e-5)


@pytest.mark.parametrize(("task", "asked"), [("classification", True), ("masked_lm", False), ("base", False)])
def test_only_what_predict_takes_is_sent_there(task: HeadName, asked: bool, tmp_path: Path):
    save_tiny(tmp_path / "model", task, num_hidden_layers=1)
    said = run_cli("export", tmp_path / "model", "--to", "onnx", "-o", tmp_path / "out")
    assert said.exit_code == 0, said.output
    assert "Written to" in said.stdout and ("Next: sparsebert predict" in said.stdout) is asked

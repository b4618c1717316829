"""Every registered task kind keeps the contract of `TaskKind`; one of the user's own works without a fork."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.models.heads import has_task_head, kind_of, saved_kind
from sparsebert.models.load import load_config, load_model
from sparsebert.recipe.load import load_recipe
from sparsebert.records import read_record
from sparsebert.tasks.bootstrap import resampled_scores
from sparsebert.tasks.kind import TextColumn, task_kind
from sparsebert.tasks.metrics import constant_scores, score
from tiny import tiny_model
from tiny_run import QUICK, assert_refused, run_cli, save_tiny, write_task


@dataclass(frozen=True)
class Example:
    """Values of a label column, the same as text in a CSV file, and outputs that are right for all of them."""

    values: list[Any]
    text: list[str]
    names: tuple[str, ...]
    perfect: list[list[float]]


EXAMPLES = {
    "classification": Example(
        ["no", "yes", "maybe", "yes"],
        ["no", "yes", "maybe", " yes "],
        ("maybe", "no", "yes"),
        [[0, 3, 0], [0, 0, 3], [3, 0, 0], [0, 0, 3]],
    ),
    "regression": Example([0.5, 2, -1.0, 3.25], ["0,5", "2", "-1", "3,25"], (), [[0.5], [2], [-1], [3.25]]),
    "multilabel": Example(
        [["food", "price"], [], ["price"], ["staff", "price"]],
        ["food|price", "", "price", "staff | price"],
        ("food", "price", "staff"),
        [[2, 2, -2], [-2, -2, -2], [-2, 2, -2], [-2, 2, 2]],
    ),
    "pair_classification": Example(
        ["no", "yes", "no", "yes"], ["no", "yes", "no", " yes "], ("no", "yes"), [[0, -3], [0, 3], [0, -1], [0, 2]]
    ),
    "pair_similarity": Example([0.5, 2, 5.0, 3.25], ["0,5", "2", "5", "3,25"], (), [[0.5], [2], [5], [3.25]]),
}
# Of words, of places in texts, and of text without labels; each has a test file of its name, but for masked_lm, of
# whose texts test_masked_texts.py is.
OTHERS = ["tokens", "masked_lm", "embeddings", "embedding_pairs", "ranking", "spans"]
KINDS = [name for name in registry.names("task_kind") if name not in OTHERS]


def labels_of(name: str) -> np.ndarray:
    example = EXAMPLES[name]
    return np.array(task_kind(name).labels(example.values, example.names, "labels"))


def outputs_of(name: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn((4, len(EXAMPLES[name].perfect[0])), generator=generator)


def test_every_kind_has_an_example():
    assert list(EXAMPLES) == KINDS and len(KINDS) + len(OTHERS) == len(registry.names("task_kind"))


@pytest.mark.parametrize("name", KINDS)
def test_labels_are_read_from_files_of_every_format(name: str):
    kind, example = task_kind(name), EXAMPLES[name]
    assert kind.label_names(example.values, "labels") == example.names
    assert bool(example.names) == kind.named
    assert (kind.num_outputs or len(example.names)) == len(example.perfect[0])
    values, _ = kind.from_text(TextColumn(example.text, "a.csv", "label", ";"))
    assert kind.labels(values, kind.label_names(values, "labels"), "labels") == labels_of(name).tolist()
    assert torch.tensor(labels_of(name).tolist()).dtype in (torch.int64, torch.float32)
    assert kind.strata(labels_of(name)).shape == (4,) and kind.strata(labels_of(name)).dtype == np.int64
    with pytest.raises(UserError, match="labels, row 2: the label is missing"):
        kind.labels([example.values[0], None], example.names, "labels")


@pytest.mark.parametrize("name", KINDS)
def test_the_loss_is_finite_differentiable_and_that_of_transformers(name: str):
    kind, outputs = task_kind(name), outputs_of(name).requires_grad_()
    labels = torch.tensor(labels_of(name).tolist())
    loss = kind.loss(outputs, labels)
    (gradient,) = torch.autograd.grad(loss, outputs)
    assert loss.shape == () and bool(torch.isfinite(loss)) and bool(gradient.any())
    found = kind.mean_loss(outputs.detach().numpy(), labels_of(name))
    assert found == pytest.approx(float(loss.detach()), rel=1e-5)
    model = tiny_model("bert", kind.head, num_labels=outputs.shape[1], problem_type=kind.problem_type)
    ids = torch.randint(3, 90, (8 if kind.apart else 4, 6), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        given = model(ids, labels=labels)
    assert float(kind.loss(kind.outputs(given), labels)) == float(given.loss)


@pytest.mark.parametrize("name", KINDS)
def test_equal_outputs_do_not_diverge_and_have_nothing_to_learn(name: str):
    kind, outputs = task_kind(name), outputs_of(name)
    assert kind.divergence(outputs.numpy(), outputs.numpy()) == pytest.approx(0, abs=1e-7)
    assert kind.divergence(outputs.numpy(), outputs.numpy()[::-1]) > 0.01
    for temperature in (1.0, 3.0):
        student = outputs.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(kind.distillation(student, outputs, temperature), student)
        assert float(gradient.abs().max()) < 1e-6
        other = outputs.flip(0).requires_grad_()
        (gradient,) = torch.autograd.grad(kind.distillation(other, outputs, temperature), other)
        assert float(gradient.abs().max()) > 0.01
    shifted = kind.divergence(outputs.numpy(), outputs.numpy() + 1.0)
    assert (shifted < 1e-6) == kind.exclusive


@pytest.mark.parametrize("name", KINDS)
def test_a_perfect_prediction_scores_best_and_a_constant_one_less(name: str):
    kind, labels, perfect = task_kind(name), labels_of(name), np.array(EXAMPLES[name].perfect)
    assert score(kind.metrics, perfect, labels) == pytest.approx(dict.fromkeys(kind.metrics, 1.0))
    constant = kind.constant(labels, EXAMPLES[name].names)
    assert constant.outputs.shape == perfect.shape[1:] and constant.said.startswith("always ")
    baselines = constant_scores(kind.metrics, constant.everywhere(labels), labels)
    assert list(baselines) == list(kind.metrics) and all(value < 1 for value in baselines.values())
    noisy = np.random.default_rng(1).normal(size=perfect.shape)
    for metric in kind.metrics:
        draws = np.random.default_rng(5).integers(4, size=(30, 4))
        expected = [score([metric], noisy[rows], labels[rows]).get(metric, np.nan) for rows in draws]
        found = resampled_scores(metric, noisy, labels, 30, 5)
        assert found == pytest.approx(np.array(expected), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", KINDS)
def test_a_saved_model_is_recognised_as_of_this_kind_only(name: str, tmp_path: Path):
    kind, outputs = task_kind(name), len(EXAMPLES[name].perfect[0])
    save_tiny(tmp_path / "start", "base")
    model = load_model(tmp_path / "start", num_labels=outputs, kind=name)
    model.save_pretrained(tmp_path / "tuned")
    config = load_config(tmp_path / "tuned")
    assert saved_kind(config) == name and kind_of(model) == kind
    assert has_task_head(config, kind, outputs)
    assert not any(has_task_head(config, task_kind(other), outputs) for other in KINDS if other != name)
    assert not has_task_head(config, kind, outputs + 1)
    assert not has_task_head(load_config(tmp_path / "start"), kind, outputs)


@pytest.mark.parametrize("name", KINDS)
def test_an_answer_is_plain_and_a_kind_can_be_sent_to_other_processes(name: str):
    kind, example = task_kind(name), EXAMPLES[name]
    answer = kind.answer(example.names or ("value",), np.array(example.perfect[0], dtype=np.float64))
    assert json.loads(json.dumps(answer)) == answer
    assert pickle.loads(pickle.dumps(kind)) == kind
    assert all(registry.get("metric", metric) is not None for metric in kind.metrics)


OWN = """
from sparsebert.tasks.classification import Classification

class Shouted(Classification):
    def label_names(self, values, where):
        return tuple(sorted({value.upper() for value in values}))

    def labels(self, values, names, where):
        return [names.index(value.upper()) for value in values]

KIND, NOTHING = Shouted(), 3
"""


def test_a_kind_of_the_users_own_is_named_in_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "shouted_labels.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "model", "base")
    data = write_task(tmp_path / "data")
    arguments = ("compress", tmp_path / "model", "--task", "mine", "--data", data, "--sparsity", 0.5, *QUICK)
    said = run_cli(*arguments, "--set", "columns.kind=shouted_labels:KIND", "--no-finetune", "-o", tmp_path / "run")
    assert said.exit_code == 0, said.output
    record = read_record(tmp_path / "run" / "record.json")
    assert record.recipe["columns"]["kind"] == "shouted_labels:KIND"
    assert {model.decisions.classes for model in record.models if model.decisions} == {("NO", "YES")}
    said = run_cli(*arguments, "--set", "columns.kind=shouted_labels:NOTHING", "-o", tmp_path / "none")
    assert_refused(said, ["'shouted_labels:NOTHING' is no task kind", "got int"])
    assert not (tmp_path / "none").exists()


def test_an_unknown_kind_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match=r"Unknown task kind 'regresion'.*Did you mean 'regression'"):
        load_recipe(None, ["columns.kind=regresion"])

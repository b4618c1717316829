"""Thresholds of labels: chosen on rows made by hand, kept in a configuration, moved with labels, refused if damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from sparsebert import Predictor
from sparsebert.errors import UserError
from sparsebert.models.labels import draw_head, take_labels
from sparsebert.models.load import load_config, load_model
from sparsebert.models.thresholds import set_thresholds, thresholds_of
from sparsebert.tasks.multilabel import MULTILABEL
from sparsebert.tasks.thresholds import FEWEST, LEAST, checked_thresholds, choose_thresholds
from tiny_run import assert_refused, run_cli, save_tiny

NAMES = ("food", "price", "staff")
MULTI = {
    "problem_type": "multi_label_classification",
    "num_labels": 3,
    "id2label": dict(enumerate(NAMES)),
    "label2id": {name: place for place, name in enumerate(NAMES)},
}


def logit(chance: float) -> float:
    return float(np.log(chance / (1 - chance)))


def test_labels_that_are_told_apart_get_a_threshold_between_their_sides():
    labels = np.tile([[1, 0], [0, 1], [0, 0], [1, 1]], (100, 1)).astype(float)
    # The first is right from -1 up, and the second from 2 up: of both together no one threshold is.
    outputs = np.where(labels == 1, [-1.0, 2.0], [-3.0, 0.0])
    first, second = choose_thresholds(outputs, labels)
    assert -3 < logit(first) < -1 and 0 < logit(second) < 2
    assert MULTILABEL.deciding_at((first, second)).margins(outputs).__gt__(0).tolist() == (labels == 1).tolist()


def test_a_label_without_rows_takes_the_threshold_of_all():
    rng = np.random.default_rng(0)
    labels = np.stack([rng.random(400) < 0.5, np.zeros(400)], axis=1).astype(float)
    outputs = np.stack([4 * labels[:, 0] - 5, rng.normal(-8, 0.1, 400)], axis=1)
    first, none = choose_thresholds(outputs, labels)
    # Half-way between -1 and -5, which both are drawn to.
    assert logit(first) == pytest.approx(logit(none), abs=1e-2) == pytest.approx(-3, abs=1e-2)


def test_a_label_of_few_rows_leans_on_the_threshold_of_all():
    labels = np.zeros((400, 2))
    labels[:200, 0] = labels[:2, 1] = 1
    # Each alone is told apart at -3 and at -8; of all together most are at -3.
    outputs = np.where(labels == 1, [-1.0, -7.0], [-5.0, -9.0])
    many, few = choose_thresholds(outputs, labels)
    assert logit(many) == pytest.approx(-3, abs=1e-2)
    assert logit(few) == pytest.approx((2 * -8 + FEWEST * -3) / (2 + FEWEST), abs=1e-2)


def test_a_label_that_cannot_be_told_is_not_given_to_every_text():
    rng = np.random.default_rng(0)
    labels = (rng.random((2000, 2)) < [0.4, 0.1]).astype(float)
    outputs = np.stack([4 * labels[:, 0] - 2 + rng.normal(0, 1, 2000), rng.normal(-2.2, 0.2, 2000)], axis=1)
    limits = choose_thresholds(outputs, labels)
    given = MULTILABEL.deciding_at(limits).margins(outputs) > 0
    # Its F1 alone is highest where all rows have it.
    assert f1_score(labels[:, 1], np.ones(2000)) > f1_score(labels[:, 1], given[:, 1])
    assert given[:, 1].mean() < 0.05


def test_too_few_labels_give_no_thresholds():
    labels = np.zeros((50, 2))
    labels[: FEWEST - 1, 0] = 1
    assert choose_thresholds(labels, labels) == ()
    labels[0, 1] = 1
    assert len(choose_thresholds(labels, labels)) == 2
    assert min(choose_thresholds(labels - 30, labels)) == LEAST


def drawn(rng: np.random.Generator, world: tuple[np.ndarray, ...], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits of labels of many frequencies, some hard to tell, all biased somewhat; and the labels."""
    rates, apart, bias = world
    labels = rng.random((rows, len(rates))) < rates
    seen = np.where(labels, apart / 2, -apart / 2) + rng.normal(size=labels.shape)
    return apart * seen + np.log(rates / (1 - rates)) + bias, labels.astype(float)


def best_cut(scores: np.ndarray, truth: np.ndarray) -> float:
    """The score from which on a label is given where its F1 alone is highest."""
    order = np.argsort(-scores)
    right = np.cumsum(truth[order])
    return scores[order[np.argmax(2 * right / (np.arange(1, len(truth) + 1) + truth.sum()))]]


def test_on_rows_they_were_not_chosen_on_they_are_better_than_one_half_and_than_each_label_alone():
    gains = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        rates = np.exp(rng.uniform(np.log(0.005), np.log(0.3), 12))
        world = rates, rng.uniform(0, 3, 12), rng.normal(rng.normal(0, 0.7), 0.4, 12)
        (outputs, labels), (others, truth) = drawn(rng, world, 300), drawn(rng, world, 5000)
        alone = [best_cut(outputs[:, place], labels[:, place]) for place in range(12) if labels[:, place].any()]
        given = MULTILABEL.deciding_at(choose_thresholds(outputs, labels)).margins(others) > 0
        each = [
            others[:, place] >= alone.pop(0) if labels[:, place].any() else others[:, place] > 0 for place in range(12)
        ]
        gains.append(
            [
                [f1_score(truth, said, average=mean, zero_division=0) for mean in ("micro", "macro")]
                for said in (given, others > 0, np.stack(each, axis=1))
            ]
        )
    own, half, single = np.moveaxis(np.array(gains), 0, 1)
    assert (own - half).mean(axis=0).min() > 0.05 and (own - half).min() > -0.01
    # Without looking at micro-F1, and without drawing rare ones together, F1 of all together is lost.
    assert (own[:, 0] - single[:, 0]).mean() > 0.05


@pytest.mark.parametrize(
    ("values", "got"),
    [
        ([0.5, 0.5], "2 of them"),
        ("0.5", "got 0.5"),
        ([0.5, "0.5", 0.5], "0.5"),
        ([0.5, float("nan"), 0.5], "nan"),
        ([0.5, 1.0, 0.5], "1.0"),
        ([0.5, True, 0.5], "True"),
        ({"food": 0.5}, "food"),
    ],
)
def test_damaged_thresholds_are_refused(values: Any, got: str, tmp_path: Path):
    with pytest.raises(UserError, match=r"The thresholds in x are damaged; got .*; allowed: 3 numbers") as caught:
        checked_thresholds(values, 3, "x")
    assert got in str(caught.value)
    folder = save_tiny(tmp_path / "model", **MULTI)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"thresholds": values}), "utf-8")
    for command in (("predict", folder, "good"), ("export", folder, "-o", tmp_path / "programs")):
        assert_refused(run_cli(*command), [f"The thresholds in {folder / 'config.json'} are damaged"])
    assert not (tmp_path / "programs").exists()


def with_thresholds(folder: Path, *values: float) -> Path:
    save_tiny(folder, **MULTI)
    config = load_config(folder)
    set_thresholds(config, values)
    config.save_pretrained(folder)
    return folder


def test_a_model_gives_labels_above_its_own_thresholds(tmp_path: Path):
    half, own = save_tiny(tmp_path / "half", **MULTI), tmp_path / "own"
    shutil.copytree(half, own)
    chances = {one["label"]: one["score"] for one in Predictor(half)("good w1", top_k=None)}
    order = [chances[name] for name in NAMES]
    config = load_config(own)
    set_thresholds(config, [order[0] - 0.01, order[1] + 0.01, order[2] - 0.01])
    config.save_pretrained(own)
    ((answers, _),) = Predictor(own).answers(["good w1"])
    assert answers[0]["labels"] == ["food", "staff"]
    assert answers[0]["probabilities"] == pytest.approx(chances)
    ((before, _),) = Predictor(half).answers(["good w1"])
    assert before[0]["labels"] == [name for name in NAMES if chances[name] > 0.5]
    given = {one["label"]: one["given"] for one in Predictor(own)("good w1", top_k=None)}
    assert given == {"food": True, "price": False, "staff": True}


def test_thresholds_go_along_when_labels_move_and_go_away_with_their_head(tmp_path: Path):
    folder = with_thresholds(tmp_path / "model", 0.1, 0.2, 0.3)
    model = load_model(folder)
    assert thresholds_of(model.config) == (0.1, 0.2, 0.3)
    take_labels(model, ("staff", "food", "price"))
    assert thresholds_of(model.config) == (0.3, 0.1, 0.2)
    draw_head(model)
    assert thresholds_of(model.config) == () and "thresholds" not in model.config.to_dict()
    assert thresholds_of(load_model(folder, num_labels=5, kind="multilabel").config) == ()


def test_thresholds_of_other_kinds_are_none_of_ours(tmp_path: Path):
    folder = save_tiny(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"thresholds": "high"}), "utf-8")
    assert thresholds_of(load_config(folder)) == ()
    with torch.no_grad():
        assert Predictor(folder)("good")[0]["label"]

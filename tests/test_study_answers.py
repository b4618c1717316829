"""Studies of what models compute: hidden states, and answers by class; numbers by hand or by scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.special import softmax
from scipy.stats import ortho_group
from sklearn.metrics import brier_score_loss, recall_score
from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.models.layout import layout_of
from sparsebert.models.load import load_model, load_tokenizer, save_model
from sparsebert.models.source import resolve
from sparsebert.models.surgeon import mask_model, shrink
from sparsebert.pruning.successive import without_layers
from sparsebert.reports.charts import HeatPanel, LinePanel, RangePanel
from sparsebert.reports.study import StudyResult
from sparsebert.studies.calibration import BINS, ClassAnswers
from sparsebert.studies.class_harm import class_harm, permutation_p, resampled
from sparsebert.studies.feature_similarity import Centred, Features, feature_similarity, linear_cka
from sparsebert.studies.features import _watched, features
from sparsebert.studies.significance import holm_corrected
from sparsebert.studies.task_rows import token_rows
from tiny import FAMILIES, tiny_batch, tiny_model
from tiny_run import assert_refused, run_cli, save_tiny, write_task


def rows(found: StudyResult, heading: str) -> dict[str, dict[str, Any]]:
    keys = [column.key for column in found.columns]
    own = [row for row in found.rows if row.heading == heading]
    return {str(row.values[0]): dict(zip(keys, row.values, strict=True)) for row in own}


def cka(first: np.ndarray, second: np.ndarray) -> float | None:
    return linear_cka(Centred.of(first), Centred.of(second))


def test_cka_by_hand_and_what_it_does_not_see():
    x, y = np.array([[1.0], [-1.0], [0.0], [0.0]]), np.array([[1.0], [-1.0], [2.0], [-2.0]])
    # (x'y)^2 / (x'x y'y) of one column is the square of their correlation.
    assert cka(x, y) == pytest.approx(2**2 / (2 * 10))
    assert cka(x, np.ones((4, 3))) is None
    rng = np.random.default_rng(0)
    states = rng.standard_normal((60, 8))
    turned = 3 * states @ ortho_group.rvs(8, random_state=0) + 5
    assert cka(states, turned) == pytest.approx(1)
    # By the Gram matrices of the tokens, as the paper defines it: HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)).
    other = states[:, :3] ** 2
    centre = np.eye(60) - 1 / 60
    k, m = (centre @ one @ one.T @ centre for one in (states, other))
    assert cka(states, other) == pytest.approx(np.sum(k * m) / (np.linalg.norm(k) * np.linalg.norm(m)))


def test_likeness_of_layers_that_are_left():
    rng = np.random.default_rng(0)
    layers = {number: rng.standard_normal((50, 4)) for number in range(3)}
    opposite = Features("cut", {0: layers[0], 2: -2 * layers[2]})
    narrow = Features("narrow", {0: layers[0][:, :2]})
    found = feature_similarity([Features("dense", layers), opposite, narrow])
    own = rows(found, "dense vs cut")
    assert list(own) == ["embeddings", "layer 2"]
    assert own["embeddings"]["cosine"] == pytest.approx(1) and own["layer 2"]["cosine"] == pytest.approx(-1)
    assert own["layer 2"]["cka"] == pytest.approx(1) and own["layer 2"]["cosine_sd"] == pytest.approx(0)
    assert abs(own["layer 2"]["cosine_by_chance"]) < 0.3 and own["layer 2"]["cka_by_chance"] < 0.3
    assert rows(found, "dense vs narrow")["embeddings"]["cosine"] is None
    assert found.answer.startswith("At layer 0 narrow is like dense by CKA")
    lines, *_, cells, _ = found.chart.panels
    assert isinstance(lines, LinePanel) and [line.x for line in lines.lines] == [(0.0, 2.0), (0.0,)]
    assert isinstance(cells, HeatPanel) and len(cells.values) == 3 and len(cells.values[0]) == 2
    with pytest.raises(UserError, match="no layer in common; got dense, cut"):
        feature_similarity([Features("dense", {1: layers[1]}), opposite])


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_of_every_family_are_those_of_transformers(family: str):
    model = tiny_model(family)
    batch = tiny_batch()
    found = watched(model, batch)
    assert list(found) == [0, 1, 2, 3]
    with torch.inference_mode():
        wanted = model(**batch, output_hidden_states=True).hidden_states
    # The last one may have gone through a norm that is no part of a layer.
    for number, state in enumerate(wanted[:-1]):
        torch.testing.assert_close(found[number], state)


def watched(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> dict[int, torch.Tensor]:
    with torch.inference_mode(), _watched(model, [layer.path for layer in layout_of(model).layers]) as states:
        model(**batch)
        return dict(enumerate(states))


def test_features_are_of_the_same_tokens_and_layers_keep_their_numbers(tmp_path: Path):
    source = resolve(str(save_tiny(tmp_path / "dense")))
    texts = Dataset.from_dict({"text_a": ["good w1 w2", "bad", "w3 w4 w5 w6 w7"], "label": [0, 0, 0]})
    tokens = token_rows(source, texts, 16)
    model = load_model(source)
    whole, cut = features("dense", model, tokens, 0), features("cut", without_layers(model, [1]), tokens, 0)
    assert sorted(whole.layers) == [0, 1, 2, 3] and sorted(cut.layers) == [0, 1, 3]
    # Special tokens count, padding does not: 5 + 3 + 7.
    assert {len(one) for one in whole.layers.values()} == {15}
    np.testing.assert_allclose(cut.layers[1], whole.layers[1], atol=1e-6)
    assert np.abs(cut.layers[3] - whole.layers[3]).max() > 0.01


# Four rows of class 0, two of 1, three of 2.
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])
RIGHT = np.eye(3)[LABELS] * 4


def wrong_at(*places: int) -> np.ndarray:
    logits = RIGHT.copy()
    logits[list(places)] = np.eye(3)[(LABELS[list(places)] + 1) % 3] * 3
    return logits


def test_recalls_and_what_changed_by_hand():
    logits = {"dense": wrong_at(0), "small": wrong_at(4, 5, 6)}
    found = class_harm(LABELS, ("a", "b", "c"), logits)
    own = rows(found, "dense to small")
    for side, name in (("before", "dense"), ("after", "small")):
        wanted = recall_score(LABELS, logits[name].argmax(1), average=None)
        assert [own[f"recall of {one}"][side] for one in "abc"] == pytest.approx(list(wanted))
    assert own["accuracy"]["change"] == pytest.approx(6 / 9 - 8 / 9)
    assert own["recall of b"]["against_mean"] == pytest.approx(-1 + 2 / 9)
    assert own["agreement"]["after"] == 5 / 9
    assert own["right before, wrong after"]["after"] == 3 / 9
    assert own["wrong before, right after"]["after"] == 1 / 9
    assert (own["accuracy where they differ"]["rows"], own["accuracy where they differ"]["after"]) == (4, 1 / 4)
    # Both rows of b got worse, as 3 of 9 did: one deal in twelve has both of them, two-sided 1/12 + none other so far.
    assert own["recall of b"]["p_corrected"] == pytest.approx(3 * 1 / 12, abs=0.02)
    assert own["recall of b"]["verdict"] == "could be chance"
    assert found.answer.startswith("dense to small: accuracy changes by −22.2 points, and no class is shown")


def test_a_class_that_loses_more_is_named():
    labels = np.repeat([0, 1, 2], 60)
    before, after = np.eye(3)[labels] * 5, np.eye(3)[labels] * 5
    after[120:150] = [5, 0, 0]
    after[[3, 70]] = [0, 0, 5]
    found = class_harm(labels, ("a", "b", "rare"), {"dense": before, "small": after})
    own = rows(found, "dense to small")
    assert own["recall of rare"]["verdict"] == "behind the mean" and own["recall of rare"]["p_corrected"] < 0.001
    assert own["recall of a"]["verdict"] == "ahead of the mean"
    assert own["recall of rare"]["change_low"] < -0.5 < own["recall of rare"]["change_high"] < -0.3
    assert "rare (−50.0) fared worse than that" in found.answer
    ranges, lines = found.chart.panels
    assert isinstance(ranges, RangePanel) and [one.strong for one in ranges.ranges] == [False, False, True]
    assert isinstance(lines, LinePanel) and [line.label for line in lines.lines][:2] == ["dense", "small"]


def test_permutations_are_those_of_dealing_rows_out():
    change = np.array([-1.0, -1, 0, 0, 0, 1])
    own = np.array([True, True, False, False, False, False])
    # Of the 15 pairs of rows only that of both losses sums to -2; the mean of a pair is -1/3, so 5/3 away: none above.
    assert permutation_p(change, own, 0) == pytest.approx(1 / 15, abs=0.005)
    assert permutation_p(np.zeros(6), own, 0) == 1


def test_calibration_error_and_brier_score():
    rng = np.random.default_rng(0)
    logits, labels = 2 * rng.standard_normal((400, 2)), rng.integers(2, size=400)
    found, chances = ClassAnswers.of(logits, labels), softmax(logits, axis=1)
    assert found.brier.mean() == pytest.approx(2 * brier_score_loss(labels, chances[:, 1]))
    wanted = 0.0
    for place in range(BINS):
        inside = (chances.max(1) > place / BINS) & (chances.max(1) <= (place + 1) / BINS)
        if inside.any():
            gap = abs(chances.max(1)[inside].mean() - (chances.argmax(1) == labels)[inside].mean())
            wanted += inside.mean() * gap
    assert found.calibration_error == pytest.approx(wanted)
    assert sum(count for *_, count in found.by_bin()) == 400
    # Certain and always right: nothing is off, and a confidence of 1 is in the last bin.
    sure = ClassAnswers(np.eye(2)[labels], labels)
    assert sure.calibration_error == 0 and sure.bins.max() == BINS - 1 and sure.brier.max() == 0


def test_resamples_are_paired_and_holm_is_step_down():
    labels = np.tile([0, 1], 100)
    same = ClassAnswers.of(np.eye(2)[labels], labels)
    drawn = resampled(same, same, 0)
    assert not drawn.accuracy.any() and not drawn.brier.any() and not drawn.calibration_error.any()
    worse = ClassAnswers.of(np.eye(2)[np.where(np.arange(200) < 40, 1 - labels, labels)], labels)
    drawn = resampled(same, worse, 0)
    # The sd of a mean of 200 rows of which a fifth is -1.
    assert drawn.accuracy.mean() == pytest.approx(-0.2, abs=0.005)
    assert drawn.accuracy.std() == pytest.approx((0.16 / 200) ** 0.5, rel=0.05)
    assert holm_corrected([0.04, 0.01, 0.03, 0.5]) == [0.09, 0.04, 0.09, 0.5]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`dense`, fine-tuned by its labels; `cut`, without a layer and heads; `three` for three classes; `base`; data."""
    home = tmp_path_factory.mktemp("models")
    write_task(home / "data")
    labels = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    tokenizer = load_tokenizer(save_tiny(home / "dense", **labels))
    model = load_model(home / "dense")
    keep = {"layer.0.heads": torch.tensor([True, False, True, False])}
    mask_model(model, keep)
    save_model(model, tokenizer, home / "masked")
    save_model(shrink(model, keep, [1]), tokenizer, home / "cut")
    save_tiny(home / "three", num_labels=3)
    save_tiny(home / "base", "base")
    return home


def answer(*arguments: object) -> dict[str, Any]:
    said = run_cli("study", *arguments, "--json")
    assert said.exit_code == 0, said.output
    return json.loads(said.stdout)


def test_features_of_saved_models_on_a_task_and_on_texts(home: Path, tmp_path: Path):
    custom = ["--task", "mine", "--data", home / "data"]
    found = answer("feature-similarity", home / "dense", home / "masked", home / "cut", *custom, "--examples", 20)
    assert found["settings"]["Texts"].startswith("20 of the mine validation rows")
    own = [row for row in found["rows"] if row["pair"] == "dense vs cut"]
    assert [row["layer"] for row in own] == ["embeddings", "layer 1", "layer 3"]
    masked = [row for row in found["rows"] if row["pair"] == "dense vs masked"]
    # The first layer's heads are gone in both, and nothing else so far.
    assert masked[1]["cka"] == pytest.approx(own[1]["cka"], abs=1e-5) and own[0]["cosine"] == pytest.approx(1)
    (tmp_path / "texts.txt").write_text("good w1 w2\n\nbad w3\nw4\n", encoding="utf-8")
    found = answer("feature-similarity", home / "dense", home / "base", "--texts", tmp_path / "texts.txt")
    assert found["settings"]["Texts"].startswith("3 texts of the file") and found["settings"]["Tokens"] == "12"


def test_classes_of_saved_models(home: Path):
    found = answer("class-harm", home / "dense", home / "cut", "--task", "mine", "--data", home / "data")
    own = {row["what"]: row for row in found["rows"]}
    assert own["recall of no"]["rows"] == own["recall of yes"]["rows"] == 20 and own["accuracy"]["rows"] == 40
    mean = (own["recall of no"]["after"] + own["recall of yes"]["after"]) / 2
    assert own["accuracy"]["after"] == pytest.approx(mean)
    assert "p_corrected" in own["recall of no"] and "p_corrected" not in own["ECE"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["class-harm", "dense"], ["asks about 2 checkpoints or more; got dense"]),
        (["class-harm", "dense", "base", "TASK"], ["base' is not fine-tuned for the task mine; got labels none"]),
        (["class-harm", "dense", "three", "TASK"], ["three' is not fine-tuned", "allowed: no, yes"]),
        (["class-harm", "dense", "cut", "TASK", "--kind", "regression"], ["tasks of one class a text; got mine"]),
        (["class-harm", "dense", "cut", "--task", "no-such-task"], ["Unknown task 'no-such-task'"]),
        (["class-harm", "dense", "cut", "TASK", "--examples", "1"], ["two examples or more; got 1"]),
        (["feature-similarity", "dense", "cut", "TASK", "--texts", "TEXTS"], ["Give --texts, or --task", "not both"]),
        (["feature-similarity", "dense", "cut", "--texts", "nowhere.csv"], ["The data file does not exist"]),
        (["feature-similarity", "dense", "cut", "--sparsity", "0.5"], ["takes no --sparsity"]),
    ],
)
def test_what_cannot_be_answered_is_one_line(arguments: list[str], words: list[str], home: Path, tmp_path: Path):
    (tmp_path / "texts.txt").write_text("good\n", encoding="utf-8")
    task = ["--task", "mine", "--data", home / "data"]
    if "regression" in arguments:
        task += ["--label-column", "score"]
    given: list[object] = []
    for one in arguments:
        given += task if one == "TASK" else [tmp_path / "texts.txt"] if one == "TEXTS" else [one]
    places = {"dense", "cut", "three", "base"}
    said = run_cli("study", *(home / one if one in places else one for one in given), "-o", tmp_path / "out")
    assert_refused(said, words)
    assert not (tmp_path / "out").exists()

"""Scores while a training goes on: which rows, the early end, the best model, and the same after an interruption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.recipe.finetune import BySize
from sparsebert.recipe.load import parse_recipe
from sparsebert.recipe.schema import Evaluate, Training, When
from sparsebert.records import read_record
from sparsebert.tasks.classification import CLASSIFICATION
from sparsebert.training.collate import Batch
from sparsebert.training.dropout import set_dropout
from sparsebert.training.evaluate import predict_logits
from sparsebert.training.finetune import FineTuned, fine_tune
from sparsebert.training.watch import Watch
from tiny import FAMILIES, tiny_model
from tiny_run import assert_refused, run_cli, save_tiny, write_task
from toy import toy_collate, toy_rows

TRAIN, HELD = toy_rows(32), toy_rows(12)
# What a model that learns gets wrong more and more.
WRONG = HELD.map(lambda row: {"label": 1 - row["label"]})
METRICS = ("accuracy", "f1")


def train(
    folder: Path, training: Training, *, evaluate: Evaluate, rows: Dataset = HELD, interrupt_at: int | None = None
) -> tuple[PreTrainedModel, FineTuned]:
    model = tiny_model("bert", num_labels=2, num_hidden_layers=2)
    seen = 0

    def collate(rows: Sequence[dict[str, Any]]) -> Batch:
        nonlocal seen
        seen += len(rows) == training.batch_size
        if seen == interrupt_at:
            raise KeyboardInterrupt
        return toy_collate(rows)

    watch = Watch(evaluate, rows, "held_out", CLASSIFICATION, ("no", "yes"), METRICS)
    return model, fine_tune(model, TRAIN, collate, training, folder, 0, "test", watch=watch)


def accuracy(model: PreTrainedModel, rows: Dataset) -> float:
    outputs = predict_logits(model, rows, toy_collate, kind=CLASSIFICATION)
    return float(np.mean(outputs.argmax(-1) == np.array(rows["label"])))


WILD = Training(max_steps=12, batch_size=8, learning_rate=5e-3, lr_schedule="constant_with_warmup", warmup=0.0)
EACH = When(steps=1)


def test_the_best_of_the_models_is_kept(tmp_path: Path):
    model, done = train(tmp_path / "best", WILD, evaluate=Evaluate(every=EACH), rows=WRONG)
    seen = [one.scores["accuracy"] for one in done.run.evaluations]
    assert [one.step for one in done.run.evaluations] == list(range(1, 13))
    assert len(set(seen)) > 1 and seen[-1] < max(seen)
    assert done.run.best_step == 1 + seen.index(max(seen))
    assert accuracy(model, WRONG) == pytest.approx(max(seen))
    last, kept = train(tmp_path / "last", WILD, evaluate=Evaluate(every=EACH, keep="last"), rows=WRONG)
    assert accuracy(last, WRONG) == pytest.approx(seen[-1]) and kept.run.best_step is None


def test_an_evaluation_says_the_loss_of_rows_that_are_not_trained_on(tmp_path: Path):
    model, done = train(tmp_path, WILD, evaluate=Evaluate(every=When(epochs=1), keep="last"))
    assert [one.step for one in done.run.evaluations] == [4, 8, 12]
    batch = toy_collate([HELD[row] for row in range(len(HELD))])
    with torch.no_grad():
        inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
        expected = nn.functional.cross_entropy(model(**inputs).logits, batch["labels"])
    last = done.run.evaluations[-1]
    assert last.loss == pytest.approx(float(expected), abs=1e-3) and last.split == "held_out"


def test_a_training_that_gains_nothing_more_ends(tmp_path: Path):
    still = Training(max_steps=12, batch_size=8, learning_rate=1e-12)
    _, done = train(tmp_path, still, evaluate=Evaluate(every=EACH, patience=2))
    # The first is the best, and two more are not better.
    assert (done.run.steps, done.run.best_step) == (3, 1)


def test_of_equally_good_models_the_one_with_the_smallest_loss_is_kept(tmp_path: Path):
    slow = Training(max_steps=6, batch_size=8, learning_rate=1e-5, lr_schedule="constant_with_warmup", warmup=0.0)
    first, _ = train(tmp_path / "first", slow.model_copy(update={"max_steps": 1}), evaluate=Evaluate(every=EACH))
    said = predict_logits(first, HELD, toy_collate, kind=CLASSIFICATION).argmax(-1)
    # All models get everything wrong, some a little less surely than the first.
    rows = HELD.remove_columns("label").add_column("label", (1 - said).tolist())
    _, done = train(tmp_path / "all", slow, evaluate=Evaluate(every=EACH), rows=rows)
    losses = [one.loss for one in done.run.evaluations if one.loss is not None]
    assert {one.scores["accuracy"] for one in done.run.evaluations} == {0.0} and len(losses) == 6
    best = done.run.best_step
    assert best is not None and best == 1 + losses.index(min(losses)) > 1


@pytest.mark.parametrize("interrupt_at", [3, 7, 12])
def test_an_interrupted_training_ends_as_if_it_had_not_been(tmp_path: Path, interrupt_at: int):
    evaluate = Evaluate(every=When(steps=2), patience=3)
    expected, whole = train(tmp_path / "whole", WILD, evaluate=evaluate)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", WILD, evaluate=evaluate, interrupt_at=min(interrupt_at, whole.run.steps))
    got, parts = train(tmp_path / "parts", WILD, evaluate=evaluate)
    assert parts.run.evaluations == whole.run.evaluations and parts.run.best_step == whole.run.best_step
    assert all(torch.equal(a, b) for a, b in zip(expected.parameters(), got.parameters(), strict=True))


def test_one_that_was_killed_after_its_early_end_does_not_go_on(tmp_path: Path):
    still = Training(max_steps=12, batch_size=8, learning_rate=1e-12)
    train(tmp_path, still, evaluate=Evaluate(every=EACH, patience=2))
    _, again = train(tmp_path, still, evaluate=Evaluate(every=EACH, patience=2))
    assert again.run.steps == 3


def test_a_training_whose_folder_has_moved_still_ends_with_the_best_model(tmp_path: Path):
    train(tmp_path / "old", WILD, evaluate=Evaluate(every=EACH), rows=WRONG)
    (tmp_path / "old").rename(tmp_path / "new")
    model, done = train(tmp_path / "new", WILD, evaluate=Evaluate(every=EACH), rows=WRONG)
    assert accuracy(model, WRONG) == pytest.approx(max(one.scores["accuracy"] for one in done.run.evaluations))


def test_checkpoints_come_as_often_as_the_recipe_says(tmp_path: Path):
    often = WILD.model_copy(update={"save_steps": 3})
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, often, evaluate=Evaluate(every=When(steps=10)), interrupt_at=8)
    assert [place.name for place in tmp_path.glob("checkpoint-*")] == ["checkpoint-6"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rate_of_dropout_is_that_of_every_dropout(family: str):
    model = tiny_model(family, num_labels=2, attention_dropout=0.1)
    set_dropout(model, 0.3)
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    given = [vars(module)["attention_dropout"] for module in model.modules() if "attention_dropout" in vars(module)]
    assert {*rates, *given} == {0.3}


@pytest.mark.parametrize(("rows", "epochs"), [(5000, 10), (5001, 6), (20_001, 3), (80_001, 2)])
def test_small_tasks_are_passed_over_more_often(rows: int, epochs: float):
    assert BySize().of_rows(rows).epochs == epochs
    assert BySize(epochs=1.5).of_rows(rows).epochs == 1.5


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watch")
    save_tiny(folder / "model")
    write_task(folder / "data")
    return folder


def arguments(home: Path, *more: object) -> tuple[object, ...]:
    quick = ("--set", "training.max_steps=6", "--set", "measure.timed=false")
    return ("finetune", home / "model", "--task", "mine", "--data", home / "data", *quick, *more)


def test_a_run_holds_train_rows_out_for_its_training(home: Path):
    said = run_cli(*arguments(home, "-o", home / "default"))
    assert said.exit_code == 0, said.output
    [model] = read_record(home / "default").models
    assert model.training is not None
    # 64 rows, of which a tenth of each class is held out.
    assert model.training.examples == 58
    assert {one.split for one in model.training.evaluations} == {"held_out_of_training"}
    assert {score.split for score in model.scores} == {"validation"}


def test_a_recipe_can_leave_the_validation_split_alone(home: Path):
    said = run_cli(*arguments(home, "-o", home / "held", "--set", "hold_out=0.25"))
    assert said.exit_code == 0, said.output
    record = read_record(home / "held")
    assert {(score.split, score.examples) for score in record.models[0].scores} == {("held_out", 16)}
    assert record.inputs is not None and {*record.inputs.data} == {"train", "held_out"}
    assert any("not of the validation split" in note for note in record.notes)


def test_train_rows_are_scored_where_that_is_asked_for(home: Path):
    said = run_cli(*arguments(home, "-o", home / "train", "--set", "score_train=true"))
    assert said.exit_code == 0, said.output
    scores = {score.metric: score for score in read_record(home / "train").models[0].scores if score.split == "train"}
    assert {*scores} == {"accuracy", "matthews", "loss"} and scores["loss"].examples == 64
    assert 0.1 < scores["loss"].value < 2
    [model] = read_record(home / "train").models
    told = run_cli("info", home / "train" / model.folder).stdout
    assert f"loss {scores['loss'].value:.3f} on 64 examples of train" in told


@pytest.mark.parametrize(
    ("text", "who"),
    [
        ("{targets: [{kind: speedup, value: 2}], finetune: {evaluate: {}}}", "finetune is scored .* dense is trained"),
        ("{phases: [{name: a}, {name: b, training: {evaluate: {}}}]}", "phase 'b' is scored .* phase 'a' is trained"),
    ],
)
def test_rows_that_the_run_trains_on_are_not_held_out(text: str, who: str):
    with pytest.raises(UserError, match=f"{who} on; give both the same"):
        parse_recipe(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("hold_out=1", ["hold_out", "less than 0.9"]),
        ("training.dropout=1", ["training.dropout", "less than 1"]),
        ("training.evaluate.patience=0", ["patience", "greater than or equal to 1"]),
        ("training.evaluate.split=test", ["split", "held_out", "validation"]),
    ],
)
def test_what_cannot_be_is_refused(home: Path, setting: str, expected: list[str]):
    assert_refused(run_cli(*arguments(home, "-o", home / "none", "--set", setting)), expected)
    assert not (home / "none").exists()

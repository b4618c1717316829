"""Training: it learns, it stops at a loss that is no number, and an interrupted run ends where a whole one does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from sparsebert.errors import DivergedError, UserError
from sparsebert.recipe.schema import Distill, Training
from sparsebert.records import TrainingRun
from sparsebert.training.collate import Batch, Collator, EpochOrder, batches_by_length, padding_collator
from sparsebert.training.distill import Distiller
from sparsebert.training.evaluate import predict_logits
from sparsebert.training.finetune import fine_tune
from sparsebert.training.teacher import cache_teacher
from tiny import FAMILIES, tiny_model
from toy import toy_collate, toy_rows

ROWS = toy_rows(32)
# 4 steps an epoch, so the end is in the middle of the second; dropout is on, so that random numbers matter.
SHORT = Training(max_steps=7, batch_size=8, save_steps=2, learning_rate=1e-3)


@pytest.fixture(autouse=True)
def no_bars() -> Iterator[None]:
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


class Interrupting:
    """A collator that raises KeyboardInterrupt in place of its n-th batch, and remembers the rows it was asked for."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.seen: list[list[int]] = []

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Batch:
        if len(self.seen) + 1 == self.at:
            raise KeyboardInterrupt
        self.seen.append([row["row"] for row in rows])
        return toy_collate(rows)


def small() -> PreTrainedModel:
    return tiny_model("bert", num_labels=2, num_hidden_layers=2)


def train(
    model: PreTrainedModel,
    folder: Path,
    training: Training = SHORT,
    collate: Collator = toy_collate,
    distiller: Distiller | None = None,
) -> TrainingRun:
    return fine_tune(model, ROWS, collate, training, folder, 0, "test", distiller=distiller).run


@dataclass(frozen=True)
class Whole:
    """A run that nobody interrupted."""

    model: PreTrainedModel
    run: TrainingRun
    folder: Path
    batches: list[list[int]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    model, rows, folder = small(), Interrupting(), tmp_path_factory.mktemp("whole")
    return Whole(model, train(model, folder, collate=rows), folder, rows.seen)


def same(left: PreTrainedModel, right: PreTrainedModel) -> bool:
    others = right.state_dict()
    return all(torch.equal(value, others[name]) for name, value in left.state_dict().items())


def accuracy(model: PreTrainedModel) -> float:
    logits = predict_logits(model, ROWS, toy_collate)
    return float((logits.argmax(axis=1) == list(ROWS["label"])).mean())


def test_a_separable_task_is_learnt(tmp_path: Path):
    model = small()
    assert accuracy(model) < 0.8
    run = train(model, tmp_path, Training(epochs=10, batch_size=8, save_steps=20, learning_rate=5e-3))
    assert accuracy(model) > 0.95
    assert (run.steps, run.epochs, run.examples, run.teacher) == (40, 10.0, 32, False)
    assert run.final_loss is not None and run.final_loss < 0.3
    assert not model.training


def test_the_teachers_word_is_learnt_without_labels(tmp_path: Path):
    teacher, model = tiny_model("bert", num_labels=2, seed=1, num_hidden_layers=2), small()
    cache = cache_teacher(teacher, ROWS, toy_collate, tmp_path / "teacher", hidden=True)
    distiller = Distiller(cache, Distill(labels=0, logits=1, hidden=1), (0, 1))
    expected = predict_logits(teacher, ROWS, toy_collate)
    before = abs(predict_logits(model, ROWS, toy_collate) - expected).mean()
    training = Training(epochs=5, batch_size=8, save_steps=20, learning_rate=5e-3)
    assert train(model, tmp_path / "run", training, distiller=distiller).teacher
    assert abs(predict_logits(model, ROWS, toy_collate) - expected).mean() < 0.7 * before


@pytest.mark.parametrize("checkpointing", [False, True])
def test_where_the_teacher_looks_is_learnt_from_its_maps_alone(checkpointing: bool, tmp_path: Path):
    teacher, model = tiny_model("bert", num_labels=2, seed=1, num_hidden_layers=2), small()
    if checkpointing:
        model.activation_checkpointing_enable()
    cache = cache_teacher(teacher, ROWS, toy_collate, tmp_path / "teacher", hidden=False)
    distiller = Distiller(cache, Distill(labels=0, logits=0, hidden=0, attention=1), (0, 1), teacher)
    before = maps_apart(model, teacher)
    train(model, tmp_path / "run", Training(epochs=5, batch_size=8, learning_rate=5e-3), distiller=distiller)
    assert maps_apart(model, teacher) < 0.8 * before


def maps_apart(*models: PreTrainedModel) -> float:
    batch = toy_collate([ROWS[row] for row in range(8)])
    maps = []
    for model in models:
        with torch.no_grad():
            model.set_attn_implementation("eager")
            output = model(batch["input_ids"], batch["attention_mask"], output_attentions=True)
            maps.append(torch.stack(output.attentions))
            model.set_attn_implementation("sdpa")
    return float((maps[0] - maps[1]).abs().mean())


def test_a_loss_that_is_no_number_ends_the_run_with_its_step(tmp_path: Path):
    model = small()

    def poisoned(rows: Sequence[dict[str, Any]]) -> Batch:
        asked.append(len(rows))
        if len(asked) == 4:
            model.get_parameter("classifier.bias").data.fill_(torch.nan)
        return toy_collate(rows)

    asked: list[int] = []
    with pytest.raises(DivergedError, match="loss became nan at step 3; lower the learning rate") as raised:
        train(model, tmp_path, collate=poisoned)
    assert raised.value.step == 3
    assert all(parameter.requires_grad for parameter in model.parameters())


# One batch is read ahead, so the n-th is asked for in step n - 1; an epoch has 4.
@pytest.mark.parametrize(("at", "checkpoint"), [(4, 2), (7, 4), (8, 6)])
def test_an_interrupted_run_ends_where_a_whole_one_does(tmp_path: Path, whole: Whole, at: int, checkpoint: int):
    other = small()
    with pytest.raises(KeyboardInterrupt):
        train(other, tmp_path, collate=Interrupting(at))
    assert [path.name for path in tmp_path.iterdir()] == [f"checkpoint-{checkpoint}"]
    assert not same(whole.model, other)

    resumed, rest = small(), Interrupting()
    found = train(resumed, tmp_path, collate=rest)
    assert same(whole.model, resumed)
    assert rest.seen == whole.batches[checkpoint:]
    assert found.model_copy(update={"seconds": 0.0}) == whole.run.model_copy(update={"seconds": 0.0})


def test_a_finished_run_is_only_read_back(whole: Whole):
    again, rows = small(), Interrupting()
    found = train(again, whole.folder, collate=rows)
    assert same(whole.model, again)
    assert found.model_copy(update={"seconds": 0.0}) == whole.run.model_copy(update={"seconds": 0.0})
    assert (found.steps, found.epochs) == (7, 1.75)
    assert rows.seen == []
    assert [path.name for path in whole.folder.iterdir()] == ["checkpoint-7"]


def test_half_written_checkpoints_are_removed_and_passed_over(tmp_path: Path, whole: Whole):
    with pytest.raises(KeyboardInterrupt):
        train(small(), tmp_path, collate=Interrupting(4))
    good = tmp_path / "checkpoint-2"
    for step, left in ((3, ""), (4, '{"epoch": 1.0, "glob'), (5, None)):
        broken = tmp_path / f"checkpoint-{step}"
        shutil.copytree(good, broken)
        (broken / "model.safetensors").write_bytes(b"half")
        if left is None:
            (broken / "trainer_state.json").unlink()
        else:
            (broken / "trainer_state.json").write_text(left)
    resumed, rest = small(), Interrupting()
    train(resumed, tmp_path, collate=rest)
    assert same(whole.model, resumed)
    assert rest.seen == whole.batches[2:]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-7"]


def test_frozen_embeddings_stay_bit_for_bit(tmp_path: Path):
    before, model = small(), small()
    train(model, tmp_path, SHORT.model_copy(update={"freeze_embeddings": True, "max_steps": 2}))
    frozen = [f"bert.embeddings.{name}_embeddings.weight" for name in ("word", "position", "token_type")]
    assert all(torch.equal(model.get_parameter(name), before.get_parameter(name)) for name in frozen)
    moved = "bert.encoder.layer.0.output.dense.weight"
    assert not torch.equal(model.get_parameter(moved), before.get_parameter(moved))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_embeddings_learn_unless_they_are_frozen(whole: Whole):
    name = "bert.embeddings.word_embeddings.weight"
    assert not torch.equal(whole.model.get_parameter(name), small().get_parameter(name))


def test_the_seed_decides_the_order(whole: Whole):
    rows = [row for batch in whole.batches[:4] for row in batch]
    assert rows == list(EpochOrder(ROWS["length"], 8, seed=0)) != list(EpochOrder(ROWS["length"], 8, seed=1))


def test_an_epoch_holds_every_row_once_in_an_order_of_its_own():
    order = EpochOrder(ROWS["length"], 8, seed=0)
    first = list(order)
    torch.rand(5)
    assert list(order) == first and len(order) == 32
    order.set_epoch(1)
    assert list(order) != first
    assert sorted(order) == sorted(first) == list(range(32))


def test_batches_of_an_epoch_hold_texts_of_like_length():
    lengths = [length for length in range(1, 65) for _ in range(4)]
    order = list(EpochOrder(lengths, 8, seed=0))
    spreads = [
        max(batch) - min(batch) for i in range(1, 32) if (batch := [lengths[r] for r in order[8 * i : 8 * i + 8]])
    ]
    assert sum(spreads) / len(spreads) < 20


def test_a_tokenizer_without_a_padding_token_is_refused():
    plain = Tokenizer(models.WordLevel({"[UNK]": 0, "good": 1}, unk_token="[UNK]"))
    with pytest.raises(UserError, match="has no padding token"):
        padding_collator(PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]"))


def test_batches_by_length_rise_and_hold_every_row():
    found = list(batches_by_length(ROWS, toy_collate, 5))
    rows = [row for batch, _ in found for row in batch]
    lengths = [ROWS[row]["length"] for row in rows]
    assert sorted(rows) == list(range(32)) and lengths == sorted(lengths)
    assert [len(batch) for batch, _ in found] == [5] * 6 + [2]
    assert all(batch["rows"].tolist() == numbers for numbers, batch in found)


def test_predicted_logits_are_in_the_order_of_the_rows():
    model = small().train()
    found = predict_logits(model, ROWS, toy_collate, batch_size=5)
    assert model.training
    for row in (0, 13, 31):
        batch = toy_collate([ROWS[row]])
        with torch.no_grad():
            expected = model.eval()(batch["input_ids"], batch["attention_mask"]).logits[0].numpy()
        assert found[row] == pytest.approx(expected, abs=1e-5)


RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "dropout", "attention_dropout")
OTHER_RATES = ("embedding_dropout", "mlp_dropout", "seq_classif_dropout", "pooler_dropout", "cls_dropout")


@pytest.mark.parametrize("family", FAMILIES)
def test_without_dropout_the_first_loss_is_that_of_evaluation(
    tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sparsebert.training.finetune.supports_bf16_training", lambda: False)
    every = dict.fromkeys((*RATES, *OTHER_RATES), 0.5)
    model = tiny_model(family, num_labels=2, **every)
    batch = toy_collate([ROWS[row] for row in range(32)])
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "labels")}
    with torch.no_grad():
        expected, noisy = float(model(**inputs).loss), float(model.train()(**inputs).loss)
    assert abs(noisy - expected) > 0.01
    run = train(model.eval(), tmp_path, Training(max_steps=1, batch_size=32, save_steps=1, dropout=0))
    assert run.final_loss == pytest.approx(expected, rel=1e-4)
    with torch.no_grad():
        torch.manual_seed(0)
        model.train()
        assert not torch.equal(model(**inputs).logits, model(**inputs).logits)


def test_a_model_trained_in_bf16_is_float32_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sparsebert.training.finetune.supports_bf16_training", lambda: True)
    model, plain = tiny_model("bert", num_labels=2), tiny_model("bert", num_labels=2)
    run = train(model, tmp_path, Training(max_steps=2, batch_size=8, save_steps=2))
    assert run.dtype == "bfloat16 autocast" and "forward" not in vars(model)
    plain.load_state_dict(model.state_dict())
    batch = toy_collate([ROWS[row] for row in range(4)])
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        assert torch.equal(model.eval()(**inputs).logits, plain.eval()(**inputs).logits)

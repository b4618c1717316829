"""Zeros of a model that is sparse already, and that no mask holds: with `hold_zeros` they stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from sparsebert.recipe.schema import Training
from sparsebert.training.finetune import fine_tune
from sparsebert.training.trainer import SparseTrainer
from test_trainer_script import QUERY, ROWS, arguments, collate, leaks, rule, small
from toy import toy_collate


class Watching(TrainerCallback):
    """Looks after every step whether what was zero still is."""

    def __init__(self, gone: dict[str, torch.Tensor]) -> None:
        self._gone = gone

    def on_step_end(self, args, state, control, model=None, **kwargs):
        """At every step."""
        assert all(int(model.get_parameter(name)[zero].count_nonzero()) == 0 for name, zero in self._gone.items())


@pytest.mark.parametrize("kind", ["alone", "with a rule", "with held masks"])
def test_zeros_of_a_sparse_model_are_held_through_training_with_decay(kind: str, tmp_path: Path):
    model, key, few = small(), QUERY.replace("query", "key"), "bert.encoder.layer.1.output.dense.weight"
    word = "bert.embeddings.word_embeddings.weight"
    torch.manual_seed(0)
    zeros = {name: torch.rand(model.get_parameter(name).shape) < share for name, share in ((QUERY, 0.5), (key, 0.05))}
    zeros |= {word: torch.rand(model.get_parameter(word).shape) < 0.5}
    for name, gone in zeros.items():
        model.get_parameter(name).data[gone] = 0.0
    model.get_parameter(few).data[0, 0] = 0.0
    held = {QUERY: torch.arange(32).expand(32, 32) > 3} if kind == "with held masks" else None
    if held:
        model.get_parameter(QUERY).data.mul_(held[QUERY])
    rules = [rule(scope=["attention"], initial=0.5, sparsity=0.8)] if kind == "with a rule" else []
    more = {"train_dataset": ROWS, "data_collator": collate, "rules": rules, "held": held}
    one = SparseTrainer(model, arguments(tmp_path, weight_decay=0.1), hold_zeros=True, **more)
    gone = {name: model.get_parameter(name) == 0 for name in (QUERY, key)}
    one.add_callback(Watching(gone))
    one.train()
    assert leaks(model, one.masks) == 0 and {QUERY, key} <= one.masks.keys()
    assert all(not bool(one.masks[name][zero].any()) for name, zero in gone.items())
    assert few not in one.masks and model.get_parameter(few)[0, 0] != 0
    assert word not in one.masks and bool((model.get_parameter(word)[zeros[word]] != 0).any())
    one.train()
    assert all(int(model.get_parameter(name)[zero].count_nonzero()) == 0 for name, zero in gone.items())


def test_a_dense_model_has_no_zeros_to_hold(tmp_path: Path):
    more = {"train_dataset": ROWS, "data_collator": collate, "hold_zeros": True}
    one = SparseTrainer(small(), arguments(tmp_path, save_strategy="steps", save_steps=5), **more)
    one.train()
    assert one.masks == {} and one.left_dense == () and not list(tmp_path.glob("*/sparsity.safetensors"))


@pytest.mark.parametrize("hold", [False, True])
def test_fine_tuning_in_one_call_holds_them_only_if_asked(hold: bool, tmp_path: Path):
    model, training = small(), Training(max_steps=4, batch_size=8, save_steps=2)
    model.get_parameter(QUERY).data[:16] = 0.0
    done = fine_tune(model, ROWS, toy_collate, training, tmp_path, 0, "test", hold_zeros=hold)
    assert done.masks.keys() == ({QUERY} if hold else set())
    assert bool((model.get_parameter(QUERY)[:16] == 0).all()) is hold

    again = small()
    again.get_parameter(QUERY).data[:16] = 0.0
    fine_tune(again, ROWS, toy_collate, training, tmp_path, 0, "test", hold_zeros=hold)
    assert torch.equal(again.get_parameter(QUERY), model.get_parameter(QUERY))

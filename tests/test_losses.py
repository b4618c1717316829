"""The terms of the training loss: what each adds, what it asks for, and what it weighs under accumulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import SequentialSampler

from sparsebert.fast_feedforward.layer import FastFeedForward, Routing
from sparsebert.training.losses import ForwardPass, LossTerm, RoutingPenalty, TaskLoss, TeacherLoss, total_loss
from sparsebert.training.trainer import SparseTrainer
from test_trainer_script import QUERY, ROWS, arguments, collate, rule, small, teacher_of
from toy import toy_collate


class Constant(LossTerm):
    """A term of one value, or none."""

    def __init__(self, value: float | None) -> None:
        self._value = value

    def value(self, forward: ForwardPass) -> torch.Tensor | None:
        """That value."""
        return None if self._value is None else torch.tensor(self._value)


def forward_of(loss: float, summed: int = 1) -> ForwardPass:
    return ForwardPass({}, None, torch.tensor(loss), step=0, summed=summed)


def test_terms_without_a_value_add_nothing():
    assert float(total_loss([TaskLoss(), Constant(None), Constant(0.5)], forward_of(2.0))) == 2.5
    assert float(total_loss([TaskLoss()], forward_of(2.0))) == 2.0


def test_a_routing_penalty_is_of_real_tokens_and_shared_by_summed_micro_batches():
    layer = FastFeedForward(4, depth=1, routing=Routing(balance=1.0)).eval()
    term, x = RoutingPenalty(layer), torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    values = []
    for tokens, mask in ((x, torch.tensor([[1, 1, 1, 1, 0, 0]])), (x[:4], None)):
        with term.watching({} if mask is None else {"attention_mask": mask}):
            assert layer.training
            layer(tokens)
        values += [float(term.value(forward_of(0.0, summed)).detach()) for summed in (1, 4)]
    assert values[0] == pytest.approx(values[2]) and values[0] > 0
    assert values[1] == pytest.approx(values[0] / 4) and values[3] == pytest.approx(values[2] / 4)


def test_a_teachers_loss_takes_the_place_of_the_task_loss(tmp_path: Path):
    model, term = small(), TeacherLoss(teacher_of(tmp_path), small())
    assert (term.arguments, term.columns) == ({}, ("row",))
    one = SparseTrainer(
        model, arguments(tmp_path), distiller=teacher_of(tmp_path), train_dataset=ROWS, data_collator=toy_collate
    )
    assert [type(term).__name__ for term in one.loss_terms] == ["TeacherLoss", "SparsityPenalty"]
    plain = SparseTrainer(small(), arguments(tmp_path), train_dataset=ROWS, data_collator=collate)
    assert [type(term).__name__ for term in plain.loss_terms] == ["TaskLoss", "SparsityPenalty"]


def test_a_penalty_weighs_the_same_beside_a_loss_of_ones_own(tmp_path: Path):
    def by_items(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch

    def moved(batch: int) -> torch.Tensor:
        values = {"optim": "sgd", "max_steps": 1, "learning_rate": 1.0, "max_grad_norm": 0.0}
        parts = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 8 // batch}
        model, l1 = small(), rule(penalty={"kind": "l1", "weight": 0.5}, sparsity=0.0, stop={"percent": 100})
        given = {"train_dataset": ROWS, "data_collator": collate, "rules": [l1], "order": SequentialSampler(ROWS)}
        own = arguments(tmp_path, **values, **parts)
        SparseTrainer(model, own, compute_loss_func=by_items, dropout=0, **given).train()
        return model.get_parameter(QUERY).detach()

    whole = moved(8)
    assert (whole - small().get_parameter(QUERY)).abs().mean() > 0.4
    torch.testing.assert_close(moved(2), whole, rtol=1e-3, atol=1e-5)

"""Learning rates over one cycle: values by hand, and the schedule that a recipe's word leads to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from sparsebert.errors import UserError
from sparsebert.recipe.load import parse_recipe
from sparsebert.recipe.schema import Training
from sparsebert.training.finetune import fine_tune
from sparsebert.training.rates import CYCLES, triangular
from tiny import tiny_model
from toy import toy_collate, toy_rows


def optimizer(*rates: float) -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups)


def rates_of(schedule: torch.optim.lr_scheduler.LRScheduler, steps: int) -> list[list[float]]:
    found = []
    for _ in range(steps):
        found.append(schedule.get_last_lr())
        schedule.optimizer.step()
        schedule.step()
    return found


def test_a_triangle_by_hand():
    """A quarter, then in 6 of 8 steps to the whole rate, then in 2 to zero; each group at its own rate."""
    found = rates_of(triangular(optimizer(0.8, 8.0), 6, 8), 9)
    by_hand = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.4, 0.0]
    assert [one for one, _ in found] == pytest.approx(by_hand)
    assert [other for _, other in found] == pytest.approx([10 * rate for rate in by_hand])


@pytest.mark.parametrize(("warmup", "by_hand"), [(0, [1.0, 0.75, 0.5, 0.25, 0.0]), (4, [0.25, 0.4375, 0.625, 0.8125])])
def test_a_triangle_without_one_of_its_sides(warmup: int, by_hand: list[float]):
    found = rates_of(triangular(optimizer(1.0), warmup, 4), len(by_hand))
    assert [one for [one] in found] == pytest.approx(by_hand)


class Rates(TrainerCallback):
    """The rate of each step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        """Before the optimiser moves."""
        self.seen.append(kwargs["optimizer"].param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("triangular", [0.25, 0.5, 0.75, 1.0, 2 / 3, 1 / 3]),
        # torch's own: from a 25th in half a cosine to the whole, and in half a cosine to zero.
        ("one_cycle", [0.04, 0.52, 1.0, 0.8535, 0.5, 0.1465]),
    ],
)
def test_the_word_of_a_recipe_is_what_the_trainer_does(name: str, by_hand: list[float], tmp_path: Path):
    rates = Rates()
    training = Training.model_validate(
        {"max_steps": 6, "batch_size": 8, "learning_rate": 1e-3, "warmup": 0.5, "lr_schedule": name}
    )
    model = tiny_model("bert", num_labels=2)
    fine_tune(model, toy_rows(16), toy_collate, training, tmp_path, 0, "test", callbacks=[rates])
    assert rates.seen == pytest.approx([1e-3 * share for share in by_hand], rel=1e-3)


def test_every_cycle_is_a_word_of_recipes_and_no_other_word_is():
    for name in CYCLES:
        parse_recipe({"task": "sst2", "dense": {"lr_schedule": name}})
    with pytest.raises(UserError, match="'one_cycle' or 'triangular', got triangel"):
        parse_recipe({"task": "sst2", "dense": {"lr_schedule": "triangel"}})

"""The contract that every registered criterion keeps, and what each one's score is."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.groups import Group
from sparsebert.models.layout import layout_of
from sparsebert.pruning.calibration import calibrate
from sparsebert.pruning.criteria import (
    Scored,
    UnitCriterion,
    activation_score,
    gradient_score,
    loss_increase_score,
    magnitude_score,
    random_score,
)
from sparsebert.pruning.statistics import CalibrationStatistics
from tiny import tiny_model
from toy import samples, statistics_of, toy_collate, toy_rows

NAMES = registry.names("unit_criterion")
SCORED = [name for name in NAMES if isinstance(registry.get("unit_criterion", name), Scored)]


def test_the_contract_covers_every_criterion():
    assert len(NAMES) == 6
    assert set(NAMES) - set(SCORED) == {"obs"}


def tensors(statistics: CalibrationStatistics) -> dict[str, torch.Tensor]:
    return {name: value for name, value in vars(statistics).items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str, width: int):
    criterion: UnitCriterion = registry.get("unit_criterion", name)
    statistics = statistics_of(samples(20, width, 4), width, seed=4)
    before = {key: value.clone() for key, value in tensors(statistics).items()}
    counts = [20, 13, 12, 1, 0]
    found, again = criterion.candidates(statistics, counts), criterion.candidates(statistics, counts)

    assert [len(one.units) for one in found] == counts
    assert all(torch.equal(value, before[key]) for key, value in tensors(statistics).items())
    for one, other in zip(found, again, strict=True):
        assert torch.equal(one.units, other.units) and torch.equal(one.weight, other.weight)
        assert torch.equal(one.bias_shift, other.bias_shift) and one.error == other.error
    for one in found:
        assert torch.equal(one.units, one.units.unique())
        assert one.weight.shape == (5, len(one.units) * width) and one.weight.dtype == torch.float32
        assert one.bias_shift.shape == (5,) and one.bias_shift.dtype == torch.float32
        assert one.error >= 0
    for more, fewer in pairwise(found):
        assert set(fewer.units.tolist()) < set(more.units.tolist())
    assert torch.equal(found[0].weight, statistics.weight.float()) and not found[0].bias_shift.any()
    assert found[0].error == 0 < found[-1].error


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("name", SCORED)
def test_the_highest_scores_are_kept(name: str, width: int):
    criterion: Scored = registry.get("unit_criterion", name)
    statistics = statistics_of(samples(12, width, 6), width, seed=6)
    scores = criterion.score(statistics)
    assert scores.shape == (12,) and len(scores.unique()) == 12
    kept = criterion.candidates(statistics, [5])[0].units
    gone = torch.tensor(sorted(set(range(12)) - set(kept.tolist())))
    assert scores[kept].min() > scores[gone].max()


def test_magnitude_by_hand():
    statistics = replace(
        statistics_of(samples(2, 2, 0), 2, d=2),
        weight=torch.tensor([[3.0, 0.0, 1.0, 1.0], [0.0, 4.0, 1.0, 1.0]]),
        input_norm=torch.tensor([5.0, 8.0]),
    )
    assert magnitude_score(statistics).tolist() == pytest.approx([5.0, 4.0])


def test_activation_by_hand():
    statistics = replace(
        statistics_of(samples(2, 2, 0), 2, d=2),
        weight=torch.tensor([[3.0, 0.0, 1.0, 0.0], [4.0, 2.0, 0.0, 1.0]]),
        activation=torch.tensor([1.0, 10.0, 2.0, 3.0]),
    )
    assert activation_score(statistics).tolist() == pytest.approx([5.0 + 20.0, 2.0 + 3.0])


def test_gradient_is_the_gathered_taylor_term():
    statistics = statistics_of(samples(4, 1, 0), 1)
    assert torch.equal(gradient_score(statistics), statistics.taylor)


def test_random_is_decided_by_seed_and_name_in_every_process():
    # From zlib.crc32(b"3:layer.0.neurons") = 184499697; Python's own hash of a string differs between processes.
    statistics = statistics_of(samples(3, 1, 0), 1)
    generator = torch.Generator().manual_seed(184499697)
    assert random_score(statistics).tolist() == torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    assert not torch.equal(random_score(statistics), random_score(replace(statistics, name="layer.1.neurons")))
    assert not torch.equal(random_score(statistics), random_score(replace(statistics, seed=4)))


def test_loss_increase_of_few_units_is_the_rise_itself():
    rises = [0.5, -0.25, 3.0, 0.125]
    statistics = replace(statistics_of(samples(4, 2, 0), 2), loss_rise=lambda gone: sum(rises[unit] for unit in gone))
    assert loss_increase_score(statistics).tolist() == rises


def test_loss_increase_of_many_units_shares_the_rise_of_a_chunk():
    # 32 units in 16 chunks of 2 by activation score; each rise of 10 is shared in proportion to it.
    hint = torch.arange(1.0, 33.0, dtype=torch.float64)
    asked: list[list[int]] = []

    def rise(gone) -> float:
        asked.append(sorted(gone))
        return 10.0

    statistics = replace(
        statistics_of(samples(32, 1, 0), 1, d=1),
        weight=torch.ones(1, 32, dtype=torch.float64),
        activation=hint,
        loss_rise=rise,
    )
    scores = loss_increase_score(statistics)
    assert asked == [[unit, unit + 1] for unit in range(0, 32, 2)]
    assert scores[:4].tolist() == pytest.approx([10 / 1.5, 20 / 1.5, 30 / 3.5, 40 / 3.5])


def test_loss_increase_without_a_loss_says_what_is_missing():
    with pytest.raises(UserError, match="'loss_increase' needs the training loss"):
        loss_increase_score(replace(statistics_of(samples(4, 1, 0), 1), loss_rise=None))


def test_an_unknown_criterion_lists_the_known_ones():
    with pytest.raises(UserError, match=r"Unknown unit criterion 'magnitud'.*random.*Did you mean 'magnitude'\?"):
        registry.get("unit_criterion", "magnitud")


def loss_without(model: torch.nn.Module, group: Group, unit: int | None, batch: dict[str, torch.Tensor]) -> float:
    """Mean cross-entropy with a unit's inputs to the output projection at zero."""

    def silence(module: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        x = args[0].clone()
        if unit is not None:
            x[..., unit * group.output.width : (unit + 1) * group.output.width] = 0
        return (x,)

    handle = model.get_submodule(group.module).register_forward_pre_hook(silence)
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    handle.remove()
    return float(torch.nn.functional.cross_entropy(logits, batch["labels"]))


def test_calibration_measures_the_rise_of_the_loss():
    model, rows = tiny_model("bert", num_labels=2), toy_rows(16)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    found = calibrate(model, model, rows, toy_collate, "loss_increase", 16, 8, seed=0)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    batch = toy_collate([rows[index] for index in range(16)])
    for layer in layout_of(model).layers:
        group = layer.groups["head"]
        before = loss_without(model, group, None, batch)
        rises = [loss_without(model, group, unit, batch) - before for unit in range(group.units)]
        for count, option in found.candidates[group.name].items():
            assert option.units.tolist() == sorted(np.argsort(rises)[::-1][:count].tolist())

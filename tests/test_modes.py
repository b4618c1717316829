"""Evaluation mode for a while: what was asleep stays so."""

from __future__ import annotations

import pytest
from torch import nn

from sparsebert.modes import evaluating


def mixed() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Sequential(nn.Dropout())).train()
    model[1].eval()
    return model


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def test_each_module_gets_its_own_mode_back():
    model = mixed()
    with evaluating(model):
        assert not any(modes(model))
    assert modes(model) == [True, True, False, True, True]


def test_also_after_a_failure():
    model = mixed()

    def fails() -> None:
        with evaluating(model):
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert modes(model) == [True, True, False, True, True]

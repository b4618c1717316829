"""How far rounding each matrix alone moves a model's answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sparsebert.runtimes.sensitivity import round_activations, round_weights, sensitivities


def test_activations_lie_on_256_steps_of_which_one_is_zero():
    """From -1 to 4 a step is 5 / 255; zero is the 51st."""
    values = torch.tensor([-1.0, 0.0, 0.012, 1.0, 4.0])
    step = 5 / 255
    torch.testing.assert_close(round_activations(values), torch.tensor([-51 * step, 0.0, step, 51 * step, 204 * step]))
    # Of positive numbers zero is the lowest, and of zeros alone there is no scale.
    torch.testing.assert_close(round_activations(torch.tensor([2.0, 255.4])), torch.tensor([2 * 255.4 / 255, 255.4]))
    assert not round_activations(torch.zeros(3)).any()


def test_weights_lie_on_127_steps_of_their_own_row():
    weight = torch.tensor([[63.0, 0.4, -1.6], [0.63, -0.63, 0.004], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[63.0, 0.0, -2.0], [0.63, -0.63, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(round_weights(weight), expected)


def test_the_layer_with_an_outlier_is_the_most_sensitive():
    """One input of 10,000 beside ones leaves no step between 0 and 39 for the others."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].bias[0] = 1e4
        model[1].weight[:, 0] = 0.0
    inputs = torch.randn(16, 8)
    told = list[tuple[int, int]]()

    def answers() -> np.ndarray:
        with torch.no_grad():
            return model(inputs).numpy()

    before = answers()
    found = sensitivities(
        model, answers, lambda one: float(np.abs(one - before).max()), lambda done, of: told.append((done, of))
    )
    assert list(found) == ["1", "0"] and told == [(1, 2), (2, 2)]
    assert found["1"] > 10 * found["0"] > 0
    np.testing.assert_array_equal(answers(), before)


def test_the_model_is_as_it_was_after_an_error():
    model = nn.Sequential(nn.Linear(4, 4))
    calls = list[int]()

    def answers() -> np.ndarray:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sensitivities(model, answers, float, lambda done, of: calls.append(done))
    inputs = torch.randn(3, 4)
    with torch.no_grad():
        torch.testing.assert_close(model(inputs), nn.functional.linear(inputs, model[0].weight, model[0].bias))

"""Which matrices suffer most from products of 8 bits: each is rounded alone, and the model's answers compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

# As ONNX Runtime does it: activations from 0 to 255 on one scale for the whole input, weights from -63 to 63 on a scale
# for each output.
ACTIVATIONS = 255
WEIGHTS = 63


def sensitivities(
    model: nn.Module,
    answers: Callable[[], np.ndarray],
    distance: Callable[[np.ndarray], float],
    done: Callable[[int, int], None],
) -> dict[str, float]:
    """How far rounding each linear layer alone moves the answers, by the layer's name, the farthest first.

    `answers` runs the model, in float32 and evaluation mode; `distance` says how far what it gives lies from what the
    model gives unrounded; `done` is told after each layer how many of how many are. The model is left as it was.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    found = dict[str, float]()
    for name, layer in layers.items():
        hook = layer.register_forward_hook(_rounded)
        try:
            found[name] = distance(answers())
        finally:
            hook.remove()
        done(len(found), len(layers))
    return dict(sorted(found.items(), key=lambda one: -one[1]))


def _rounded(layer: nn.Linear, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    """In place of the layer's own output, which goes unused."""
    return functional.linear(round_activations(inputs[0]), round_weights(layer.weight), layer.bias)


def round_activations(values: Tensor) -> Tensor:
    """The nearest of 256 numbers, evenly spread over the range of `values` and zero, zero being one of them."""
    low, high = values.amin().clamp(max=0), values.amax().clamp(min=0)
    scale = ((high - low) / ACTIVATIONS).clamp_min(torch.finfo(values.dtype).tiny)
    zero = torch.round(-low / scale)
    return (torch.clamp(torch.round(values / scale) + zero, 0, ACTIVATIONS) - zero) * scale


def round_weights(weight: Tensor) -> Tensor:
    """The nearest of 127 numbers [outputs, inputs], evenly spread up to the largest of each output, either sign."""
    scale = (weight.abs().amax(dim=1, keepdim=True) / WEIGHTS).clamp_min(torch.finfo(weight.dtype).tiny)
    return torch.round(weight / scale) * scale

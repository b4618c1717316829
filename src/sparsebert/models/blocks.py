"""The few modules and cuts that make a stock model a shrunk one, in place and on any device, also `meta`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig

from sparsebert.fast_feedforward.layer import FastFeedForward, Routing
from sparsebert.models.empty import NoInputs, NoNeurons, NoOutputs, remove_heads
from sparsebert.models.families import ModelFamily


class IdentityLayer(nn.Module):
    """A dropped layer in a masked model: gives its input back, in the form the family's encoder expects."""

    def __init__(self, gives_tuple: bool, attributes: Mapping[str, Any]) -> None:
        super().__init__()
        self.gives_tuple = gives_tuple
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(
        self, hidden_states: torch.Tensor, *args: object, **kwargs: object
    ) -> torch.Tensor | tuple[torch.Tensor, None]:
        """Return [batch, length, hidden] unchanged."""
        return (hidden_states, None) if self.gives_tuple else hidden_states


def resize_layer(
    layer: nn.Module, family: ModelFamily, heads: int, neurons: int, head_size: int, config: PretrainedConfig
) -> None:
    """Cut a layer of stock size down to its first `heads` heads and `neurons` neurons; `config` is the model's."""
    parts, ffn = family.attention, family.ffn
    _resize_inputs(layer, parts.inputs, heads * head_size)
    _resize(layer.get_submodule(parts.output), columns=heads * head_size)
    # A model may have been made without dense blocks: with fast feedforward layers, or with nothing in their place.
    dense = ffn.output in dict(layer.named_modules())
    if dense:
        _resize_inputs(layer, ffn.inputs, neurons)
        _resize(layer.get_submodule(ffn.output), columns=neurons)
    core = layer.get_submodule(parts.core)
    for name in parts.counts:
        setattr(core, name, heads)
    for name in parts.widths:
        setattr(core, name, heads * head_size)
    if heads == 0:
        _empty_attention(layer, family, config)
    if neurons == 0 and dense:
        _empty_ffn(layer, family)


def install_fff(
    layer: nn.Module, family: ModelFamily, hidden: int, tree: Sequence[int], activation: str, routing: Routing
) -> None:
    """Put a fast feedforward layer of [trees, depth] in place of a layer's feedforward block."""
    trees, depth = tree
    fff = FastFeedForward(hidden, depth, trees, activation, routing)
    if family.ffn.block:
        layer.set_submodule(family.ffn.block, fff)
        return
    layer.set_submodule(fff_place(family), fff)
    layer.set_submodule(family.ffn.activation, nn.Identity())
    layer.set_submodule(family.ffn.output, nn.Identity())


def fff_place(family: ModelFamily) -> str:
    """Where inside a layer a fast feedforward layer sits."""
    return family.ffn.block or family.ffn.inputs[0]


def _empty_attention(layer: nn.Module, family: ModelFamily, config: PretrainedConfig) -> None:
    parts, inside = family.attention, f"{family.attention.core}."
    output = parts.output.removeprefix(inside) if parts.output.startswith(inside) else ""
    inputs = [name.removeprefix(inside) for name in parts.inputs]
    remove_heads(layer.get_submodule(parts.core), inputs, output, config)
    if not output:
        layer.set_submodule(parts.output, NoInputs(_linear(layer, parts.output)))


def _empty_ffn(layer: nn.Module, family: ModelFamily) -> None:
    parts, present = family.ffn, dict(layer.named_modules())
    inputs = [name for name in parts.inputs if name in present]
    projections: dict[str, nn.Module] = {name: NoOutputs(_linear(layer, name)) for name in inputs}
    projections[parts.output] = NoInputs(_linear(layer, parts.output))
    if parts.block:
        inside = {name.removeprefix(f"{parts.block}."): module for name, module in projections.items()}
        layer.set_submodule(parts.block, NoNeurons(inside, parts.output.removeprefix(f"{parts.block}.")))
        return
    for name, module in projections.items():
        layer.set_submodule(name, module)
    layer.set_submodule(parts.activation, nn.Identity())


def _linear(layer: nn.Module, name: str) -> nn.Linear:
    module = layer.get_submodule(name)
    assert isinstance(module, nn.Linear)
    return module


def _resize_inputs(layer: nn.Module, names: tuple[str, ...], width: int) -> None:
    present = dict(layer.named_modules())
    for name in dict.fromkeys(names):
        if name in present:
            _resize(present[name], rows=names.count(name) * width)


def _resize(linear: nn.Module, rows: int | None = None, columns: int | None = None) -> None:
    # Slices of what is there, not new layers: keeps device, dtype and the family's own initialisation.
    assert isinstance(linear, nn.Linear)
    linear.weight = nn.Parameter(linear.weight.detach()[:rows, :columns].clone())
    if linear.bias is not None and rows is not None:
        linear.bias = nn.Parameter(linear.bias.detach()[:rows].clone())
    linear.out_features, linear.in_features = linear.weight.shape

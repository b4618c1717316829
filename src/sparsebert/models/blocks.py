"""The few modules and cuts that make a stock model a shrunk one, in place and on any device, also `meta`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sparsebert.models.families import Family
from sparsebert.models.fff import FastFeedForward, Routing


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


class NoHeads(nn.Module):
    """An attention core without heads: an empty context, or what an output projection inside the core makes of it.

    The projection keeps its name in the core, so that its bias is saved under the usual name.
    """

    def __init__(self, output_name: str = "", output: nn.Linear | None = None) -> None:
        super().__init__()
        self.output_name = output_name
        if output is not None:
            self.add_module(output_name, output)

    def forward(self, hidden_states: torch.Tensor, *args: object, **kwargs: object) -> tuple[torch.Tensor, None]:
        """Return [batch, length, 0], or [batch, length, hidden] after the projection, and no attention weights."""
        context = hidden_states[..., :0]
        return (self.get_submodule(self.output_name)(context) if self.output_name else context), None


def resize_layer(layer: nn.Module, family: Family, heads: int, neurons: int, head_size: int) -> None:
    """Cut a layer of stock size down to its first `heads` heads and `neurons` neurons."""
    parts, ffn = family.attention, family.ffn
    _resize_inputs(layer, parts.inputs, heads * head_size)
    _resize(layer.get_submodule(parts.output), columns=heads * head_size)
    _resize_inputs(layer, ffn.inputs, neurons)
    _resize(layer.get_submodule(ffn.output), columns=neurons)
    core = layer.get_submodule(parts.core)
    for name in parts.counts:
        setattr(core, name, heads)
    for name in parts.widths:
        setattr(core, name, heads * head_size)
    if heads == 0:
        layer.set_submodule(parts.core, _no_heads(layer, family))


def install_fff(
    layer: nn.Module, family: Family, hidden: int, tree: Sequence[int], activation: str, routing: Routing
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


def fff_place(family: Family) -> str:
    """Where inside a layer a fast feedforward layer sits."""
    return family.ffn.block or family.ffn.inputs[0]


def _no_heads(layer: nn.Module, family: Family) -> NoHeads:
    inside = family.attention.output.removeprefix(family.attention.core + ".")
    if inside == family.attention.output:
        return NoHeads()
    output = layer.get_submodule(family.attention.output)
    assert isinstance(output, nn.Linear)
    return NoHeads(inside, output)


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

"""What a model may hold in place of its own blocks: layers that do nothing, and fast feedforward layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sparsebert.fast_feedforward.layer import FastFeedForward, Routing
from sparsebert.models.families import ModelFamily
from sparsebert.models.modeling_sparsebert import Places


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


def places_of(family: ModelFamily) -> Places:
    """The family as the modelling file of our folders describes it, by which layers are cut."""
    attention, ffn = family.attention, family.ffn
    return Places(
        name=family.name,
        stem=family.config_class.rpartition(":")[2].removesuffix("Config"),
        layers=family.layers,
        attention=attention.core,
        inputs=attention.inputs,
        output=attention.output,
        ffn_inputs=ffn.inputs,
        ffn_output=ffn.output,
        activation=ffn.activation,
        counts=attention.counts,
        widths=attention.widths,
        ffn_block=ffn.block,
        first_norm=family.first_norm,
        takes_bias=attention.takes_bias,
        lacks=() if family.has_head("spans") else ("ForQuestionAnswering",),
    )


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


def fff_of(layer: nn.Module, family: ModelFamily) -> FastFeedForward | None:
    """The fast feedforward layer of a layer; None where it has neurons, or no block."""
    found = dict(layer.named_modules()).get(fff_place(family))
    return found if isinstance(found, FastFeedForward) else None

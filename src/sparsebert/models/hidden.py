"""Fewer dimensions in the hidden states of a whole model: embeddings, layers, norms and heads, cut together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PretrainedConfig, PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.fast_feedforward.layer import FastFeedForward
from sparsebert.models.blocks import places_of
from sparsebert.models.families import ModelFamily
from sparsebert.models.layout import Layout, plain_layout
from sparsebert.models.modeling_sparsebert import WIDTHS, hidden_axes, narrowed
from sparsebert.models.shrunk import stock_model_class
from sparsebert.models.surgeon import copy_buffers, fill, head_of, shrunk_config, skeleton

Axes = dict[str, tuple[int, ...]]


@torch.no_grad()
def narrow(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedModel:
    """A copy with these dimensions of the hidden states, rising numbers of those that `model` has.

    Weights are taken over as they are. Norms work on what is left, so outputs change even where the dimensions that
    are gone were zero: CoFi's `z_hidden` (Xia et al. 2022, arXiv:2204.00408, section 3.1). The input is not changed.
    Raises UserError for numbers that do not fit, for a family whose positions are computed for its hidden size, for a
    size that the family cannot have, and for models with fast feedforward layers.
    """
    layout = plain_layout(model)
    size = model.config.hidden_size
    if not kept or sorted(set(kept)) != list(kept) or not set(kept) <= set(range(size)):
        raise UserError("Dimensions to keep must be rising numbers", got=list(kept), allowed=f"0 to {size - 1}")
    if any(isinstance(module, FastFeedForward) for module in model.modules()):
        raise UserError("A model with fast feedforward layers keeps its hidden size", fix="cut before converting it")
    axes = axes_of(model, layout)
    config = narrow_config(model, layout, kept)
    tensors = {name: narrowed(tensor, axes.get(name, ()), kept, size) for name, tensor in model.state_dict().items()}
    small = skeleton(model, layout.family, config, even=False)
    fill(small, tensors)
    copy_buffers(model, small)
    return small.train(model.training)


def axes_of(model: PreTrainedModel, layout: Layout) -> Axes:
    """The axes of a model's parameters that run over its hidden states, by name.

    Raises UserError for a family whose hidden size cannot be cut.
    """
    family = layout.family
    if family.fixed_width:
        raise UserError(f"The hidden size of a {family.name} model cannot be cut, as its positions are computed for it")
    config = shrunk_config(model, layout, list(layout.layers), {})
    axes = hidden_axes(stock_model_class(family, head_of(model, family)), config, places_of(family))
    # A stock model has no such norm in its first layer, one whose first layers were dropped may have.
    first = f"{layout.layers[0].path}.{family.first_norm}"
    return axes | ({f"{first}.weight": (0,), f"{first}.bias": (0,)} if family.first_norm else {})


def narrow_config(model: PreTrainedModel, layout: Layout, kept: Sequence[int]) -> PretrainedConfig:
    """The configuration of the model with these dimensions left. Raises UserError for a size it cannot have."""
    family, config = layout.family, shrunk_config(model, layout, list(layout.layers), {})
    before = config.kept_hidden or range(config.hidden_size)
    config.kept_hidden = [before[dimension] for dimension in kept]
    _set_size(config, family, len(kept))
    if family.rotary:
        # Frequencies are of the size of a head, which is no longer the hidden size over the heads.
        config.head_dim = layout.head_size // family.heads_together(config)
    return config


def check_size(model: PreTrainedModel, size: int) -> None:
    """Raise UserError for a hidden size that a cut of this model cannot have."""
    layout = plain_layout(model)
    axes_of(model, layout)
    narrow_config(model, layout, range(size))


def _set_size(config: PretrainedConfig, family: ModelFamily, size: int) -> None:
    before = config.hidden_size
    if any(vars(config).get(name) == size for name in WIDTHS if name != "hidden_size"):
        # It would be taken for the hidden size where the model is built again.
        raise UserError("The embeddings have this size already, so the hidden size cannot", got=size)
    for name in WIDTHS:
        if getattr(config, name, None) == before:
            setattr(config, name, size)
    try:
        config.validate()
    except StrictDataclassError as error:
        raise UserError(f"A {family.name} model cannot have this hidden size", got=size, allowed=str(error)) from None

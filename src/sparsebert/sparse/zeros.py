"""Masks of a model that is sparse already: its exact zeros."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from sparsebert.sparse.sites import Masks

# Fewer may be there by chance, as in a small matrix of bfloat16, and should be free to learn.
HELD_ABOVE = 0.01


@torch.no_grad()
def zero_masks(model: nn.Module, names: Iterable[str]) -> Masks:
    """Masks (True = keep) of the named parameters of which more than 1 % is exactly zero; the zeros are not kept."""
    masks = {name: model.get_parameter(name) != 0 for name in names}
    return {name: mask for name, mask in masks.items() if float((~mask).float().mean()) > HELD_ABOVE}

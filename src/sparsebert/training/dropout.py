"""Training without dropout."""

from __future__ import annotations

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


def switch_off_dropout(model: nn.Module, checkpointed: bool) -> None:
    """Put a model in evaluation mode, since not every model keeps its dropout in modules (ModernBERT).

    Layers that are `checkpointed` stay in training mode themselves, else they would keep all activations.
    """
    model.eval()
    if checkpointed:
        for module in model.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.training = True

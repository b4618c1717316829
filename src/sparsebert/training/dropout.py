"""Training without dropout, or with another rate of it."""

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


def set_dropout(model: nn.Module, rate: float) -> None:
    """Give every dropout of a model this rate, 0-1; a place where its own configuration made none stays without."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        # ModernBERT hands a number to the attention that it calls.
        if "attention_dropout" in vars(module):
            vars(module)["attention_dropout"] = rate

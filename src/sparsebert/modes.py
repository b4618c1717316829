"""A model in evaluation or training mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block, and after it, also a failed one, each module's own mode.

    `model.train(was_training)` would also wake what the user had put to sleep, as dropout of frozen layers.
    """
    with _in_mode(model, training=False):
        yield


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Training mode inside the block, and after it each module's own mode, as `evaluating` has it."""
    with _in_mode(model, training=True):
        yield


@contextmanager
def _in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, before in modes.items():
            module.training = before

"""Hidden states of a model on texts, layer by layer, of tokens that are the same for every model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from sparsebert.data.batches import inputs_of
from sparsebert.models.layout import base_of, layout_of
from sparsebert.modes import evaluating
from sparsebert.studies.feature_similarity import Features
from sparsebert.studies.task_rows import TokenRows
from sparsebert.training.collate import batches_by_length

BATCH = 32
MOST_TOKENS = 8192


def features(name: str, model: PreTrainedModel, tokens: TokenRows, seed: int) -> Features:
    """What goes into the first layer and comes out of each, of at most MOST_TOKENS tokens drawn with the seed.

    Layers have their numbers in the dense model, from 1; 0 is what goes into the first one. Padding is left out.
    """
    total = sum(map(len, tokens.rows["input_ids"]))
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:MOST_TOKENS])
    layout = layout_of(model)
    numbers = [0, *(layer.original_index + 1 for layer in layout.layers)]
    parts: dict[int, list[np.ndarray]] = {number: [] for number in numbers}
    paths = [layer.path for layer in layout.layers]
    seen = 0
    with evaluating(model), torch.inference_mode(), _watched(model, paths) as states:
        for _, batch in batches_by_length(tokens.rows, tokens.collate, BATCH):
            states.clear()
            inputs = {key: value.to(model.device) for key, value in inputs_of(batch).items()}
            # Without its head, which may want the sides of a pair apart.
            base_of(model)(**inputs)
            mask = batch["attention_mask"].bool()
            count = int(mask.sum())
            own = chosen[(chosen >= seen) & (chosen < seen + count)] - seen
            for number, state in zip(numbers, states, strict=True):
                parts[number].append(state.float().cpu()[mask].numpy()[own])
            seen += count
    return Features(name, {number: np.concatenate(values) for number, values in parts.items()})


@contextmanager
def _watched(model: nn.Module, paths: list[str]) -> Iterator[list[torch.Tensor]]:
    """A list that each forward pass adds to: the input of the first of these modules, and the output of every one."""
    states: list[torch.Tensor] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states.append(args[0] if args else kwargs["hidden_states"])

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    handles = [model.get_submodule(paths[0]).register_forward_pre_hook(before, with_kwargs=True)]
    handles += [model.get_submodule(path).register_forward_hook(after) for path in paths]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()

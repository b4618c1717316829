"""Sizes of encoders by name, and models of them with fresh weights, to be pretrained.

Turc et al. 2019, "Well-read students learn better" (arXiv:1908.08962): tiny, mini, small, medium and base, with heads
of size 64 and four times as many neurons as hidden units.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import BertConfig, PretrainedConfig, PreTrainedModel

from sparsebert.errors import UserError, unknown
from sparsebert.models.crammed_config import CrammedBertConfig
from sparsebert.models.families import family_of, is_shrunk
from sparsebert.models.shrunk import model_class, stock_model_class

SIZES: dict[str, tuple[int, int]] = {
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
}
"""Layers and hidden units by name."""
HEAD_SIZE, NEURONS_PER_HIDDEN = 64, 4
_CLASSES: dict[str, type[PretrainedConfig]] = {"bert": BertConfig, "crammed": CrammedBertConfig}


def presets() -> tuple[str, ...]:
    """All names: `bert-tiny` to `bert-base`, and `crammed-tiny` to `crammed-base`."""
    return tuple(f"{form}-{size}" for form in _CLASSES for size in SIZES)


def preset_config(
    name: str, vocab_size: int, length: int, *, fff: str | None = None, neurons: int | None = None
) -> PretrainedConfig:
    """The configuration of that name, for texts of up to `length` tokens. Everything else is the family's default.

    For crammed ones, `fff` puts a fast feedforward layer, named as `512x2`, in place of every dense block, and
    `neurons` gives dense blocks another width than four times the hidden one, 0 being none at all.
    Raises UserError for an unknown name, for a vocabulary or length below one, and for `fff` or `neurons` of a BERT.
    """
    if name not in presets():
        raise unknown("preset", name, presets())
    if vocab_size < 1 or length < 1:
        raise UserError("A model needs at least one token and one position", got=f"{vocab_size} and {length}")
    form, size = name.split("-")
    layers, hidden = SIZES[size]
    values: dict[str, Any] = {
        "vocab_size": vocab_size,
        "max_position_embeddings": length,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": hidden // HEAD_SIZE,
        "intermediate_size": NEURONS_PER_HIDDEN * hidden if neurons is None else neurons,
    }
    if form == "crammed":
        return CrammedBertConfig(**values, fff=fff)
    if fff is not None or neurons is not None:
        raise UserError("Other feedforward blocks are for crammed models", got=name, allowed=f"crammed-{size}")
    return BertConfig(**values)


def new_model(config: PretrainedConfig, seed: int) -> PreTrainedModel:
    """A masked language model with fresh float32 weights, in evaluation mode; the same for the same seed.

    Weights are drawn as the family does it. Raises UserError for a family that is not supported.
    """
    family = family_of(config)
    build = model_class(family, "masked_lm") if is_shrunk(config) else stock_model_class(family, "masked_lm")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: PreTrainedModel = build(config)
    return model.float().eval()

"""How long an input a model can take."""

from __future__ import annotations

from transformers import PretrainedConfig

from sparsebert.models.families import family_of


def position_limit(config: PretrainedConfig) -> int:
    """Longest input in tokens. RoBERTa numbers its positions from the padding id on, so it has fewer than rows."""
    rows = int(config.max_position_embeddings)
    if family_of(config).name == "roberta":
        return rows - int(config.pad_token_id) - 1
    return rows

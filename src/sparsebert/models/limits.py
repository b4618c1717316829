"""How long an input a model can take."""

from __future__ import annotations

from transformers import PretrainedConfig

from sparsebert.models.families import family_of


def position_limit(config: PretrainedConfig) -> int | None:
    """Longest input in tokens; None for a model without a table of positions, which takes any length.

    RoBERTa numbers its positions from the padding id on, so it has fewer than rows.
    """
    family = family_of(config).name
    if family == "modernbert" or (family == "deberta-v2" and not config.position_biased_input):
        return None
    rows = int(config.max_position_embeddings)
    return rows - int(config.pad_token_id) - 1 if family == "roberta" else rows

"""What input a model can take: how long, and how many segment types."""

from __future__ import annotations

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from sparsebert.data.tokens import SHORTEST
from sparsebert.errors import UserError
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


def segment_types(config: PretrainedConfig) -> int:
    """How many segment types the model tells apart; 0 for families that take none."""
    without = ("distilbert", "modernbert", "crammed-bert")
    return 0 if family_of(config).name in without else int(config.type_vocab_size)


def token_limits(config: PretrainedConfig) -> tuple[int | None, int, int]:
    """What token rows must keep to: the longest input, how many token ids there are, and how many segment types."""
    return position_limit(config), config.vocab_size, segment_types(config)


def reading_length(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens that are read of a text unless another number is given: the length that was saved with the tokenizer.

    A run saves the length that its model was trained, scored and timed at. Where the tokenizer has none, it is the
    length that the model was made for. Raises UserError for a saved length that is none.
    """
    saved = tokenizer.model_max_length
    if not isinstance(saved, int | float) or not saved >= SHORTEST:
        raise UserError(
            "The tokenizer's model_max_length is no length of a text", got=saved, fix="mend tokenizer_config.json"
        )
    # Where positions end nowhere, the length that the model was made for is still the one it is known to work at.
    return min(int(saved), position_limit(config) or int(config.max_position_embeddings))

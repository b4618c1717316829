"""What input a model can take: how long, and how many segment types."""

from __future__ import annotations

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from sparsebert.data.tokens import SHORTEST
from sparsebert.errors import UserError
from sparsebert.models.families import family_of


def position_limit(config: PretrainedConfig) -> int | None:
    """Longest input in tokens; None for a model without a table of positions, which takes any length."""
    family = family_of(config)
    if family.rotary or (family.positions_field and not getattr(config, family.positions_field)):
        return None
    padding = padding_before_positions(config)
    return int(config.max_position_embeddings) - (0 if padding is None else padding + 1)


def padding_before_positions(config: PretrainedConfig) -> int | None:
    """The id of the padding token where positions are numbered from it on, as RoBERTa's; None where they are from 0."""
    family = family_of(config)
    if not family.after_padding:
        return None
    return int(config.pad_token_id) if family.padding_id is None else family.padding_id


def segment_types(config: PretrainedConfig) -> int:
    """How many segment types the model tells apart; 0 for families that take none."""
    return int(config.type_vocab_size) if family_of(config).segments else 0


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

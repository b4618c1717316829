"""Fewer rows in a model's embeddings of tokens, and in the head that predicts tokens where it has one."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.models.limits import padding_before_positions

SPECIAL_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "mask_token_id")


def check_ids(config: PretrainedConfig, ids: Sequence[int]) -> None:
    """Raises UserError for ids that the model has no row for, and where positions would move.

    RoBERTa and others like it number them from the padding id on.
    """
    if ids[-1] >= config.vocab_size:
        what = "The tokenizer has an entry that the model has no embedding for, and that cannot go"
        raise UserError(what, got=f"id {ids[-1]}", allowed=f"0 to {config.vocab_size - 1}")
    padding = padding_before_positions(config)
    if padding is not None and list(ids[: padding + 1]) != list(range(padding + 1)):
        raise UserError("The padding token has to keep its id, from which positions are counted", got=padding)


def cut_vocabulary(model: PreTrainedModel, ids: Sequence[int]) -> PreTrainedModel:
    """A copy that knows these token ids alone, numbered anew in their order: row i of its table was row `ids[i]`.

    Outputs for texts of these tokens are equal, bit for bit where the head does not predict tokens. Raises UserError
    as `check_ids` does.
    """
    check_ids(model.config, ids)
    model = copy.deepcopy(model)
    new = {old: place for place, old in enumerate(ids)}
    rows = torch.tensor(ids)
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert isinstance(table, nn.Embedding)
    table.weight = nn.Parameter(table.weight.detach()[rows])
    table.num_embeddings = len(ids)
    table.padding_idx = None if table.padding_idx is None else new.get(table.padding_idx)
    if head is not None:
        _cut_head(model, head, rows)
    for name in SPECIAL_IDS:
        old = vars(model.config).get(name)
        if isinstance(old, int):
            _set_id(model.config, name, old, new.get(old))
    model.config.vocab_size = len(ids)
    return model


def _set_id(config: PretrainedConfig, name: str, old: int, new: int | None) -> None:
    try:
        setattr(config, name, new)
    except StrictDataclassFieldValidationError:
        # Not every family's configuration may be without each of them.
        raise UserError(f"The token of the configuration's {name} cannot go", got=f"id {old}") from None


def _cut_head(model: PreTrainedModel, head: nn.Module, rows: torch.Tensor) -> None:
    assert isinstance(head, nn.Linear)
    table = model.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    tied = model.config.tie_word_embeddings
    head.weight = table.weight if tied else nn.Parameter(head.weight.detach()[rows])
    head.out_features = len(rows)
    if head.bias is None:
        return
    before, bias = head.bias, nn.Parameter(head.bias.detach()[rows])
    head.bias = bias
    # Some families have the bias beside the head too, the same one or, where weights are not tied, one of its own.
    name = next(name for name, module in model.named_modules() if module is head)
    beside = model.get_submodule(name.rpartition(".")[0])
    for place, other in list(beside.named_parameters(recurse=False)):
        if other.shape == before.shape:
            beside.register_parameter(place, bias if other is before else nn.Parameter(other.detach()[rows]))

"""Fewer rows in a model's embeddings of tokens, and in the head that predicts tokens where it has one."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.models.families import family_of

SPECIAL_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "mask_token_id")


def cut_vocabulary(model: PreTrainedModel, ids: Sequence[int]) -> PreTrainedModel:
    """A copy that knows these token ids alone, numbered anew in their order: row i of its table was row `ids[i]`.

    Outputs for texts of these tokens are equal, bit for bit where the head does not predict tokens. Raises UserError
    where positions would move: RoBERTa numbers them from the padding id on.
    """
    model = copy.deepcopy(model)
    new = {old: place for place, old in enumerate(ids)}
    padding = model.config.pad_token_id
    if family_of(model.config).name == "roberta" and new.get(padding) != padding:
        raise UserError("The padding token has to keep its id, from which positions are counted", got=new.get(padding))
    rows = torch.tensor(ids)
    table = model.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    head = model.get_output_embeddings()
    table.weight = nn.Parameter(table.weight.detach()[rows])
    table.num_embeddings = len(ids)
    table.padding_idx = None if table.padding_idx is None else new[table.padding_idx]
    if head is not None:
        _cut_head(model, head, rows)
    for name in SPECIAL_IDS:
        old = vars(model.config).get(name)
        if isinstance(old, int):
            setattr(model.config, name, new.get(old))
    model.config.vocab_size = len(ids)
    return model


def _cut_head(model: PreTrainedModel, head: nn.Module, rows: torch.Tensor) -> None:
    assert isinstance(head, nn.Linear)
    tied = model.config.tie_word_embeddings
    table = model.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    head.weight = table.weight if tied else nn.Parameter(head.weight.detach()[rows])
    head.out_features = len(rows)
    if head.bias is not None:
        bias = nn.Parameter(head.bias.detach()[rows])
        # Some heads name their bias twice.
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                if parameter is head.bias and module is not head:
                    module.register_parameter(name, bias)
        head.bias = bias

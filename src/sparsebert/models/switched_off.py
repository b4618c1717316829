"""Parts of a model that give nothing for a while, without a change of its shape."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.models.blocks import fff_of
from sparsebert.models.layout import layout_of
from sparsebert.models.surgeon import Keep, entries_of


@contextmanager
def switched_off(model: PreTrainedModel, keep: Keep, trees: Collection[int] = ()) -> Iterator[None]:
    """Inside, units that `keep` marks False give nothing: their columns of the output projection are zero.

    That is what `shrink` gives of `mask_model` with the same masks: biases of the output projection stay. A group that
    is not named keeps all. Of the layers whose numbers are in `trees` the fast feedforward layer gives zeros. After it,
    also a failed one, the model is what it was. Raises KeyError for a group that the model does not have, and UserError
    for a layer without trees.
    """
    layout = layout_of(model)
    with ExitStack() as stack:
        for index in trees:
            fff = fff_of(model.get_submodule(layout.layers[index].path), layout.family)
            if fff is None:
                raise UserError("The layer has no fast feedforward layer", got=index)
            stack.callback(fff.register_forward_hook(_nothing).remove)
        for name, mask in keep.items():
            part = layout.group(name).output
            stack.enter_context(_zero(model.get_parameter(part.tensor), entries_of(part, ~mask)))
        yield


def _nothing(module: torch.nn.Module, given: Any, output: Any) -> torch.Tensor:
    return torch.zeros_like(output)


@contextmanager
def _zero(weight: torch.nn.Parameter, columns: torch.Tensor) -> Iterator[None]:
    """Inside, these columns of a matrix are zero."""
    columns = columns.to(weight.device)
    with torch.no_grad():
        kept = weight.index_select(1, columns)
        weight.index_fill_(1, columns, 0.0)
    try:
        yield
    finally:
        with torch.no_grad():
            weight.index_copy_(1, columns, kept)

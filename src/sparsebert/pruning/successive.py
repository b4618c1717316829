"""Removal without retraining: which weights and which layers of one trained network go first, and what is left.

Every function leaves the model that it is given as it was.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from transformers import PreTrainedModel

from sparsebert.data.batches import inputs_of
from sparsebert.models.layout import encoder_linear_names, layout_of
from sparsebert.models.surgeon import shrink
from sparsebert.modes import evaluating
from sparsebert.records import LayerRank
from sparsebert.sparse.budgets import lowest
from sparsebert.tasks.kind import TaskKind
from sparsebert.training.collate import Batch

Scores = Mapping[str, torch.Tensor]
LossOf = Callable[[PreTrainedModel], float]


def l1_scores(model: PreTrainedModel, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """|w| of the parameters named (Han et al. 2015, arXiv:1506.02626)."""
    return {name: model.get_parameter(name).detach().abs() for name in names}


def loss_scores(
    model: PreTrainedModel, names: Sequence[str], batches: Sequence[Batch], kind: TaskKind
) -> dict[str, torch.Tensor]:
    """|w dL/dw|, by how much the mean loss of all `batches` changes without the weight, to first order.

    Molchanov et al. 2019, arXiv:1906.10771, eq. 8, with the absolute value; L is over all rows, so that gradients of
    rows cancel before the absolute value is taken. A weight that the loss does not depend on has 0.
    """
    parameters = [model.get_parameter(name) for name in names]
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    rows = sum(len(batch["labels"]) for batch in batches)
    with evaluating(model):
        for batch in batches:
            outputs = kind.outputs(model(**inputs_of(batch)))
            loss = kind.loss(outputs, batch["labels"]) * (len(batch["labels"]) / rows)
            for total, part in zip(sums, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
                if part is not None:
                    total += part
    return {
        name: (parameter.detach() * total).abs() for name, parameter, total in zip(names, parameters, sums, strict=True)
    }


def lowest_of_all(scores: Scores, share: float) -> dict[str, torch.Tensor]:
    """True at the round(share * n) lowest scores of all tensors together, of equal ones at those that come first.

    What goes at one share also goes at every larger one.
    """
    every = torch.cat([score.flatten() for score in scores.values()])
    gone = lowest(every, round(share * len(every))).split([score.numel() for score in scores.values()])
    return {name: part.reshape(scores[name].shape) for name, part in zip(scores, gone, strict=True)}


@torch.no_grad()
def without_weights(model: PreTrainedModel, gone: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """A copy of the model with zeros where `gone` is True."""
    pruned = copy.deepcopy(model)
    for name, mask in gone.items():
        pruned.get_parameter(name).masked_fill_(mask, 0.0)
    return pruned


def without_layers(model: PreTrainedModel, skipped: Sequence[int]) -> PreTrainedModel:
    """The model without these layers, past which the residual stream goes; the model itself for none."""
    return shrink(model, {}, skipped) if skipped else model


def removable_layers(model: PreTrainedModel) -> list[int]:
    """The layers that may go: all, but the first where a module beside the layers reads its output."""
    layout = layout_of(model)
    return [layer.index for layer in layout.layers if layer.index > 0 or not layout.first_stays]


def layers_by_size(model: PreTrainedModel) -> list[LayerRank]:
    """The removable layers by the mean |w| of their linear weights, the smallest first; one without any has 0."""
    found = []
    for index in removable_layers(model):
        inside = f"{layout_of(model).layers[index].path}."
        weights = [model.get_parameter(name) for name in encoder_linear_names(model) if name.startswith(inside)]
        total = math.fsum(float(weight.detach().double().abs().sum()) for weight in weights)
        found.append(LayerRank(layer=index, value=total / max(1, sum(weight.numel() for weight in weights))))
    return sorted(found, key=lambda one: one.value)


def layers_by_loss(model: PreTrainedModel, loss: LossOf) -> list[LayerRank]:
    """The removable layers by the rise of the loss when only that layer is skipped, the smallest rise first.

    As Michel et al. 2019, arXiv:1905.10650, rank heads; ranked once.
    """
    return _ranked(model, loss, (), loss(model))


def layers_by_loss_anew(model: PreTrainedModel, loss: LossOf) -> list[LayerRank]:
    """The layers in the order of a greedy removal: each time the one goes whose removal raises the loss least.

    A value is the rise on top of the layers that were gone before. The last layer left is not in the list.
    """
    order: list[LayerRank] = []
    before = loss(model)
    while len(order) < len(layout_of(model).layers) - 1:
        order.append(_ranked(model, loss, [one.layer for one in order], before)[0])
        before += order[-1].value
    return order


def _ranked(model: PreTrainedModel, loss: LossOf, gone: Sequence[int], before: float) -> list[LayerRank]:
    left = [layer for layer in removable_layers(model) if layer not in gone]
    rises = [LayerRank(layer=layer, value=loss(without_layers(model, [*gone, layer])) - before) for layer in left]
    return sorted(rises, key=lambda one: one.value)

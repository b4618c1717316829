"""From choices to a model: write the chosen candidates' weights, then cut."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedModel

from sparsebert.models.layout import layout_of
from sparsebert.models.surgeon import Keep, mask_model, shrink
from sparsebert.pruning.candidates import Candidate
from sparsebert.pruning.knapsack import LayerChoice

Candidates = Mapping[str, Mapping[int, Candidate]]


def assemble(
    model: PreTrainedModel, candidates: Candidates, choices: Sequence[LayerChoice], even: bool = False
) -> PreTrainedModel:
    """The smaller model of `choices` (one a layer of `model`); `model` is not changed."""
    masked, keep, dropped = masked_model(model, candidates, choices)
    return shrink(masked, keep, dropped, even=even)


@torch.no_grad()
def masked_model(
    model: PreTrainedModel, candidates: Candidates, choices: Sequence[LayerChoice]
) -> tuple[PreTrainedModel, Keep, list[int]]:
    """A full-size copy with the candidates' weights in place and removed units at zero; its masks and dropped layers.

    `shrink` of the three gives the smaller model. Dropped layers are still in the copy.
    """
    masked = copy.deepcopy(model)
    layout = layout_of(masked)
    keep: dict[str, torch.Tensor] = {}
    dropped = [index for index, choice in enumerate(choices) if choice.dropped]
    for layer, choice in zip(layout.layers, choices, strict=True):
        for kind, group in layer.groups.items():
            count = choice.kept[kind]
            if choice.dropped or count == group.units:
                continue
            found = candidates[group.name][count]
            mask = torch.zeros(group.units, dtype=torch.bool)
            mask[found.units] = True
            weight = masked.get_parameter(group.output.tensor)
            weight[:, mask.repeat_interleave(group.output.width)] = found.weight.to(weight)
            if found.bias_shift.any():
                bias = masked.get_parameter(f"{group.module}.bias")
                bias += found.bias_shift.to(bias)
            keep[group.name] = mask
    mask_model(masked, keep)
    return masked, keep, dropped

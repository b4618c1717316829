"""A model's losses with one part of it at a time removed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from transformers import PreTrainedModel

from sparsebert.groups import Group
from sparsebert.models.layout import encoder_linear_names, layout_of
from sparsebert.models.switched_off import switched_off
from sparsebert.pruning.successive import removable_layers, without_layers
from sparsebert.studies.group_sensitivity import RemovedPart
from sparsebert.studies.task_rows import TokenRows
from sparsebert.tasks.kind import TaskKind
from sparsebert.tasks.metrics import score
from sparsebert.tasks.table import TaskSpec
from sparsebert.training.evaluate import predict_logits


def removed_parts(
    model: PreTrainedModel,
    tokens: TokenRows,
    kind: TaskKind,
    spec: TaskSpec,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[np.ndarray, float | None, list[RemovedPart]]:
    """The whole model's losses [rows] and score, and every part with those of the model without it.

    The model is left as it was. A layer that cannot be skipped is left out, and so is the only one that there is.
    """
    layout, labels = layout_of(model), tokens.labels

    def measured(left: PreTrainedModel) -> tuple[np.ndarray, float | None]:
        outputs = predict_logits(left, tokens.rows, tokens.collate, kind=kind)
        losses = [kind.mean_loss(outputs[row : row + 1], labels[row : row + 1]) for row in range(len(labels))]
        scored = kind.scored(outputs, labels, spec.labels)
        return np.array(losses), score([spec.main_metric], *scored).get(spec.main_metric)

    progress("Asking the whole model")
    before = measured(model)
    sizes = {name: model.get_parameter(name).numel() for name in encoder_linear_names(model)}
    whole = sum(sizes.values())
    parts = []
    for group in layout.groups:
        progress(f"Without {group.name}")
        with switched_off(model, {group.name: torch.zeros(group.units, dtype=torch.bool)}):
            own = sum(model.get_parameter(one).numel() for one in _matrices(group)) / whole
            number = layout.layers[group.layer].original_index
            parts.append(RemovedPart(f"{group.kind}s", number, own, *measured(model)))
    for index in removable_layers(model) if len(layout.layers) > 1 else ():
        progress(f"Without layer.{index}")
        own = sum(size for name, size in sizes.items() if name.startswith(f"{layout.layers[index].path}.")) / whole
        left = without_layers(model, [index])
        parts.append(RemovedPart("layer", layout.layers[index].original_index, own, *measured(left)))
    return *before, parts


def _matrices(group: Group) -> set[str]:
    """Names of the group's matrices, one that holds several parts once."""
    return {part.tensor for part in (*group.inputs, group.output) if part.tensor.endswith(".weight")}

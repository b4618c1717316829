"""Parts of a model switched off, and what that costs: heads, and parts of feedforward blocks, measured there and then.

The effect of parts that are switched off together is measured as one; nothing is trained after it (Michel et al. 2019,
arXiv:1905.10650, section 3, switch off single heads so).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsebert.errors import UserError
from sparsebert.live.bench import Errand
from sparsebert.live.catalogue import AskedModel, need_torch
from sparsebert.live.inside import head_numbers
from sparsebert.live.latest import Latest
from sparsebert.live.pool import Side
from sparsebert.live.scored import ScoredRows, file_rows, validation_rows
from sparsebert.live.texts import TextQueue
from sparsebert.live.units import LayerUnits, checked, of_layer
from sparsebert.records import Shape

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from sparsebert.data.encode import Encoded
    from sparsebert.groups import Group
    from sparsebert.live.effect import Effect
    from sparsebert.models.surgeon import Keep
    from sparsebert.tasks.kind import TaskKind
    from sparsebert.training.inference import Inference

MOST_OPEN = 2
BATCH = 32


@dataclass(frozen=True)
class SwitchedModel:
    """A model in float32, how it reads texts, its kind, what it calls its labels, and its parts."""

    inference: Inference
    kind: TaskKind
    labels: tuple[str, ...]
    layers: tuple[LayerUnits, ...]


@dataclass(frozen=True)
class AskedEffect:
    """What is to be measured: parts by name, of a side's model, on a file of the user or else on validation rows."""

    side: Side
    names: Any
    queue: TextQueue | None
    own_label: bool = False


@dataclass
class _Before:
    """Rows as a model reads them, and what it says of them with everything on."""

    rows: ScoredRows
    encoded: Encoded
    outputs: np.ndarray


@dataclass
class Switchboard:
    """Opens models to switch parts of them off; keeps MOST_OPEN, and what they said before; used on one thread."""

    _open: Latest[SwitchedModel] = field(default_factory=lambda: Latest(MOST_OPEN))
    _before: Latest[_Before] = field(default_factory=lambda: Latest(MOST_OPEN))

    def measure(self, job: Errand, asked: AskedEffect) -> None:
        """Report the effect, how long its pass took, and on what; raises UserError for what cannot be measured."""
        from sparsebert.models.switched_off import switched_off
        from sparsebert.timing import torch_threads

        model = asked.side.model
        job.report({"line": f"Opening {model.name} …"})
        job.go_on()
        opened = self._opened(model)
        names = checked(asked.names, opened.layers)
        with torch_threads(asked.side.way.threads):
            before = self._said_before(job, asked, opened)
            keep, trees = masks(opened.inference.model, opened.layers, names)
            start = time.perf_counter()
            with switched_off(opened.inference.model, keep, trees):
                after = _outputs(job, opened, before.rows.kind, before.encoded, "With the parts switched off")
            seconds = time.perf_counter() - start
        effect = _effect(opened, before, after)
        job.report(
            {
                "line": "",
                "name": model.name,
                "off": list(names),
                "where": before.rows.where,
                "cut": before.encoded.truncated,
                "seconds": seconds,
                "threads": asked.side.way.threads,
                **effect.told(),
            }
        )

    def _said_before(self, job: Errand, asked: AskedEffect, opened: SwitchedModel) -> _Before:
        """The rows, read, and the model's outputs for them; of the latest rows of a model these are kept."""
        rows = _rows(asked, opened)

        def ask() -> _Before:
            encoded = _read(opened, rows)
            return _Before(rows, encoded, _outputs(job, opened, rows.kind, encoded, "With everything on"))

        return self._before.get((asked.side.model.now, rows.key), ask)

    def _opened(self, model: AskedModel) -> SwitchedModel:
        _check_open(model)
        return self._open.get(model.now, lambda: _open(model))


def parts_of(model: AskedModel) -> tuple[LayerUnits, ...]:
    """What can be switched off, by the model's configuration alone. Raises UserError where nothing can."""
    _check_open(model)
    from sparsebert.deployment.plain import fine_tuned
    from sparsebert.models.load import described_model

    return layer_units(described_model(fine_tuned(model.place)), model.shape)


def layer_units(model: PreTrainedModel, shape: Shape | None) -> tuple[LayerUnits, ...]:
    """The parts of each layer; heads have the numbers that they had, where a record has them."""
    from sparsebert.models.blocks import fff_of
    from sparsebert.models.layout import layout_of

    layout, found = layout_of(model), []
    for layer in layout.layers:
        units, trees = layer.units, fff_of(model.get_submodule(layer.path), layout.family) is not None
        heads = tuple(head_numbers(layer.original_index, units["head"], shape))
        found.append(LayerUnits(layer.original_index + 1, heads, units["neuron"], trees))
    return tuple(found)


def masks(model: PreTrainedModel, layers: Sequence[LayerUnits], names: Sequence[str]) -> tuple[Keep, list[int]]:
    """The units that stay on, by group, and the layers whose trees do not; groups of which all stay are left out."""
    import torch

    from sparsebert.models.layout import layout_of

    keep: dict[str, torch.Tensor] = {}
    trees: list[int] = []
    for layer, units in zip(layout_of(model).layers, layers, strict=True):
        heads, quarters = of_layer(names, units)
        if any(heads):
            keep[layer.groups["head"].name] = ~torch.tensor(heads)
        if any(quarters) and units.trees:
            trees.append(layer.index)
        elif any(quarters):
            group = layer.groups["neuron"]
            off = torch.zeros(group.units, dtype=torch.bool)
            for part, chosen in zip(quarters_of(model, group), quarters, strict=True):
                off[part] = chosen
            keep[group.name] = ~off
    return keep, trees


def quarters_of(model: PreTrainedModel, group: Group) -> list[torch.Tensor]:
    """The neurons of a layer in QUARTERS parts of like number, those with the largest weights first.

    The size of a neuron is the length of the vector of all weights into it and out of it.
    """
    import torch

    size = torch.zeros(group.units, dtype=torch.float64)
    for part in (*group.inputs, group.output):
        weight = model.get_parameter(part.tensor).detach()
        if weight.dim() > 1:
            own = weight.narrow(part.dim, part.offset, group.units * part.width).movedim(part.dim, 0)
            size += own.reshape(group.units, -1).double().square().sum(dim=1).cpu()
    order = torch.argsort(size, descending=True, stable=True)
    count = min(len(order), LayerUnits(1, (), group.units).quarters)
    return list(torch.tensor_split(order, count))


def _check_open(model: AskedModel) -> None:
    if model.is_programs:
        raise UserError(f"{model.name} is exported: nothing inside a program can be switched off")
    need_torch(model)


def _open(model: AskedModel) -> SwitchedModel:
    from sparsebert.deployment.plain import fine_tuned, inference_of, label_names
    from sparsebert.models.heads import saved_kind
    from sparsebert.models.thresholds import thresholds_of
    from sparsebert.tasks.kind import task_kind

    inference = inference_of(fine_tuned(model.place), None, "eager", BATCH)
    inference.model.float()
    config = inference.model.config
    name = saved_kind(config)
    assert name is not None, "the model is for no known task"
    kind = task_kind(name).deciding_at(thresholds_of(config))
    if kind.by_span:
        raise UserError(f"{model.name} finds answers in texts, which is not measured here")
    return SwitchedModel(inference, kind, label_names(config), layer_units(inference.model, model.shape))


def _rows(asked: AskedEffect, opened: SwitchedModel) -> ScoredRows:
    if asked.queue is None:
        return validation_rows(asked.side.model, opened.inference.model.config)
    return file_rows(asked.queue, opened.kind, opened.labels, asked.own_label)


def _read(opened: SwitchedModel, rows: ScoredRows) -> Encoded:
    from sparsebert.data.encode import encode
    from sparsebert.models.limits import token_limits

    reader: Any = opened.inference.reader
    limits = token_limits(opened.inference.model.config)
    return encode(rows.rows, reader.tokenizer, reader.limit, *limits, rows.kind)


def _outputs(job: Errand, opened: SwitchedModel, kind: TaskKind, encoded: Encoded, what: str) -> np.ndarray:
    """The model's outputs for all rows; ends between batches where nobody wants them any more."""
    from sparsebert.training.evaluate import predict_logits

    total, count = len(encoded.dataset), 0

    def done(rows: int) -> None:
        nonlocal count
        count += rows
        job.report({"line": f"{what}: {count:,} of {total:,} texts", "done": count, "total": total})
        job.go_on()

    return predict_logits(opened.inference.model, encoded.dataset, opened.inference.collate, BATCH, kind, done)


def _effect(opened: SwitchedModel, before: _Before, after: np.ndarray) -> Effect:
    from sparsebert.data.labels import labels_of
    from sparsebert.live.effect import agreement_effect, scored_effect
    from sparsebert.models.labels import head_order
    from sparsebert.models.thresholds import thresholds_of

    rows, config = before.rows, opened.inference.model.config
    kind = rows.kind.deciding_at(thresholds_of(config))
    margins = [kind.margins(outputs) for outputs in (before.outputs, after)]
    if rows.metric is None:
        return agreement_effect(margins[0], margins[1], kind)
    order = head_order(config, rows.names) if rows.names else None
    if order is not None:
        margins = [outputs[..., order] for outputs in margins]
    labels, names = labels_of(before.encoded.dataset), rows.names or opened.labels
    (one, taken), (other, _) = (kind.scored(outputs, labels, names) for outputs in margins)
    return scored_effect(rows.metric, one, other, taken)

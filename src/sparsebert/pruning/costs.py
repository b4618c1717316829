"""What a layer costs: measured milliseconds on this machine, or parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from sparsebert.counts import example_inputs
from sparsebert.groups import LAYER_KINDS, GroupKind
from sparsebert.measurement.station import Forward, variant_of
from sparsebert.models.layout import Layout, layout_of
from sparsebert.models.surgeon import shrink
from sparsebert.progress import busy
from sparsebert.pruning.candidates import levels
from sparsebert.pruning.knapsack import CostTable
from sparsebert.runtimes.pytorch import EAGER
from sparsebert.runtimes.runtime import Runtime
from sparsebert.timing import Samples, measure

TABLE_LAYERS = 3
TABLE_ROUNDS = 7
# Units of every kind, in the order of LAYER_KINDS.
LayerSize = tuple[int, ...]
# How many layers, and of which size.
StackShape = tuple[int, LayerSize]
BARE: LayerSize = (0,) * len(LAYER_KINDS)


def measured_table(model: PreTrainedModel, batch: int, length: int, runtime: Runtime = EAGER) -> CostTable:
    """Time attention blocks with 0..all heads and feedforward blocks with 0..all neurons, in ms a layer.

    Each size is a real stack of three layers of this model, cut to that size in every layer and run inside the model;
    all sizes are interleaved, and the median over the rounds counts. `fixed` is the time outside the layers. A runtime
    that runs the whole as one program gives times of whole models alone: there a layer without heads and neurons costs
    what a stack of them takes more than one, and a block what a stack with it takes more than one without (ADR 20).
    Raises RuntimeUnavailableError where the runtime cannot run one of the stacks.
    """
    layout = layout_of(model)
    groups = layout.layers[0].groups
    counts: dict[GroupKind, list[int]] = {
        kind: levels(groups[kind].units, groups[kind].output.width) for kind in groups
    }
    # Every kind has a stack without any unit, and it is the same one.
    sizes = list(dict.fromkeys(_alone(kind, units) for kind in counts for units in counts[kind]))
    count = min(TABLE_LAYERS, len(layout.layers))
    shapes = [(count, size) for size in sizes] + [(1, BARE)] * (count > 1)
    samples = _time_stacks(model, layout, shapes, batch, length, runtime)
    layered = all(found.part_ms is not None for found in samples.values())
    outside, encoder = (_inside if layered else _between)(samples, sizes, count)
    base = encoder[BARE]
    return CostTable(
        blocks={
            kind: {units: max(encoder[_alone(kind, units)] - base, 0.0) for units in counts[kind]} for kind in counts
        },
        layer=base,
        fixed=outside,
        scope="encoder" if layered else "model",
    )


def _time_stacks(
    model: PreTrainedModel, layout: Layout, shapes: Sequence[StackShape], batch: int, length: int, runtime: Runtime
) -> dict[StackShape, Samples]:
    inputs = example_inputs([model], batch, length)
    with ExitStack() as stack, busy("Measuring the latency table"):
        variants = []
        for count, size in shapes:
            prepared = runtime.prepare(stack_of(model, layout, count, size).eval(), inputs)
            variants.append(variant_of(str((count, size)), prepared, Forward(prepared, [inputs]), stack))
        samples = measure(variants, TABLE_ROUNDS, warmup_ms=50, min_sample_ms=10)
    return {shape: samples[str(shape)] for shape in shapes}


def _inside(
    samples: Mapping[StackShape, Samples], sizes: Sequence[LayerSize], count: int
) -> tuple[float, dict[LayerSize, float]]:
    """Median ms outside the layers, and inside them a layer, for each size."""
    inside = {size: np.array(samples[count, size].part_ms) for size in sizes}
    outside = {size: np.array(samples[count, size].whole_ms) - inside[size] for size in sizes}
    return (
        float(np.median([float(np.median(outside[size])) for size in sizes])),
        {size: float(np.median(inside[size])) / count for size in sizes},
    )


def _between(
    samples: Mapping[StackShape, Samples], sizes: Sequence[LayerSize], count: int
) -> tuple[float, dict[LayerSize, float]]:
    """The same from whole models, by what they take more or less than each other, round by round.

    A model with one layer cannot say what that costs without heads and neurons, so this is then taken for nothing.
    """
    whole = {shape: np.array(found.whole_ms) for shape, found in samples.items()}
    bare = whole[count, BARE]
    layer = max(float(np.median(bare - whole[1, BARE])) / (count - 1), 0.0) if count > 1 else 0.0
    more = {size: float(np.median(whole[count, size] - bare)) / count for size in sizes}
    return float(np.median(bare)) - count * layer, {size: layer + more[size] for size in sizes}


def _alone(kind: GroupKind, units: int) -> LayerSize:
    """A layer with units of one kind and no others."""
    return tuple(units if own == kind else 0 for own in LAYER_KINDS)


def stack_of(model: PreTrainedModel, layout: Layout, count: int, size: LayerSize) -> PreTrainedModel:
    """The first `count` layers of `model`, each cut to `size`; embeddings and head are shared with it."""
    keep = {}
    for layer in layout.layers[:count]:
        for kind, units in zip(LAYER_KINDS, size, strict=True):
            group = layer.groups[kind]
            keep[group.name] = torch.arange(group.units) < units
    small = shrink(model, keep, range(count, len(layout.layers)))
    _share_outside(model, small, layout.layer_list)
    return small


def parameter_table(model: PreTrainedModel, each: Mapping[str, float]) -> CostTable:
    """What units of every kind and layers cost, where `each` says what one weight of a tensor does, by name.

    Tensors that are not named cost nothing: with the linear weights of the encoder alone, costs are their number.
    """
    layout = layout_of(model)
    layer = layout.layers[0]
    shapes = dict(model.named_parameters())
    whole = {name: shape.numel() * each.get(name, 0.0) for name, shape in shapes.items()}
    blocks: dict[GroupKind, dict[int, float]] = {}
    for kind, group in layer.groups.items():
        parts = (*group.inputs, group.output)
        unit = sum(whole[part.tensor] / shapes[part.tensor].shape[part.dim] * part.width for part in parts)
        blocks[kind] = {0: 0.0, group.units: float(unit * group.units)}
    in_layer = sum(cost for name, cost in whole.items() if name.startswith(f"{layer.path}."))
    return CostTable(
        blocks=blocks,
        layer=float(in_layer - sum(max(block.values()) for block in blocks.values())),
        fixed=float(sum(whole.values()) - len(layout.layers) * in_layer),
    )


def _share_outside(model: nn.Module, small: nn.Module, layer_list: str) -> None:
    for name, parameter in model.named_parameters():
        if not name.startswith(f"{layer_list}."):
            owner, _, leaf = name.rpartition(".")
            setattr(small.get_submodule(owner), leaf, parameter)

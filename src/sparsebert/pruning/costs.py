"""What a layer costs: measured milliseconds on this machine, or parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from sparsebert.counts import example_inputs
from sparsebert.measurement.bench import variant_of
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
LayerSize = tuple[int, int]
# How many layers, and of which size.
StackShape = tuple[int, LayerSize]


def measured_table(model: PreTrainedModel, batch: int, length: int, runtime: Runtime = EAGER) -> CostTable:
    """Time attention blocks with 0..all heads and feedforward blocks with 0..all neurons, in ms a layer.

    Each size is a real stack of three layers of this model, cut to that size in every layer and run inside the model;
    all sizes are interleaved, and the median over the rounds counts. `fixed` is the time outside the layers. A runtime
    that runs the whole as one program gives times of whole models alone: there a layer without heads and neurons costs
    what a stack of them takes more than one, and a block what a stack with it takes more than one without (ADR 20).
    Raises RuntimeUnavailableError where the runtime cannot run one of the stacks.
    """
    layout = layout_of(model)
    attention, ffn = layout.layers[0].attention, layout.layers[0].ffn
    assert attention is not None and ffn is not None
    sizes = [(heads, 0) for heads in levels(attention.units, layout.head_size)]
    sizes += [(0, neurons) for neurons in levels(ffn.units, 1) if neurons]
    count = min(TABLE_LAYERS, len(layout.layers))
    shapes = [(count, size) for size in sizes] + [(1, (0, 0))] * (count > 1)
    samples = _time_stacks(model, layout, shapes, batch, length, runtime)
    layered = all(found.part_ms is not None for found in samples.values())
    outside, encoder = (_inside if layered else _between)(samples, sizes, count)
    base = encoder[0, 0]
    return CostTable(
        attention={heads: max(encoder[heads, 0] - base, 0.0) for heads, neurons in sizes if not neurons},
        ffn={0: 0.0, **{n: max(encoder[0, n] - base, 0.0) for heads, n in sizes if not heads and n}},
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
            variants.append(variant_of(str((count, size)), prepared, inputs, stack))
        samples = measure(variants, TABLE_ROUNDS, warmup_ms=50, min_sample_ms=10)
    return {shape: samples[str(shape)] for shape in shapes}


def _inside(
    samples: Mapping[StackShape, Samples], sizes: Sequence[LayerSize], count: int
) -> tuple[float, dict[LayerSize, float]]:
    """Median ms outside the layers, and inside them a layer, for each (heads, neurons)."""
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
    bare = whole[count, (0, 0)]
    layer = max(float(np.median(bare - whole[1, (0, 0)])) / (count - 1), 0.0) if count > 1 else 0.0
    more = {size: float(np.median(whole[count, size] - bare)) / count for size in sizes}
    return float(np.median(bare)) - count * layer, {size: layer + more[size] for size in sizes}


def stack_of(model: PreTrainedModel, layout: Layout, count: int, size: LayerSize) -> PreTrainedModel:
    """The first `count` layers of `model`, each cut to (heads, neurons); embeddings and head are shared with it."""
    keep = {}
    for layer in layout.layers[:count]:
        for group, units in zip((layer.attention, layer.ffn), size, strict=True):
            assert group is not None
            keep[group.name] = torch.arange(group.units) < units
    small = shrink(model, keep, range(count, len(layout.layers)))
    _share_outside(model, small, layout.layer_list)
    return small


def parameter_table(model: PreTrainedModel, bytes_each: int, encoder_linear_only: bool) -> CostTable:
    """Bytes (or, with `bytes_each` 1, parameters) of heads, neurons and layers.

    With `encoder_linear_only` biases, norms and embeddings cost nothing, as in the encoder sparsity.
    """
    layout = layout_of(model)
    layer = layout.layers[0]
    assert layer.attention is not None and layer.ffn is not None
    shapes = dict(model.named_parameters())
    per_unit = []
    for group in (layer.attention, layer.ffn):
        parts = [
            part for part in (*group.inputs, group.output) if not encoder_linear_only or shapes[part.tensor].ndim > 1
        ]
        per_unit.append(
            sum(shapes[part.tensor].numel() // shapes[part.tensor].shape[part.dim] * part.width for part in parts)
        )
    heads, neurons = (per_unit[0] * bytes_each, per_unit[1] * bytes_each)
    in_layer = sum(p.numel() for name, p in shapes.items() if name.startswith(f"{layer.path}.")) * bytes_each
    units = heads * layer.attention.units + neurons * layer.ffn.units
    everything = sum(parameter.numel() for parameter in model.parameters()) * bytes_each
    rest = 0 if encoder_linear_only else in_layer - units
    fixed = 0 if encoder_linear_only else everything - len(layout.layers) * in_layer
    return CostTable(
        attention={count: float(heads * count) for count in range(layer.attention.units + 1)},
        ffn={0: 0.0, layer.ffn.units: float(neurons * layer.ffn.units)},
        layer=float(rest),
        fixed=float(fixed),
    )


def _share_outside(model: nn.Module, small: nn.Module, layer_list: str) -> None:
    for name, parameter in model.named_parameters():
        if not name.startswith(f"{layer_list}."):
            owner, _, leaf = name.rpartition(".")
            setattr(small.get_submodule(owner), leaf, parameter)

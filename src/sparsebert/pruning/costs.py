"""What a layer costs: measured milliseconds on this machine, or parameters."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from sparsebert.counts import example_inputs
from sparsebert.models.layout import Layout, layout_of
from sparsebert.models.surgeon import shrink
from sparsebert.progress import busy
from sparsebert.pruning.candidates import levels
from sparsebert.pruning.knapsack import CostTable
from sparsebert.timing import EncoderTimer, Variant, encoder_timer, measure

TABLE_LAYERS = 3
TABLE_ROUNDS = 7
LayerSize = tuple[int, int]


def measured_table(model: PreTrainedModel, batch: int, length: int) -> CostTable:
    """Time attention blocks with 0..all heads and feedforward blocks with 0..all neurons, in ms a layer.

    Each size is a real stack of three layers of this model, cut to that size in every layer and run inside the model;
    all sizes are interleaved, and the median over the rounds counts. `fixed` is the time outside the layers.
    """
    layout = layout_of(model)
    attention, ffn = layout.layers[0].attention, layout.layers[0].ffn
    assert attention is not None and ffn is not None
    sizes = [(heads, 0) for heads in levels(attention.units, layout.head_size)]
    sizes += [(0, neurons) for neurons in levels(ffn.units, 1) if neurons]
    whole, encoder = _time_sizes(model, layout, sizes, batch, length)
    base = encoder[0, 0]
    return CostTable(
        attention={heads: max(encoder[heads, 0] - base, 0.0) for heads, neurons in sizes if not neurons},
        ffn={0: 0.0, **{n: max(encoder[0, n] - base, 0.0) for heads, n in sizes if not heads and n}},
        layer=base,
        fixed=float(np.median([whole[size] for size in sizes])),
    )


def _time_sizes(
    model: PreTrainedModel, layout: Layout, sizes: Sequence[LayerSize], batch: int, length: int
) -> tuple[dict[LayerSize, float], dict[LayerSize, float]]:
    """Median ms outside the layers, and inside them per layer, for each (heads, neurons)."""
    count = min(TABLE_LAYERS, len(layout.layers))
    inputs = example_inputs([model], batch, length)
    clocks: dict[str, EncoderTimer] = {}
    with ExitStack() as stack, busy("Measuring the latency table"):
        variants = []
        for size in sizes:
            small = stack_of(model, layout, count, size).eval()
            name = str(size)
            clocks[name] = stack.enter_context(encoder_timer(small, [layer.path for layer in layout_of(small).layers]))
            variants.append(Variant(name, _forward(small, inputs), _reader(clocks[name])))
        samples = measure(variants, TABLE_ROUNDS, warmup_ms=50, min_sample_ms=10)
    inside = {size: np.array(samples[str(size)].part_ms) for size in sizes}
    outside = {size: np.array(samples[str(size)].whole_ms) - inside[size] for size in sizes}
    return (
        {size: float(np.median(outside[size])) for size in sizes},
        {size: float(np.median(inside[size])) / count for size in sizes},
    )


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


def _forward(model: nn.Module, inputs: dict[str, torch.Tensor]):
    return lambda: model(**inputs)


def _reader(clock: EncoderTimer):
    return lambda: clock.total_ns

"""Where a model keeps its heads and neurons, as Groups: the one description that all the rest reads.

Works on base models and on models with a head, stock, masked and shrunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from sparsebert.groups import LAYER_KINDS, Group, GroupKind, Slice
from sparsebert.models.blocks import fff_place
from sparsebert.models.families import AttentionParts, FfnParts, ModelFamily, family_of, is_shrunk
from sparsebert.models.wrapped import refuse_changed, refuse_wrapped

_VALUE = 2


@dataclass(frozen=True)
class LayerLayout:
    """One layer: `index` in this model, `original_index` in the dense one.

    `groups` are the blocks that are there, attention first; one that is gone has no entry.
    """

    index: int
    path: str
    original_index: int
    groups: Mapping[GroupKind, Group]

    @property
    def units(self) -> dict[GroupKind, int]:
        """The number of units of every kind, 0 where the block is gone."""
        return {kind: self.groups[kind].units if kind in self.groups else 0 for kind in LAYER_KINDS}


@dataclass(frozen=True)
class Layout:
    """A whole model: its layers now, and the numbers the dense model had.

    `head_size` is the width of a head, or of a group of heads that share keys and values, in what they give.
    Where `first_stays`, the first layer cannot be dropped, because a module beside the layers reads its output.
    """

    family: ModelFamily
    head_size: int
    layer_list: str
    layers: tuple[LayerLayout, ...]
    full_layers: int
    full_heads: int
    full_hidden: int
    full_neurons: int
    first_stays: bool

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups that have units, from the first layer to the last."""
        return tuple(group for layer in self.layers for group in layer.groups.values())

    def group(self, name: str) -> Group:
        """The group of that name, for example `layer.3.heads`. Raises KeyError if there is none."""
        return {group.name: group for group in self.groups}[name]


def layout_of(model: PreTrainedModel) -> Layout:
    """Describe a model. Group names carry the layer's index in this model; tensor names start at this model.

    Raises UserError for a family that is not supported, and for a model in a wrapper.
    """
    refuse_wrapped(model)
    config, family = model.config, family_of(model.config)
    layer_list = _prefix(model) + family.layers
    shapes = {name: parameter.shape for name, parameter in model.named_parameters(remove_duplicate=False)}
    count = len(cast(nn.ModuleList, model.get_submodule(layer_list)))
    kept = _kept_layers(config, count)
    head_size = config.head_size if is_shrunk(config) else family.head_size(config)
    return Layout(
        family=family,
        head_size=head_size,
        layer_list=layer_list,
        layers=tuple(
            _layer(family, shapes, f"{layer_list}.{index}", index, kept[index], head_size) for index in range(count)
        ),
        full_layers=config.original_layers if is_shrunk(config) else count,
        full_heads=getattr(config, family.heads_field),
        full_hidden=config.original_hidden if is_shrunk(config) else config.hidden_size,
        full_neurons=getattr(config, family.neurons_field),
        first_stays=has_module(base_of(model), family.after_first),
    )


def base_of(model: PreTrainedModel) -> PreTrainedModel:
    """The encoder under a task head, or the model itself."""
    return cast(PreTrainedModel, model.base_model)


def module(model: nn.Module, dotted: str) -> nn.Module:
    """The submodule of that dotted name."""
    return model.get_submodule(dotted)


def has_module(model: nn.Module, dotted: str) -> bool:
    """Whether the model has a submodule of that dotted name; never for no name."""
    return bool(dotted) and dotted in dict(model.named_modules())


def encoder_linear_names(model: PreTrainedModel) -> tuple[str, ...]:
    """Names of the weights of the attention and feedforward layers, fast ones included, in layer order."""
    layout = layout_of(model)
    parts = (layout.family.attention, layout.family.ffn)
    linear = [f"{name}.weight" for part in parts for name in (*part.inputs, part.output)]
    trees = [f"{fff_place(layout.family)}.{name}" for name in ("w_in", "w_out")]
    return _existing(model, layout, [*linear, *trees])


def plain_layout(model: PreTrainedModel) -> Layout:
    """The layout of a model that is to be changed: raises UserError also for layers without plain weights."""
    layout = layout_of(model)
    parts = (*layout.family.attention.inputs, layout.family.attention.output)
    parts += (*layout.family.ffn.inputs, layout.family.ffn.output)
    refuse_changed(model, [f"{layer.path}.{part}" for layer in layout.layers for part in parts])
    return layout


def scope_names(model: PreTrainedModel) -> dict[str, tuple[str, ...]]:
    """Names of the weights that each scope but `all` stands for, in model order.

    `embeddings` are all of them, `word_embeddings` the one of tokens (Gordon et al. 2020, arXiv:2002.08307, section
    3.2, prune this and leave those of positions and token types). Raises UserError for layers without plain weights, as
    adapters and quantisation leave them.
    """
    layout = plain_layout(model)
    found = {}
    for scope, part in (("attention", layout.family.attention), ("ffn", layout.family.ffn)):
        found[scope] = _existing(model, layout, [f"{name}.weight" for name in (*part.inputs, part.output)])
    embeddings = (name for name, part in base_of(model).named_modules() if isinstance(part, nn.Embedding))
    found["embeddings"] = tuple(f"{_prefix(model)}{name}.weight" for name in embeddings)
    words = model.get_input_embeddings()
    found["word_embeddings"] = tuple(name for name in found["embeddings"] if model.get_parameter(name) is words.weight)
    return found


def _existing(model: PreTrainedModel, layout: Layout, local: Sequence[str]) -> tuple[str, ...]:
    existing = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    wanted = (f"{layer.path}.{name}" for layer in layout.layers for name in dict.fromkeys(local))
    return tuple(name for name in wanted if name in existing)


def _prefix(model: PreTrainedModel) -> str:
    return "" if base_of(model) is model else f"{model.base_model_prefix}."


def _kept_layers(config: PretrainedConfig, count: int) -> list[int]:
    return config.kept_layers if is_shrunk(config) else list(range(count))


def _layer(
    family: ModelFamily, shapes: Mapping[str, torch.Size], path: str, index: int, original: int, head_size: int
) -> LayerLayout:
    found = (
        _group("head", shapes, path, index, family.attention, head_size),
        _group("neuron", shapes, path, index, family.ffn, 1),
    )
    return LayerLayout(index, path, original, {group.kind: group for group in found if group})


def _group(
    kind: GroupKind,
    shapes: Mapping[str, torch.Size],
    path: str,
    layer: int,
    parts: AttentionParts | FfnParts,
    width: int,
) -> Group | None:
    inputs, read_by = parts.inputs, f"{path}.{parts.output}.weight"
    units = shapes[read_by][1] // width if read_by in shapes else 0
    if not units:
        return None
    # Heads that share keys and values have fewer rows there than in the queries.
    rows = {name: shapes.get(f"{path}.{name}.weight", (0,))[0] // units // inputs.count(name) for name in inputs}
    # The n-th mention of a module is the n-th part of its fused matrix.
    offsets = [inputs[:position].count(name) * units * rows[name] for position, name in enumerate(inputs)]
    weights, biases = (
        [Slice(f"{path}.{name}.{end}", 0, rows[name], offset) for name, offset in zip(inputs, offsets, strict=True)]
        for end in ("weight", "bias")
    )
    constant = [biases[_VALUE]] if kind == "head" else biases
    return Group(
        name=f"layer.{layer}.{kind}s",
        kind=kind,
        layer=layer,
        units=units,
        inputs=tuple(part for part in (*weights, *biases) if part.tensor in shapes),
        output=Slice(read_by, 1, width),
        constant=tuple(part for part in constant if part.tensor in shapes),
    )

"""From masks to a smaller model: mask in place, or shrink to a new one; and fast feedforward layers into a copy.

A mask says for every unit of a group whether to keep it (True); a group that is not named keeps all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.fast_feedforward.layer import FastFeedForward, Routing
from sparsebert.groups import LAYER_KINDS, Group, GroupKind, Slice
from sparsebert.models.blocks import IdentityLayer, fff_place
from sparsebert.models.families import HeadName, ModelFamily, is_shrunk
from sparsebert.models.layout import LayerLayout, Layout, base_of, has_module, layout_of, plain_layout
from sparsebert.models.shrunk import (
    FFF_FIELDS,
    HEAD_FIELDS,
    HIDDEN_FIELDS,
    SHAPE_FIELDS,
    config_class,
    model_class,
    stock_config_class,
    stock_model_class,
)

Keep = Mapping[str, torch.Tensor]
Tensors = dict[str, torch.Tensor]


@torch.no_grad()
def mask_model(model: PreTrainedModel, keep: Keep, drop_layers: Iterable[int] = ()) -> None:
    """Silence units in place: their input rows, weights and biases, and their output columns become zero.

    Dropped layers (indices in this model) become layers that give back their input. The model keeps its size;
    `shrink` with the same arguments gives a smaller one with the same outputs. Raises UserError as `shrink` does.
    """
    layout = plain_layout(model)
    dropped = _checked(model, layout, keep, drop_layers)
    for group in (group for group in layout.groups if group.name in keep):
        for part in (*group.inputs, group.output):
            tensor = model.get_parameter(part.tensor)
            tensor.index_fill_(part.dim, entries_of(part, ~keep[group.name]).to(tensor.device), 0.0)
    for index in dropped:
        layer = model.get_submodule(layout.layers[index].path)
        # Some models read these from their layers in the forward pass.
        attributes = {name: getattr(layer, name) for name in layout.family.layer_attributes}
        model.set_submodule(layout.layers[index].path, IdentityLayer(layout.family.layer_gives_tuple, attributes))


@torch.no_grad()
def live_units(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The units that still do something, a mask for each group [units]: `shrink` with it changes no output.

    A unit is dead if all its input weights, or all the output columns that read it, are exactly zero.
    """
    found = {}
    for group in layout_of(model).groups:
        matrices = [part for part in group.inputs if model.get_parameter(part.tensor).dim() > 1]
        reads = torch.stack([_touched(model, part, group.units) for part in matrices]).any(dim=0)
        found[group.name] = (reads & _touched(model, group.output, group.units)).cpu()
    return found


def _touched(model: PreTrainedModel, part: Slice, units: int) -> torch.Tensor:
    """Units with a weight that is not zero in a slice [units]."""
    entries = model.get_parameter(part.tensor).detach().narrow(part.dim, part.offset, units * part.width)
    return (entries.movedim(part.dim, 0).reshape(units, -1) != 0).any(dim=1)


@torch.no_grad()
def shrink(model: PreTrainedModel, keep: Keep, drop_layers: Iterable[int] = (), even: bool = False) -> PreTrainedModel:
    """Build the smaller model that computes what `model` computes with the removed units' input weights at zero.

    Removing a unit takes its input weights as zero and its biases as they are. What it then still gives is a
    constant: the value bias of a head (attention weights sum to one), `activation(bias)` of a neuron, times its output
    columns. That constant is added to the output bias. It is zero after `mask_model`, and whenever the output
    columns are zero, as after an update that has compensated for the unit.

    `drop_layers` are indices in this model. `even=True` gives a stock transformers model, which needs all heads kept
    and one feedforward width in all layers. The input is not changed; dtype, device, training mode and attention
    implementation stay. Raises UserError for a class that is neither transformers' nor this package's, layers without
    plain weights, a mask that does not fit, no layer left, a shape that is not even, or a live constant where the model
    has no output bias to carry it.
    """
    layout = plain_layout(model)
    dropped = _checked(model, layout, keep, drop_layers)
    layers = [layer for layer in layout.layers if layer.index not in dropped]
    tensors = _cut(model, layout, layers, keep)
    config = _even_config(model, layout, layers, keep) if even else shrunk_config(model, layout, layers, keep)
    small = skeleton(model, layout.family, config, even)
    fill(small, _renamed(tensors, layout, layers))
    copy_buffers(model, small)
    return small.train(model.training)


@torch.no_grad()
def convert_ffn(
    model: PreTrainedModel, depth: int, trees: int = 1, layers: Iterable[int] | None = None, activation: str = "gelu"
) -> PreTrainedModel:
    """A copy of `model` with new, random fast feedforward layers in place of the feedforward blocks of `layers`.

    `layers` are indices in this model, None = all. Everything else is the same, the routing of earlier trees included.
    Raises UserError for a layer that is not there, for a model made without blocks, for an activation other than that
    of trees in other layers, for a class as `shrink` does, and as FastFeedForward does.
    """
    layout = plain_layout(model)
    chosen = set(range(len(layout.layers))) if layers is None else set(layers)
    if not chosen <= set(range(len(layout.layers))):
        raise UserError("There is no such layer", got=sorted(chosen), allowed=f"0-{len(layout.layers) - 1}")
    if gone := _silenced(model, layout):
        raise UserError("Layers that give back their input must be cut out first", got=sorted(gone), fix="shrink it")
    if layout.full_neurons == 0:
        raise UserError("The model was made without feedforward blocks", got=type(model).__name__)
    config = shrunk_config(model, layout, list(layout.layers), {})
    if any(tree for index, tree in enumerate(config.layer_fff) if index not in chosen):
        _check_activation(activation, config.fff_activation)
    config.fff_activation = activation
    ffn, tensors = layout.family.ffn, dict(model.state_dict())
    for layer in (layout.layers[index] for index in sorted(chosen)):
        config.layer_neurons[layer.index], config.layer_fff[layer.index] = 0, [trees, depth]
        gone = tuple(f"{layer.path}.{name}." for name in dict.fromkeys((*ffn.inputs, ffn.output, ffn.block)) if name)
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(gone)}
        fresh = FastFeedForward(model.config.hidden_size, depth, trees, activation).to(model.device, model.dtype)
        place = f"{layer.path}.{fff_place(layout.family)}"
        tensors |= {f"{place}.{name}": tensor for name, tensor in fresh.state_dict().items()}
    converted = skeleton(model, layout.family, config, even=False)
    fill(converted, tensors)
    copy_buffers(model, converted)
    return converted.train(model.training)


def set_routing(model: PreTrainedModel, routing: Routing) -> None:
    """Set in place how further training routes tokens through a model's trees; it is saved with the model.

    Raises UserError for a model without fast feedforward layers.
    """
    trees = [module for module in model.modules() if isinstance(module, FastFeedForward)]
    if not trees:
        raise UserError(
            "The model has no fast feedforward layers", got=type(model).__name__, fix="call convert_ffn first"
        )
    config = model.config
    config.fff_soft = routing.soft
    config.fff_hardening, config.fff_balance = float(routing.hardening), float(routing.balance)
    for tree in trees:
        tree.routing = routing


def _check_activation(asked: str, own: str) -> None:
    if asked != own:
        raise UserError("All trees of a model have one activation", got=asked, allowed=own)


def _checked(model: PreTrainedModel, layout: Layout, keep: Keep, drop_layers: Iterable[int]) -> set[int]:
    """The layers to leave out, those that already give back their input included."""
    dropped = _checked_layers(model, layout, drop_layers)
    _check_masks(layout, keep, dropped)
    return dropped


def _checked_layers(model: PreTrainedModel, layout: Layout, drop_layers: Iterable[int]) -> set[int]:
    asked, count = set(drop_layers), len(layout.layers)
    if not asked <= set(range(count)):
        raise UserError("There is no such layer to drop", got=sorted(asked), allowed=f"0-{count - 1}")
    gone = _silenced(model, layout)
    if len(asked | gone) == count:
        raise UserError("At least one layer must stay", got=f"all {count} dropped")
    if 0 in asked and layout.first_stays:
        raise UserError(
            "The first layer of this model cannot be dropped, because a convolution reads its output", got="layer 0"
        )
    return asked | gone


def _silenced(model: PreTrainedModel, layout: Layout) -> set[int]:
    return {layer.index for layer in layout.layers if isinstance(model.get_submodule(layer.path), IdentityLayer)}


def _check_masks(layout: Layout, keep: Keep, dropped: set[int]) -> None:
    units = {group.name: group.units for group in layout.groups}
    of_dropped = {f"layer.{index}.{kind}s" for index in dropped for kind in LAYER_KINDS}
    for name, mask in keep.items():
        if name not in units:
            if name in of_dropped:
                continue
            raise UserError("A mask names a group that the model does not have", got=name)
        if mask.dtype != torch.bool or mask.shape != (units[name],):
            raise UserError(
                f"The mask of {name} does not fit",
                got=f"{mask.dtype} of shape {tuple(mask.shape)}",
                allowed=f"torch.bool of shape ({units[name]},)",
            )


def entries_of(part: Slice, units: torch.Tensor) -> torch.Tensor:
    """Indices along the dim of `part` that belong to the units marked True [entries]."""
    starts = part.offset + torch.nonzero(units.cpu()).flatten() * part.width
    return (starts[:, None] + torch.arange(part.width)).flatten()


def _cut(model: PreTrainedModel, layout: Layout, layers: list[LayerLayout], keep: Keep) -> Tensors:
    """All tensors of the model by name, with removed units folded into output biases and cut away."""
    tensors = dict(model.state_dict())
    removed: dict[tuple[str, int], list[torch.Tensor]] = {}
    for group in (group for layer in layers for group in layer.groups.values() if group.name in keep):
        gone = ~keep[group.name]
        _fold(model, layout, group, gone, tensors)
        for part in (*group.inputs, group.output):
            removed.setdefault((part.tensor, part.dim), []).append(entries_of(part, gone))
    # All parts of a fused matrix at once, as after one cut the entries of the others would have other numbers.
    for (name, dim), entries in removed.items():
        stays = torch.ones(tensors[name].shape[dim], dtype=torch.bool)
        stays[torch.cat(entries)] = False
        tensors[name] = tensors[name].index_select(dim, torch.nonzero(stays).flatten().to(tensors[name].device))
    return tensors


def _fold(model: PreTrainedModel, layout: Layout, group: Group, gone: torch.Tensor, tensors: Tensors) -> None:
    """Add what the removed units still give to the bias of the projection that reads them."""
    if not group.constant:
        return
    weight = tensors[group.output.tensor]
    # In double precision: many small products are added up, and the removal is meant to be exact.
    columns = weight.index_select(1, entries_of(group.output, gone).to(weight.device)).double()
    lost = columns @ _constant(model, layout, group, gone)
    if not lost.any():
        return
    name = f"{group.module}.bias"
    if name not in tensors:
        raise UserError(
            f"Removed units of {group.name} give a constant, and {group.module} has no bias to carry it",
            fix="mask the model before shrinking it",
        )
    tensors[name] = (tensors[name].double() + lost).to(tensors[name].dtype)


def _constant(model: PreTrainedModel, layout: Layout, group: Group, gone: torch.Tensor) -> torch.Tensor:
    """What each removed output column is multiplied with when the input weights are zero."""
    values = [
        (bias := model.get_parameter(part.tensor)).index_select(0, entries_of(part, gone).to(bias.device)).double()
        for part in group.constant
    ]
    if group.kind == "head":
        # Heads that share a value all give its bias.
        shared = group.output.width // group.constant[0].width
        return values[0].reshape(-1, 1, group.constant[0].width).expand(-1, shared, -1).flatten()
    activation = model.get_submodule(f"{layout.layers[group.layer].path}.{layout.family.ffn.activation}")
    # A gated block multiplies the activated part with the other one.
    return torch.stack([activation(values[0]), *values[1:]]).prod(dim=0)


def _kept_units(layers: list[LayerLayout], kind: GroupKind, keep: Keep) -> list[int]:
    masks = [keep.get(layer.groups[kind].name) if kind in layer.groups else None for layer in layers]
    return [layer.units[kind] if mask is None else int(mask.sum()) for layer, mask in zip(layers, masks, strict=True)]


def _stock_values(model: PreTrainedModel, layout: Layout, layers: list[LayerLayout]) -> dict[str, Any]:
    """The stock configuration's values with the layers that stay."""
    values = model.config.to_dict()
    for name in (*SHAPE_FIELDS, *HEAD_FIELDS, "model_type", "architectures", "transformers_version", "auto_map"):
        values.pop(name, None)
    values[layout.family.layers_field] = len(layers)
    for name in layout.family.per_layer_fields:
        values[name] = [values[name][layer.index] for layer in layers]
    return values


def shrunk_config(model: PreTrainedModel, layout: Layout, layers: list[LayerLayout], keep: Keep) -> PretrainedConfig:
    """The configuration of a model cut to these layers by these masks."""
    shape = {
        "layer_heads": _kept_units(layers, "head", keep),
        "layer_neurons": _kept_units(layers, "neuron", keep),
        "kept_layers": [layer.original_index for layer in layers],
        "head_size": layout.head_size,
        "original_layers": layout.full_layers,
        "original_heads": layout.full_heads,
        "original_neurons": layout.full_neurons,
        "layer_fff": [_trees(model, layer) for layer in layers],
    }
    values = model.config.to_dict()
    shape |= {name: values[name] for name in (*FFF_FIELDS, *HIDDEN_FIELDS) if name in values}
    if layout.family.attention.takes_bias:
        shape["kept_heads"] = [_kept_heads(model, layer, keep) for layer in layers]
    return config_class(layout.family)(**_stock_values(model, layout, layers), **shape)


def _kept_heads(model: PreTrainedModel, layer: LayerLayout, keep: Keep) -> list[int]:
    """The places that the heads which a layer keeps had in the dense model."""
    if "head" not in layer.groups:
        return []
    group = layer.groups["head"]
    before = model.config.kept_heads[layer.index] if is_shrunk(model.config) else range(group.units)
    mask = keep.get(group.name)
    return [head for place, head in enumerate(before) if mask is None or mask[place]]


def _trees(model: PreTrainedModel, layer: LayerLayout) -> list[int]:
    """Trees and depth of a layer's fast feedforward layer, or nothing."""
    inside = model.get_submodule(layer.path).modules()
    return [number for fff in inside if isinstance(fff, FastFeedForward) for number in (fff.trees, fff.depth)]


def _even_config(model: PreTrainedModel, layout: Layout, layers: list[LayerLayout], keep: Keep) -> PretrainedConfig:
    heads, neurons = _kept_units(layers, "head", keep), _kept_units(layers, "neuron", keep)
    if set(heads) != {layout.full_heads}:
        raise UserError("A stock model needs all heads in every layer", got=f"heads {heads}", allowed=layout.full_heads)
    if len(set(neurons)) != 1 or neurons[0] == 0:
        raise UserError("A stock model needs one feedforward width in all layers", got=f"neurons {neurons}")
    if layout.family.first_norm and layers[0].original_index != 0:
        raise UserError(f"A stock {layout.family.name} model needs its first layer", got="layer 0 dropped")
    values = _stock_values(model, layout, layers) | {layout.family.neurons_field: neurons[0]}
    return stock_config_class(layout.family)(**values)


def skeleton(model: PreTrainedModel, family: ModelFamily, config: PretrainedConfig, even: bool) -> PreTrainedModel:
    """The smaller model without values: on `meta`, so that no random numbers are drawn."""
    task = head_of(model, family)
    build = stock_model_class(family, task) if even else model_class(family, task)
    config._attn_implementation = model.config._attn_implementation
    pooler = family.optional_pooler and task == "base"
    with torch.device("meta"):
        return build(config, **({"add_pooling_layer": has_module(model, "pooler")} if pooler else {}))


def head_of(model: PreTrainedModel, family: ModelFamily) -> HeadName:
    """The task of a model whose code is known, its base model's too: a subclass may compute what a copy would not."""
    tasks: dict[type, HeadName] = {
        build(family, task): task for task, _ in family.model_classes for build in (stock_model_class, model_class)
    }
    for part in (model, base_of(model)):
        if type(part) not in tasks:
            raise UserError(
                "A model of this class cannot be shrunk, as code of its own would be lost",
                got=type(part).__name__,
                allowed=", ".join(stock_model_class(family, task).__name__ for task, _ in family.model_classes),
                fix="load its weights into one of these",
            )
    return tasks[type(model)]


def _renamed(tensors: Tensors, layout: Layout, layers: list[LayerLayout]) -> Tensors:
    """The tensors under the names they have when the layers are counted anew; those of other layers are left out."""
    places = {str(layer.index): position for position, layer in enumerate(layers)}
    inside = f"{layout.layer_list}."
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        if not name.startswith(inside):
            renamed[name] = tensor
            continue
        index, rest = name.removeprefix(inside).split(".", 1)
        if index in places:
            renamed[f"{inside}{places[index]}.{rest}"] = tensor
    return renamed


def fill(small: PreTrainedModel, tensors: Tensors) -> None:
    """Give a model of `skeleton` copies of its tensors, by name."""
    # An attention core without heads has no projections, so their empty tensors have no place.
    places = set(small.state_dict())
    values = {name: tensor.clone() for name, tensor in tensors.items() if name in places or tensor.numel()}
    # `assign`, as parameters on `meta` have no memory to copy into, and so that dtype and device stay.
    small.load_state_dict(values, strict=True, assign=True)
    small.tie_weights()


def copy_buffers(model: PreTrainedModel, small: PreTrainedModel) -> None:
    """Give a model of `skeleton` what is not saved, from the one that it was made from."""
    # Buffers that are not saved (positions, rotary frequencies) sit outside the layers, under the same names.
    for name, _ in list(small.named_buffers()):
        owner, _, leaf = name.rpartition(".")
        setattr(small.get_submodule(owner), leaf, model.get_buffer(name).clone())

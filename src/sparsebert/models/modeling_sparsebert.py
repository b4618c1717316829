"""BERT-family models that sparsebert made smaller, for plain `transformers` with `trust_remote_code=True`.

A copy of this file lies in the folder of every such model. Its config.json says which layers were kept, how many heads
and neurons each of them has, and which dimensions of the hidden states are left. The classes here are those of
transformers (`BertModel`, ...), cut to these sizes before the weights are read; nothing else of them is changed, and
nothing is downloaded.

Where sparsebert is installed, its own classes are used instead: they compute the same, and know what this file does not
(fast feedforward layers, packed files, models for pairs, families that transformers lacks). License: Apache-2.0.
"""

from __future__ import annotations

import copy
import functools
import importlib
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch import nn
from transformers.utils.hub import has_file

from .places_sparsebert import PLACES, Places

try:
    import sparsebert

    INSTALLED = bool(sparsebert)
except ModuleNotFoundError as error:
    if error.name != "sparsebert":
        raise
    INSTALLED = False

_HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM")
AUTO = {end: f"AutoModel{end.removeprefix('Model')}" for end in ("Model", *_HEADS)}
# Numbers of a configuration that are the hidden size again where they equal it.
WIDTHS = ("pooler_hidden_size", "embedding_size", "hidden_size")


def __getattr__(name: str) -> Any:
    """The class of that name, such as `SparseBertForMaskedLM`: sparsebert's where it is installed, else one made here.

    Raises ImportError for a class that only sparsebert has.
    """
    if not name.startswith("Sparse"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if INSTALLED:
        return getattr(importlib.import_module("sparsebert.models.shrunk"), name)
    for places in PLACES:
        if name in {f"Sparse{places.stem}{end}" for end in ("Config", *AUTO)}:
            return classes(places)[name]
    raise needs_sparsebert(f"A model of the class {name}")


def needs_sparsebert(what: str) -> ImportError:
    """The error for what this file cannot do."""
    return ImportError(f"{what} cannot be loaded without its package: pip install sparsebert")


@functools.cache
def classes(places: Places) -> dict[str, type]:
    """The configuration and the models of a family by name; transformers' Auto classes know them from then on."""
    config = make_config(places)
    made: dict[str, type] = {config.__name__: config}
    for end, auto in ((end, auto) for end, auto in AUTO.items() if end not in places.lacks):
        model = make_model(places, end, config)
        getattr(transformers, auto).register(config, model, exist_ok=True)
        made[model.__name__] = model
    return made


def make_config(places: Places) -> Any:
    """The configuration: that of the dense model, and what was kept of it, layer by layer."""
    stock = getattr(transformers, f"{places.stem}Config")

    class Config(stock):
        model_type = f"sparsebert-{places.name}"
        _auto_class = "AutoConfig"
        layer_heads: list[int] | None = None
        layer_neurons: list[int] | None = None
        kept_layers: list[int] | None = None
        head_size: int | None = None
        original_heads: int | None = None
        original_neurons: int | None = None
        original_hidden: int | None = None
        kept_hidden: list[int] | None = None
        layer_fff: list[list[int]] | None = None

    return _named(Config, stock)


def make_model(places: Places, end: str, config: Any) -> Any:
    """The model class whose name ends in `end`: that of transformers, cut to the sizes in its configuration."""
    stock = getattr(transformers, places.stem + end)

    class Model(stock):
        config_class = config
        _auto_class = AUTO[end]

        def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
            heads = [name for name in config.architectures or () if not name.endswith(tuple(AUTO))]
            if heads or any(config.layer_fff or ()):
                raise needs_sparsebert(f"A {heads[0]}" if heads else "A model with fast feedforward layers")
            with at_dense_width(config):
                super().__init__(config, *args, **kwargs)
            cut(self, places, stock)

        @classmethod
        def from_pretrained(cls, name: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().from_pretrained(name, *args, **kwargs)
            except OSError:
                if name is not None and has_file(name, "packed.safetensors", kwargs.get("revision")):
                    raise needs_sparsebert("A packed model") from None
                raise

    return _named(Model, stock)


def _named(made: type, stock: type) -> Any:
    made.__name__ = made.__qualname__ = f"Sparse{stock.__name__}"
    made.__doc__ = f"{stock.__name__} with the heads, neurons and layers that were kept."
    return made


def cut(model: Any, places: Places, stock: Any) -> None:
    """Cut a new model of stock size down, in place and on any device, to the sizes that its configuration has."""
    config, layers = model.config, model.base_model.get_submodule(places.layers)
    for index, (layer, heads, neurons) in enumerate(zip(layers, config.layer_heads, config.layer_neurons, strict=True)):
        if (heads, neurons) != (config.original_heads, config.original_neurons):
            resize_layer(layer, places, heads, neurons, config)
        if places.takes_bias and 0 < heads < config.original_heads:
            core: Any = layer.get_submodule(places.attention)
            core.kept_heads, core.__class__ = list(config.kept_heads[index]), with_fewer_heads(type(core))
    if places.first_norm and config.kept_layers[0] != 0:
        # The stock model leaves this norm out of layer 0; another layer that comes first now brought its own.
        norm = nn.LayerNorm(config.hidden_size, config.norm_eps, bias=config.norm_bias)
        layers[0].set_submodule(places.first_norm, norm)
    if config.kept_hidden:
        narrow(model, hidden_axes(stock, config, places), config.kept_hidden, config.original_hidden)


@contextmanager
def at_dense_width(config: Any, times: int = 1) -> Iterator[None]:
    """Inside, the configuration has `times` the hidden size that the dense model had.

    Stock classes take the size of a head, and what else hangs on it, from the hidden size.
    """
    own = config.hidden_size
    names = [name for name in WIDTHS if getattr(config, name, None) == own]
    try:
        for name in names:
            setattr(config, name, (config.original_hidden or own) * times)
        yield
    finally:
        for name in names:
            setattr(config, name, own)


def hidden_axes(stock: Any, config: Any, places: Places) -> dict[str, tuple[int, ...]]:
    """The axes of parameters that run over the hidden states, by name: found by a model twice as wide.

    The results of queries, keys and values, and what reads them, grow with it too, but are of heads.
    """
    shapes = []
    for times in (1, 2):
        wide = copy.deepcopy(config)
        with at_dense_width(wide, times), torch.device("meta"):
            parameters = stock(wide).named_parameters(remove_duplicate=False)
            shapes.append({name: tuple(parameter.shape) for name, parameter in parameters})
    of_heads = {f"{name}.{end}": 0 for name in places.inputs for end in ("weight", "bias")}
    of_heads[f"{places.output}.weight"] = 1
    found = {}
    for name, shape in shapes[0].items():
        local = name.partition(f"{places.layers}.")[2].partition(".")[2]
        axes = (axis for axis, size in enumerate(shapes[1][name]) if size != shape[axis])
        found[name] = tuple(axis for axis in axes if of_heads.get(local) != axis)
    return {name: axes for name, axes in found.items() if axes}


def narrow(model: Any, axes: Mapping[str, tuple[int, ...]], kept: Sequence[int], of: int) -> None:
    """Leave dimensions `kept` of the `of` that hidden states have now, in place, along `axes` of all parameters."""
    for path, module in model.named_modules():
        for leaf, parameter in list(module.named_parameters(recurse=False)):
            along = axes.get(f"{path}.{leaf}" if path else leaf, ())
            if along:
                values = narrowed(parameter.detach(), along, kept, of)
                setattr(module, leaf, nn.Parameter(values, requires_grad=parameter.requires_grad))
        _tell_sizes(module)
    model.tie_weights()


def narrowed(values: torch.Tensor, axes: tuple[int, ...], kept: Sequence[int], of: int) -> torch.Tensor:
    """The entries `kept` of `of` along each of `axes`; an axis over several hidden states side by side is as long."""
    for axis in axes:
        index = torch.arange(values.shape[axis], device=values.device).view(-1, of)[:, list(kept)].flatten()
        values = values.index_select(axis, index)
    return values


def _tell_sizes(module: Any) -> None:
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = module.weight.shape[1]
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(module.weight.shape)


def resize_layer(layer: nn.Module, places: Places, heads: int, neurons: int, config: Any) -> None:
    """Cut a layer of stock size down to its first `heads` heads and `neurons` neurons; `config` is the model's."""
    # By shares, as heads that share keys and values have fewer rows there than in the queries.
    _resize_inputs(layer, places.inputs, heads, config.original_heads)
    _resize(layer.get_submodule(places.output), columns=heads * config.head_size)
    core = layer.get_submodule(places.attention)
    for name in places.counts:
        setattr(core, name, heads)
    for name in places.widths:
        setattr(core, name, heads * config.head_size)
    if heads == 0:
        _remove_heads(layer, places, config)
    # A model may have been made without dense blocks.
    if places.ffn_output in dict(layer.named_modules()):
        _resize_inputs(layer, places.ffn_inputs, neurons, config.original_neurons)
        _resize(layer.get_submodule(places.ffn_output), columns=neurons)
        if neurons == 0:
            _remove_neurons(layer, places)


def _resize_inputs(layer: nn.Module, names: tuple[str, ...], units: int, of: int) -> None:
    present: dict[str, Any] = dict(layer.named_modules())
    for name in dict.fromkeys(names):
        if name in present:
            _resize(present[name], rows=present[name].out_features // of * units)


def _resize(linear: nn.Module, rows: int | None = None, columns: int | None = None) -> None:
    # Slices of what is there, not new layers: keeps device, dtype and the family's own initialisation.
    assert isinstance(linear, nn.Linear)
    linear.weight = nn.Parameter(linear.weight.detach()[:rows, :columns].clone())
    if linear.bias is not None and rows is not None:
        linear.bias = nn.Parameter(linear.bias.detach()[:rows].clone())
    linear.out_features, linear.in_features = linear.weight.shape


def _remove_heads(layer: nn.Module, places: Places, config: Any) -> None:
    core: Any = layer.get_submodule(places.attention)
    inside = f"{places.attention}."
    for name in {name.removeprefix(inside) for name in places.inputs}.intersection(dict(core.named_children())):
        delattr(core, name)
    layer.set_submodule(places.output, NoInputs(layer.get_submodule(places.output)))
    core.output_name = places.output.removeprefix(inside) if places.output.startswith(inside) else ""
    core.model_config = config
    core.__class__ = headless(type(core))


def _remove_neurons(layer: nn.Module, places: Places) -> None:
    present = dict(layer.named_modules())
    projections: dict[str, nn.Module] = {
        name: NoOutputs(present[name]) for name in places.ffn_inputs if name in present
    }
    projections[places.ffn_output] = NoInputs(present[places.ffn_output])
    if places.ffn_block:
        inside = f"{places.ffn_block}."
        block = {name.removeprefix(inside): module for name, module in projections.items()}
        layer.set_submodule(places.ffn_block, NoNeurons(block, places.ffn_output.removeprefix(inside)))
        return
    for name, module in projections.items():
        layer.set_submodule(name, module)
    layer.set_submodule(places.activation, nn.Identity())


class NoInputs(nn.Module):
    """A projection that has lost all its inputs: every token gets the bias, or zeros where there is none."""

    def __init__(self, linear: Any) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """[..., any], of which only the shape and the type are used, to [..., outputs]."""
        shape = (*hidden_states.shape[:-1], self.weight.shape[0])
        zeros = hidden_states.new_zeros(shape)
        # Not a view of the bias: in inference mode that would ask for gradients it has no function for.
        return zeros if self.bias is None else zeros + self.bias


class NoOutputs(nn.Module):
    """A projection that has lost all its outputs: hands its input on, to a NoInputs that needs the shape only."""

    def __init__(self, linear: Any) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The same tensor."""
        return hidden_states


class NoNeurons(nn.Module):
    """A feedforward block, input and output projections in one module, that has lost all its neurons."""

    def __init__(self, projections: Mapping[str, nn.Module], output: str) -> None:
        super().__init__()
        self.output = output
        for name, projection in projections.items():
            self.add_module(name, projection)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """[..., hidden] to [..., hidden]: what the projection named `output` gives."""
        return self.get_submodule(self.output)(hidden_states)


@functools.cache
def headless(stock: type[nn.Module]) -> type[nn.Module]:
    """The class of an attention module of class `stock` without heads.

    A subclass, as transformers collects attention maps from the modules of `stock`, and users count one map a layer.
    No product of width zero runs in it: exporters mishandle those, some without an error.
    """

    def forward(
        self: Any, hidden_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Give [batch, length, hidden], and attention maps [batch, 0, length, length] where the stock module does.

        With the output projection inside the module that is its output, else a placeholder for its NoInputs.
        """
        context = self.get_submodule(self.output_name)(hidden_states) if self.output_name else hidden_states
        batch, length = hidden_states.shape[:2]
        gives_maps = self.model_config._attn_implementation == "eager"
        return context, hidden_states.new_zeros(batch, 0, length, length) if gives_maps else None

    return _changed(headless, stock, forward)


@functools.cache
def with_fewer_heads(stock: type[nn.Module]) -> type[nn.Module]:
    """The class of an attention module of class `stock` that takes a bias for all heads and picks its `kept_heads`."""

    def forward(
        self: Any, hidden_states: torch.Tensor, mask: Any, bias: torch.Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """As the stock module, with a bias [batch, heads of the dense model, length, length]."""
        # It says how far tokens are from each other, which is the same in every row.
        return stock.forward(self, hidden_states, mask, bias[:1, self.kept_heads], *args, **kwargs)

    return _changed(with_fewer_heads, stock, forward)


def _changed(make: Any, stock: type[nn.Module], forward: Any) -> type[nn.Module]:
    """The subclass of `stock` that `make` makes, with another `forward`."""

    def reduce(self: nn.Module) -> tuple[Any, ...]:
        return _blank, (stock, make), self.__dict__

    name = f"{make.__name__.title().replace('_', '')}{stock.__name__}"
    namespace = {"__module__": __name__, "forward": forward, "__reduce__": reduce}
    return types.new_class(name, (stock,), exec_body=lambda body: body.update(namespace))


def _blank(stock: type[nn.Module], make: Any = headless) -> nn.Module:
    """What a copy or an unpickled module starts from: the class itself has no place to import it from."""
    made = make(stock)
    return made.__new__(made)

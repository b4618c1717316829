"""Configurations and models of uneven shape, registered with the transformers Auto classes.

One factory makes a configuration class and three model classes for each family: `SparseBertConfig`, `SparseBertModel`,
`SparseBertForSequenceClassification`, `SparseBertForMaskedLM` and so on, all names of this module. They add nothing
to the stock classes but the cut, so every attention implementation works as in the stock model. The cut itself is in
`modeling_sparsebert`, the file that lies in each folder and does the same where this package is not installed.

Torch and the stock models are imported when a class is first needed: configurations alone stay light.
"""

from __future__ import annotations

import functools
import importlib
import types
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub.dataclasses import strict

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.models.config import OWN_MODULE
from sparsebert.models.families import HeadName, ModelFamily
from sparsebert.models.source import PACKED_FILE

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

SHAPE_FIELDS: dict[str, Any] = {
    "layer_heads": list[int] | None,
    "layer_neurons": list[int] | None,
    "kept_layers": list[int] | None,
    "head_size": int | None,
    "original_layers": int | None,
    "original_heads": int | None,
    "original_neurons": int | None,
    "original_hidden": int | None,
    "kept_hidden": list[int] | None,
    "layer_fff": list[list[int]] | None,
    "fff_activation": str | None,
    "fff_soft": bool | None,
    "fff_hardening": float | None,
    "fff_balance": float | None,
}
# Of families with one bias for the heads of all layers.
HEAD_FIELDS: dict[str, Any] = {"kept_heads": list[list[int]] | None}
HIDDEN_FIELDS = ("original_hidden", "kept_hidden")
FFF_FIELDS = ("fff_activation", "fff_soft", "fff_hardening", "fff_balance")
_PLACES = (
    "cache_dir",
    "force_download",
    "proxies",
    "token",
    "revision",
    "local_files_only",
    "subfolder",
    "_commit_hash",
)
_AUTO: dict[HeadName, str] = {
    "base": "AutoModel",
    "classification": "AutoModelForSequenceClassification",
    "tokens": "AutoModelForTokenClassification",
    "spans": "AutoModelForQuestionAnswering",
    "masked_lm": "AutoModelForMaskedLM",
}
"""The Auto classes of transformers; it has none for pairs that are read apart (see models/pair_classes.py)."""


def stock_config_class(family: ModelFamily) -> Any:
    """The configuration class of a family's whole models, transformers' or this package's own."""
    return _load(family.config_class)


def stock_model_class(family: ModelFamily, task: HeadName) -> Any:
    """The class of a family's whole models for a task, transformers' or this package's own."""
    return _load(family.model_class(task))


@functools.cache
def config_class(family: ModelFamily) -> type[PretrainedConfig]:
    """The configuration class of a family's shrunk models: the stock fields, for the dense shape, plus `SHAPE_FIELDS`.

    `num_hidden_layers` (or its equal) counts the layers kept; `kept_layers` gives their places in the dense model.
    Where dimensions of the hidden states are gone, `kept_hidden` gives the places of those left, and `hidden_size`
    counts them. `kept_heads` gives those of the heads, in families where one bias is for the heads of all layers.
    `layer_fff` holds, layer by layer, trees and depth of a fast feedforward layer, or nothing. `fff_soft`,
    `fff_hardening` and `fff_balance` are their `Routing`.
    """
    stock = stock_config_class(family)
    fields = SHAPE_FIELDS | (HEAD_FIELDS if family.attention.takes_bias else {})

    def post_init(self: Any, **kwargs: Any) -> None:
        stock.__post_init__(self, **kwargs)
        _fill_shape(self, family)
        register_models(family)

    namespace = {
        **_carried("AutoConfig"),
        "__doc__": f"{stock.__name__} with the kept heads, neurons and layers.",
        "__annotations__": fields,
        "__post_init__": post_init,
        "model_type": registry.SHRUNK_PREFIX + family.name,
        **dict.fromkeys(fields),
    }
    return strict(types.new_class(f"Sparse{stock.__name__}", (stock,), exec_body=lambda body: body.update(namespace)))


@functools.cache
def model_class(family: ModelFamily, task: HeadName) -> type[PreTrainedModel]:
    """The shrunk model class of a family for a task."""
    stock = stock_model_class(family, task)

    def init(self: Any, config: PretrainedConfig, *args: Any, **kwargs: Any) -> None:
        from sparsebert.models.modeling_sparsebert import at_dense_width

        with at_dense_width(config):
            stock.__init__(self, config, *args, **kwargs)
        _cut(self, family, stock)

    def from_pretrained(cls: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
        packed = _packed_file(name, kwargs)
        if packed is None:
            return parent(cls).from_pretrained(name, *args, **kwargs)
        return _from_packed(cls, parent(cls), name, packed, args, kwargs)

    def parent(cls: Any) -> Any:
        return super(made, cls)

    namespace = {
        **_carried(_AUTO.get(task)),
        "__doc__": f"{stock.__name__} with fewer heads, neurons and layers.",
        "__init__": init,
        "from_pretrained": classmethod(from_pretrained),
        "config_class": config_class(family),
    }
    made = types.new_class(f"Sparse{stock.__name__}", (stock,), exec_body=lambda body: body.update(namespace))
    return made


def register_configs() -> None:
    """Tell AutoConfig about all families, and about the whole models of those that transformers does not have."""
    from transformers.models.auto.configuration_auto import AutoConfig

    for name in registry.names("family"):
        family = registry.get("family", name)
        AutoConfig.register(registry.SHRUNK_PREFIX + name, config_class(family), exist_ok=True)
        if family.is_own:
            AutoConfig.register(name, stock_config_class(family), exist_ok=True)


@functools.cache
def register_models(family: ModelFamily) -> None:
    """Tell the Auto model classes about a family.

    A configuration calls this when it is made, which is before any Auto class can ask for its model. Registering
    while transformers is still importing itself would run into half-imported modules.
    """
    _register_models(family, config_class, model_class)


@functools.cache
def register_own_models(name: str) -> None:
    """Tell the Auto model classes about the whole models of a family of this package's own, as `register_models`."""
    _register_models(registry.get("family", name), stock_config_class, stock_model_class)


def _register_models(
    family: ModelFamily, config_of: Callable[[ModelFamily], Any], model_of: Callable[[ModelFamily, HeadName], Any]
) -> None:
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    # The file that is copied beside a configuration too is looked up among the imported modules.
    importlib.import_module(f"{__package__}.{OWN_MODULE}")
    for task, name in _AUTO.items():
        if family.has_head(task):
            getattr(auto, name).register(config_of(family), model_of(family, task), exist_ok=True)


def __getattr__(name: str) -> Any:
    for family in (registry.get("family", key) for key in registry.names("family")):
        if name == "Sparse" + family.config_class.split(":")[1]:
            return config_class(family)
        for task, stock in family.model_classes:
            if name == "Sparse" + stock.split(":")[1]:
                return model_class(family, task)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _carried(auto_class: str | None) -> dict[str, Any]:
    """What makes transformers save, beside a model, the file by which others load it with `trust_remote_code`."""
    return {"__module__": f"{__package__}.{OWN_MODULE}", "_auto_class": auto_class}


def _load(dotted: str) -> Any:
    module, attribute = dotted.split(":")
    return getattr(importlib.import_module(module), attribute)


def _fill_shape(config: Any, family: ModelFamily) -> None:
    layers, heads = getattr(config, family.layers_field), getattr(config, family.heads_field)
    neurons = getattr(config, family.neurons_field)
    defaults = {
        "layer_heads": [heads] * layers,
        "layer_neurons": [neurons] * layers,
        "kept_layers": list(range(layers)),
        "head_size": family.head_size(config),
        "original_layers": layers,
        "original_heads": heads,
        "original_neurons": neurons,
        "original_hidden": config.hidden_size,
        "kept_hidden": [],
        "layer_fff": [[] for _ in range(layers)],
        "fff_activation": "gelu",
        "fff_soft": False,
        "fff_hardening": 0.0,
        "fff_balance": 0.0,
    }
    for name, value in defaults.items():
        if getattr(config, name) is None:
            setattr(config, name, value)
    if family.attention.takes_bias and config.kept_heads is None:
        config.kept_heads = [list(range(count)) for count in config.layer_heads]
    lists = ("layer_heads", "layer_neurons", "kept_layers", "layer_fff")
    for name in (*lists, "kept_heads") if family.attention.takes_bias else lists:
        if len(getattr(config, name)) != layers:
            raise UserError(
                f"The configuration's {name} must have one entry a layer",
                got=f"{len(getattr(config, name))} entries for {layers} layers",
            )


def _packed_file(name: Any, options: dict[str, Any]) -> Path | None:
    """The packed weights of a folder or hub name, where it has no plain ones."""
    from transformers.utils.hub import cached_file

    if name is None:
        return None
    where = {key: options[key] for key in _PLACES if key in options}
    for plain in ("model.safetensors", "model.safetensors.index.json"):
        if cached_file(name, plain, _raise_exceptions_for_missing_entries=False, **where) is not None:
            return None
    found = cached_file(name, PACKED_FILE, _raise_exceptions_for_missing_entries=False, **where)
    return None if found is None else Path(found)


def _from_packed(cls: Any, stock: Any, name: Any, packed: Path, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    from sparsebert.models.pack import read_packed

    config = options.pop("config", None)
    if config is None:
        config = cls.config_class.from_pretrained(name, **{key: options[key] for key in _PLACES if key in options})
    rest = {key: value for key, value in options.items() if key not in _PLACES}
    loaded = stock.from_pretrained(None, *args, config=config, state_dict=read_packed(packed), **rest)
    model = loaded[0] if isinstance(loaded, tuple) else loaded
    model.name_or_path = model.config.name_or_path = str(name)
    return loaded


def _cut(model: PreTrainedModel, family: ModelFamily, stock: Any) -> None:
    from sparsebert.fast_feedforward.layer import Routing
    from sparsebert.models.blocks import install_fff, places_of
    from sparsebert.models.modeling_sparsebert import cut

    cut(model, places_of(family), stock)
    config = model.config
    routing = Routing(config.fff_soft, config.fff_hardening, config.fff_balance)
    for layer, tree in zip(model.base_model.get_submodule(family.layers).children(), config.layer_fff, strict=True):
        if tree:
            install_fff(layer, family, config.hidden_size, tree, config.fff_activation, routing)

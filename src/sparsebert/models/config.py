"""A model folder's JSON files, written by anybody: read and checked in one place, before a library acts on them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.models.families import ModelFamily, family_named

CONFIG_FILE, TOKENIZER_CONFIG_FILE, ADAPTER_FILE = "config.json", "tokenizer_config.json", "adapter_config.json"
# The module whose file lies in each folder of a model of our own classes, for processes that do not know them.
OWN_MODULE = "modeling_sparsebert"
AGAIN = "download it again"
Dtype = Literal["float64", "float32", "float16", "bfloat16"]
_MOST_LABELS, _MOST_LAYERS, _MOST = 2**16, 2**10, 2**26
_DEEPEST_TREE = 16
# Any other is the name of a repository whose kernels would be downloaded and run.
Attention = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]
_TYPE = re.compile(r"[\w.-]{1,60}", re.ASCII)
_OTHER_MODEL = {
    "auto_map": "its own code, which is never run here; the model that transformers has for this family may be another",
    "clf_pooling": "its pooling under a name that the model of this family does not read",
    "n_embd": "its sizes under names that the model of this family does not read",
    "position_embedding_type": "positions that the model of this family does not have",
    "quantization_config": "quantised weights; give the model that it was made of",
    "transformers_weights": "weights in another file than the usual one",
}

_SAME_AGAIN = {
    "auto_map": "the nearest family is {family}, as transformers has it: take one of its models, or take auto_map out "
    "of the file if its model is known to compute the same",
    "clf_pooling": "rename it to classifier_pooling",
}


class _Common(BaseModel):
    """What all families' configurations have, as far as transformers does not check it itself."""

    model_config = ConfigDict(extra="allow", strict=True)

    model_type: str
    architectures: list[str] | None = None
    dtype: Dtype | None = None
    torch_dtype: Dtype | None = None
    num_labels: int | None = Field(None, ge=1, le=_MOST_LABELS)
    id2label: dict[str, str] | None = Field(None, min_length=1, max_length=_MOST_LABELS)
    label2id: dict[str, int | str] | None = None
    problem_type: Literal["regression", "single_label_classification", "multi_label_classification"] | None = None
    attn_implementation: Attention | None = None
    own_attention: Attention | None = Field(None, alias="_attn_implementation")


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError if the file is not readable, not JSON, or holds something else."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    # RecursionError: nested more deeply than any file of a model is.
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not readable: {first_line(error)}", fix=AGAIN) from None
    if not isinstance(values, dict):
        raise UserError(f"{file} is not readable: it holds no object", got=type(values).__name__, fix=AGAIN)
    return values


def read_config(folder: Path) -> dict[str, Any]:
    """The checked values of a model's config.json.

    Raises UserError if it is missing or not JSON, of an unsupported family, of a model that would be computed as
    another one (own code, other positions, quantised, an adapter), and for values that no configuration can have.
    """
    file = folder / CONFIG_FILE
    if (folder / ADAPTER_FILE).is_file():
        raise an_adapter(folder)
    if not file.is_file():
        raise UserError("The folder has no config.json, so it is not a model", got=folder)
    values = read_json(file)
    if not isinstance(values.get("model_type"), str) or not _TYPE.fullmatch(values["model_type"]):
        raise UserError(f"{file} names no model_type")
    family = family_named(values["model_type"])
    _check_same_model(values, file)
    try:
        _Common.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{file} is not valid: {where}: {first['msg']}", got=shown(first["input"])) from None
    _check_labels(values, file)
    _check_sizes(values, family, file)
    return values


def check_no_code(values: Mapping[str, Any], file: Path) -> None:
    """Raise UserError where the file asks to run code that comes with it."""
    if _own_code(values.get("auto_map")):
        raise UserError(f"{file} asks to run code of its own, which is never done", got=shown(values["auto_map"]))


def check_shape(values: Mapping[str, Any], file: Path) -> None:
    """Raise UserError for the shape of a shrunk model that no shrinking gives."""
    bounds = {"layer_heads": values["original_heads"], "layer_neurons": values["original_neurons"]}
    bounds["kept_layers"] = values["original_layers"] - 1
    for name, most in bounds.items():
        if not all(0 <= entry <= most for entry in values[name]):
            raise UserError(f"{file} is not valid: {name}", got=shown(values[name]), allowed=f"0 to {most} a layer")
    for kept, count in zip(values.get("kept_heads", ()), values["layer_heads"], strict=False):
        if sorted(set(kept)) != kept or len(kept) != count or not set(kept) <= set(range(values["original_heads"])):
            allowed = f"{count} of 0 to {values['original_heads'] - 1}, rising"
            raise UserError(f"{file} is not valid: kept_heads", got=shown(kept), allowed=allowed)
    if sorted(set(values["kept_layers"])) != values["kept_layers"]:
        raise UserError(f"{file} is not valid: kept_layers must rise", got=shown(values["kept_layers"]))
    for tree in values["layer_fff"]:
        if tree and not (len(tree) == 2 and tree[0] >= 1 and 0 <= tree[1] <= _DEEPEST_TREE):
            allowed = f"[trees, depth up to {_DEEPEST_TREE}]"
            raise UserError(f"{file} is not valid: layer_fff", got=shown(tree), allowed=allowed)


def check_kept_hidden(kept: list[int], size: int, most: int, file: Path) -> None:
    """Raise UserError for dimensions of the hidden states, of which there are `size` of `most`, that no cut leaves."""
    if kept and (sorted(set(kept)) != kept or len(kept) != size or not set(kept) <= set(range(most))):
        allowed = f"{size} of 0 to {most - 1}, rising"
        raise UserError(f"{file} is not valid: kept_hidden", got=shown(kept), allowed=allowed)
    if not kept and size != most:
        raise UserError(f"{file} is not valid: original_hidden", got=most, allowed=f"{size}, as no dimension is gone")


def an_adapter(folder: Path) -> UserError:
    """The error for a folder of PEFT's."""
    return UserError(
        "The folder holds an adapter of PEFT, which changes a model that lies elsewhere",
        got=folder,
        fix="merge the two and save that: PeftModel.merge_and_unload().save_pretrained(OTHER)",
    )


def shown(value: object) -> str:
    """A value of unknown origin, short and on one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def first_line(error: BaseException) -> str:
    """What an error says, on one line that is not long."""
    lines = [" ".join(line.split()) for line in str(error).strip().splitlines()] or [type(error).__name__]
    # A line that ends so announces the reason, which is on the next.
    line = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return line if len(line) <= 300 else f"{line[:297]}..."


def _check_same_model(values: Mapping[str, Any], file: Path) -> None:
    found = {
        "auto_map": _own_code(values.get("auto_map"), values["model_type"]),
        "clf_pooling": values.get("clf_pooling", _pooling(values)) != _pooling(values),
        "n_embd": "n_embd" in values and "hidden_size" not in values,
        "position_embedding_type": values.get("position_embedding_type") not in (None, "absolute"),
        "quantization_config": values.get("quantization_config") is not None,
        "transformers_weights": values.get("transformers_weights") is not None,
    }
    for name in (name for name, differs in found.items() if differs):
        raise UserError(
            f"{file} is of a model with {_OTHER_MODEL[name]}",
            got=f"{name} {shown(values[name])}",
            fix=_SAME_AGAIN.get(name, "").format(family=values["model_type"].removeprefix(registry.SHRUNK_PREFIX)),
        )


def _pooling(values: Mapping[str, Any]) -> Any:
    return values.get("classifier_pooling", "late")


def _own_code(auto_map: Any, model_type: str = "") -> bool:
    """Whether there is a map to code that is not the file which our own models carry and which is never run here."""
    if not auto_map:
        return False
    ours = model_type.startswith(registry.SHRUNK_PREFIX) and isinstance(auto_map, dict)
    return not (ours and all(str(where).startswith(f"{OWN_MODULE}.") for where in auto_map.values()))


def _check_labels(values: Mapping[str, Any], file: Path) -> None:
    numbers = values.get("id2label") or {}
    if sorted(numbers) != sorted(str(number) for number in range(len(numbers))):
        raise UserError(
            f"{file} is not valid: id2label must number the labels from 0 to {len(numbers) - 1}", got=shown(numbers)
        )


def _check_sizes(values: Mapping[str, Any], family: ModelFamily, file: Path) -> None:
    """Sizes that would take all memory, or all time, before anything else can find that they do not fit."""
    from sparsebert.models.shrunk import SHAPE_FIELDS, stock_config_class

    stock = stock_config_class(family)
    known = {field.name for field in fields(stock)} | set(stock.attribute_map) | set(SHAPE_FIELDS)
    heads = values.get(family.heads_field)
    if isinstance(heads, int) and heads < 1:
        raise UserError(f"{file} is not valid: {family.heads_field}", got=heads, allowed="1 up")
    for name in known & set(values):
        most = _MOST_LAYERS if name.endswith("_layers") else _MOST
        if isinstance(values[name], int) and abs(values[name]) > most:
            raise UserError(f"{file} is not valid: {name}", got=shown(values[name]), allowed=f"up to {most}")

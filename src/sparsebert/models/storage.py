"""How the weights of a model are stored: which are rounded to what, and in which kind of file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.models.layout import encoder_linear_names
from sparsebert.models.pack import Coder, read_contents, write_packed
from sparsebert.models.rounding import to_codes
from sparsebert.models.source import PACKED_FILE, PLAIN_FILE, weight_files
from sparsebert.recipe.storing import LEVELLED, Weights
from sparsebert.records import NumberFormat, Stored

# Those of trees are matrices.
BIASES = ("bias", "b_in")
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# Codes with a scale of two bytes for 64 of them (models/rounding.py).
BYTES: dict[Weights, float] = {"bf16": 2.0, "int8": 1 + 2 / 64, "int4": 0.5 + 2 / 64}
# As safetensors calls them in its files.
NUMBERS: dict[str, NumberFormat] = {"F32": "float32", "F16": "float16", "BF16": "bf16"}


@dataclass(frozen=True)
class Packing:
    """A packed file, or a `plain` one that everything reads, with weights as they are or rounded.

    `weights` are the matrices of the layers, and of the embeddings unless `embeddings` says otherwise. With `weights`
    the other matrices (poolers, heads) are in bfloat16; biases and norms are never rounded. Raises UserError for codes
    in a plain file.
    """

    weights: Weights | None = None
    embeddings: Weights | None = None
    plain: bool = False

    def __post_init__(self) -> None:
        """No format that others read has such codes."""
        if self.plain and self.is_levelled:
            raise UserError("A plain file cannot hold weights in int8 or int4", allowed="bf16")

    @property
    def is_levelled(self) -> bool:
        """Whether there are codes, which only a packed file holds."""
        return self.weights in LEVELLED or self.embeddings in LEVELLED

    @property
    def rounds(self) -> bool:
        """Whether anything is rounded."""
        return self.weights is not None or self.embeddings is not None


AS_TRAINED = Packing()


def rounding_of(model: PreTrainedModel, packing: Packing) -> dict[str, Weights]:
    """To what matrices of a model are rounded in its file, by name."""
    held = model.state_dict().items()
    every = [name for name, one in held if one.dim() > 1 and one.dtype in FLOATS and not name.endswith(BIASES)]
    tables = [f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Embedding)]
    rest: Weights | None = None if packing.weights is None else "bf16"
    wanted: dict[str, Weights | None] = dict.fromkeys(every, rest)
    wanted |= dict.fromkeys(encoder_linear_names(model), packing.weights)
    wanted |= dict.fromkeys(tables, packing.embeddings or packing.weights)
    return {name: how for name, how in wanted.items() if how is not None}


def bytes_each(model: PreTrainedModel, packing: Packing) -> dict[str, float]:
    """Bytes that a weight of each parameter takes in the file, by name; zeros are not counted apart."""
    rounding = rounding_of(model, packing)
    sizes = {name: float(one.element_size()) for name, one in model.named_parameters()}
    return {name: min(size, BYTES[rounding[name]]) if name in rounding else size for name, size in sizes.items()}


def stored_as(model: PreTrainedModel, folder: Path) -> Stored | None:
    """What numbers the matrices of a model's layers and its tables of embeddings are in the files of its folder.

    None where the files have neither under the names that the model has.
    """
    found: dict[str, NumberFormat] = {}
    for file in (folder / name for name in weight_files(folder)):
        found |= _packed_numbers(file) if file.name == PACKED_FILE else _plain_numbers(file)
    tables = [f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Embedding)]
    weights, embeddings = _first(found, encoder_linear_names(model)), _first(found, tables)
    return None if weights is None or embeddings is None else Stored(weights=weights, embeddings=embeddings)


def store(folder: Path, model: PreTrainedModel, packing: Packing, code: Coder = to_codes) -> None:
    """Write the plain file of weights that `model` was saved to in `folder` again, as `packing` says."""
    file, rounding = folder / PLAIN_FILE, rounding_of(model, packing)
    tensors = load_file(file)
    unknown = tensors.keys() - model.state_dict().keys()
    if rounding and unknown:
        raise RuntimeError(f"{min(unknown)} was saved under a name that the model does not have")
    if packing.plain:
        # The configuration keeps the type that is computed in, to which readers bring all of them.
        wide = {name for name, one in tensors.items() if one.element_size() > 2 and name in rounding}
        rounded = {name: one.bfloat16() if name in wide else one for name, one in tensors.items()}
        save_file(rounded, file, metadata={"format": "pt"})
        return
    write_packed(tensors, folder / PACKED_FILE, rounding, code)
    file.unlink()


def _first(found: Mapping[str, NumberFormat], names: Sequence[str]) -> NumberFormat | None:
    return next((found[name] for name in names if name in found), None)


def _plain_numbers(file: Path) -> dict[str, NumberFormat]:
    with safe_open(file, framework="pt") as content:
        types = {name: content.get_slice(name).get_dtype() for name in content.keys()}  # noqa: SIM118
    return {name: NUMBERS[how] for name, how in types.items() if how in NUMBERS}


def _packed_numbers(file: Path) -> dict[str, NumberFormat]:
    found: dict[str, NumberFormat] = {name.removesuffix(":values"): how for name, how in _plain_numbers(file).items()}
    for name, entry in read_contents(file).items():
        if entry["numbers"] is not None:
            found[name] = entry["numbers"]
    return found

"""Packed files: matrices with many zeros as kept values and their places, in one safetensors file.

A matrix is stored in the smallest of four forms: dense; `bitmask`, one bit a weight (1 = kept) and the kept values row
by row; `rows`, the number of kept values of each row, their columns and the values; or `holes`, the places of the zeros
and all other values. A tensor of more dimensions is the matrix of its last one. The file's metadata has form, shape and
dtype of every tensor. Matrices that are to be rounded are stored in bfloat16, to nearest even, or as codes and scales
(see `rounding`); all else comes back bit for bit (a negative zero as a positive one).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from sparsebert.errors import UserError
from sparsebert.models.config import first_line
from sparsebert.models.rounding import from_codes, to_codes
from sparsebert.recipe.storing import LEVELLED, Weights

METADATA = "sparsebert.packed"
MOST_COLUMNS, MOST_PLACES = 2**16, 2**31
NamedTensors = dict[str, torch.Tensor]
MatrixShape = tuple[int, int]
Coder = Callable[[torch.Tensor, Weights], NamedTensors]
"""From weights that are not zero to codes and scales, as `to_codes`."""
_WIDER = (torch.float64, torch.float32)
_AGAIN = "pack or download it again"
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (*_WIDER, torch.float16, torch.bfloat16)}


class _Entry(BaseModel):
    """What a file says of one tensor; `numbers` where its values are codes."""

    model_config = ConfigDict(strict=True, extra="forbid")

    form: Literal["dense", "bitmask", "rows", "holes"]
    shape: list[Annotated[int, Field(ge=0, lt=2**31)]]
    dtype: str
    numbers: Literal["int8", "int4"] | None = None


_CONTENTS = TypeAdapter(dict[str, _Entry])


def pack(
    tensors: Mapping[str, torch.Tensor], rounding: Mapping[str, Weights] = MappingProxyType({}), code: Coder = to_codes
) -> tuple[NamedTensors, dict[str, dict]]:
    """The stored tensors, and by name what they stand for: form, shape, dtype, and `numbers` where those are codes.

    `rounding` says by name to what matrices are rounded, to codes by `code`; those of 16 bits are not to bfloat16.
    Raises UserError for weights that are not finite there.
    """
    stored: NamedTensors = {}
    contents: dict[str, dict] = {}
    for name, tensor in tensors.items():
        how = rounding.get(name)
        try:
            form, parts = _smallest(tensor, how, code)
        except ValueError as error:
            raise UserError(f"The weights of {name} cannot be stored in {how}: {error}", fix="train it again") from None
        contents[name] = {"form": form, "shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
        contents[name] |= {"numbers": how} if how in LEVELLED else {}
        stored |= {f"{name}:{part}": value.contiguous() for part, value in parts.items()}
    return stored, contents


def unpack(stored: Mapping[str, torch.Tensor], contents: Mapping[str, dict]) -> NamedTensors:
    """The dense tensors. Raises UserError for parts that are missing or do not fit."""
    try:
        return {name: _dense(stored, name, entry) for name, entry in contents.items()}
    except (IndexError, KeyError, OverflowError, RuntimeError, ValueError) as error:
        raise UserError(
            f"The packed weights do not fit together: {first_line(error)}", fix="pack or download them again"
        ) from None


def write_packed(
    tensors: Mapping[str, torch.Tensor],
    file: Path,
    rounding: Mapping[str, Weights] = MappingProxyType({}),
    code: Coder = to_codes,
) -> None:
    """Pack into a file; `rounding`, `code` and errors as of `pack`."""
    stored, contents = pack(tensors, rounding, code)
    # One entry only: safetensors writes several in an order that changes from call to call.
    save_file(stored, file, metadata={METADATA: json.dumps(contents, sort_keys=True)})


def read_contents(file: Path) -> dict[str, dict]:
    """By name, form, shape and dtype of what a packed file holds. Raises UserError if it is damaged or not packed."""
    try:
        with safe_open(file, framework="pt") as content:
            metadata = content.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged or cut short: {error}", fix=_AGAIN) from None
    if METADATA not in metadata:
        raise UserError("This safetensors file is not packed", got=file)
    try:
        return {name: entry.model_dump() for name, entry in _CONTENTS.validate_json(metadata[METADATA]).items()}
    except ValidationError as error:
        raise UserError(f"{file} is damaged: {error.errors()[0]['msg']}", fix=_AGAIN) from None


def read_packed(file: Path) -> NamedTensors:
    """The dense tensors of a packed file. Raises UserError for a file that is damaged or not packed."""
    contents = read_contents(file)
    try:
        stored = load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged or cut short: {error}", fix=_AGAIN) from None
    return unpack(stored, contents)


def packed_bytes(tensors: Mapping[str, torch.Tensor], rounding: Mapping[str, Weights] = MappingProxyType({})) -> int:
    """Bytes of the stored tensors, without the file's header."""
    return _bytes(pack(tensors, rounding)[0])


def _smallest(tensor: torch.Tensor, how: Weights | None, code: Coder) -> tuple[str, NamedTensors]:
    """The form of a tensor that takes the fewest bytes, the plainest of equals, and its parts."""
    values = tensor.to(torch.bfloat16) if how == "bf16" and tensor.dtype in _WIDER else tensor
    if tensor.dim() < 2 or str(tensor.dtype).removeprefix("torch.") not in _DTYPES:
        return "dense", {"values": values}
    matrix = values.reshape(*_matrix(tuple(values.shape)))
    kept = matrix != 0
    places = _places(kept)
    if how in LEVELLED:
        # Codes have no zero, so that a matrix with any needs their places.
        codes = code(matrix[kept], how)
        forms = {form: parts | codes for form, parts in places.items() if form != "dense" or kept.all()}
    else:
        forms = {form: parts | {"values": matrix[kept] if parts else values} for form, parts in places.items()}
    form = min(forms, key=lambda name: _bytes(forms[name]))
    return form, forms[form]


def _places(kept: torch.Tensor) -> dict[str, NamedTensors]:
    """By form, what says where the values of a matrix are; of those that can say it."""
    found: dict[str, NamedTensors] = {
        "dense": {},
        "bitmask": {"mask": torch.from_numpy(np.packbits(kept.numpy()))},
    }
    if kept.shape[1] <= MOST_COLUMNS:
        columns = torch.from_numpy(kept.numpy().nonzero()[1].astype(np.uint16))
        found["rows"] = {"counts": kept.sum(dim=1, dtype=torch.int32), "columns": columns}
    if kept.numel() < MOST_PLACES:
        found["holes"] = {"places": (~kept).flatten().nonzero().flatten().to(torch.int32)}
    return found


def _dense(stored: Mapping[str, torch.Tensor], name: str, entry: Mapping) -> torch.Tensor:
    shape, values, how = tuple(entry["shape"]), stored[f"{name}:values"], entry.get("numbers")
    if entry["form"] == "dense" and how is None:
        return values.reshape(shape).to(_DTYPES.get(entry["dtype"], values.dtype))
    kept = _KEPT[entry["form"]](stored, name, _matrix(shape))
    if how is not None:
        parts = {part: stored[f"{name}:{part}"] for part in ("values", "scales")}
        values = from_codes(parts, int(kept.sum()), how)
    if int(kept.sum()) != len(values):
        raise ValueError(f"{name} has {len(values)} values for {int(kept.sum())} places")
    dense = torch.zeros(kept.shape, dtype=_DTYPES[entry["dtype"]])
    dense[kept] = values.to(dense.dtype)
    return dense.reshape(shape)


def _kept_all(stored: Mapping[str, torch.Tensor], name: str, shape: MatrixShape) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.bool)


def _kept_by_mask(stored: Mapping[str, torch.Tensor], name: str, shape: MatrixShape) -> torch.Tensor:
    count, mask = math.prod(shape), stored[f"{name}:mask"]
    if count > 8 * len(mask):
        raise ValueError(f"{len(mask)} bytes of places for {count} weights")
    return torch.from_numpy(np.unpackbits(mask.numpy(), count=count).astype(bool)).reshape(shape)


def _kept_by_rows(stored: Mapping[str, torch.Tensor], name: str, shape: MatrixShape) -> torch.Tensor:
    counts, columns = stored[f"{name}:counts"].long(), stored[f"{name}:columns"].to(torch.int64)
    if len(counts) != shape[0] or shape[1] > MOST_COLUMNS:
        raise ValueError(f"{name} has {len(counts)} rows for a shape of {shape}")
    kept = torch.zeros(shape, dtype=torch.bool)
    kept[torch.arange(shape[0]).repeat_interleave(counts), columns] = True
    return kept


def _kept_but_holes(stored: Mapping[str, torch.Tensor], name: str, shape: MatrixShape) -> torch.Tensor:
    kept = torch.ones(math.prod(shape), dtype=torch.bool)
    kept[stored[f"{name}:places"].long()] = False
    return kept.reshape(shape)


_KEPT = {"dense": _kept_all, "bitmask": _kept_by_mask, "rows": _kept_by_rows, "holes": _kept_but_holes}


def _matrix(shape: tuple[int, ...]) -> MatrixShape:
    """Rows and columns of a tensor."""
    return math.prod(shape[:-1]), shape[-1]


def _bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())

"""Packed files: matrices with many zeros as kept values and their places, in one safetensors file, exact.

A matrix is stored in the smallest of three forms: dense; `bitmask`, one bit a weight (1 = kept) and the kept values
row by row; or `rows`, the number of kept values of each row, their columns and the values. The file's metadata has
form, shape and dtype of every tensor. With `bf16` matrices of wider floats are stored in bfloat16, rounded to nearest
even; everything else, and everything without it, comes back bit for bit (a negative zero as a positive one).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from sparsebert.errors import UserError
from sparsebert.models.config import first_line

METADATA = "sparsebert.packed"
MOST_COLUMNS = 2**16
NamedTensors = dict[str, torch.Tensor]
_WIDER = (torch.float64, torch.float32)
_AGAIN = "pack or download it again"
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (*_WIDER, torch.float16, torch.bfloat16)}


class _Entry(BaseModel):
    """What a file says of one tensor."""

    model_config = ConfigDict(strict=True, extra="forbid")

    form: Literal["dense", "bitmask", "rows"]
    shape: list[Annotated[int, Field(ge=0, lt=2**31)]]
    dtype: str


_CONTENTS = TypeAdapter(dict[str, _Entry])


def pack(tensors: Mapping[str, torch.Tensor], bf16: bool = False) -> tuple[NamedTensors, dict[str, dict]]:
    """The stored tensors, and by name what they stand for: form, shape, dtype."""
    stored: NamedTensors = {}
    contents: dict[str, dict] = {}
    for name, tensor in tensors.items():
        rounds = bf16 and tensor.dim() == 2 and tensor.dtype in _WIDER
        values = tensor.to(torch.bfloat16) if rounds else tensor
        forms = {"dense": {"values": values}}
        if tensor.dim() == 2 and str(tensor.dtype).removeprefix("torch.") in _DTYPES:
            forms |= {"bitmask": _bitmask(values), "rows": _rows(values)}
        form = min((kind for kind in forms if forms[kind]), key=lambda kind: _bytes(forms[kind]))
        contents[name] = {"form": form, "shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
        stored |= {f"{name}:{part}": value.contiguous() for part, value in forms[form].items()}
    return stored, contents


def unpack(stored: Mapping[str, torch.Tensor], contents: Mapping[str, dict]) -> NamedTensors:
    """The dense tensors. Raises UserError for parts that are missing or do not fit."""
    try:
        return {name: _dense(stored, name, entry) for name, entry in contents.items()}
    except (IndexError, KeyError, OverflowError, RuntimeError, ValueError) as error:
        raise UserError(
            f"The packed weights do not fit together: {first_line(error)}", fix="pack or download them again"
        ) from None


def write_packed(tensors: Mapping[str, torch.Tensor], file: Path, bf16: bool = False) -> None:
    """Pack into a file."""
    stored, contents = pack(tensors, bf16)
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


def packed_bytes(tensors: Mapping[str, torch.Tensor], bf16: bool = False) -> int:
    """Bytes of the stored tensors, without the file's header."""
    return _bytes(pack(tensors, bf16)[0])


def _bitmask(values: torch.Tensor) -> NamedTensors:
    kept = values != 0
    bits = torch.from_numpy(np.packbits(kept.numpy()))
    return {"mask": bits, "values": values[kept]}


def _rows(values: torch.Tensor) -> NamedTensors:
    """Nothing for a matrix whose columns 16 bits cannot count."""
    if values.shape[1] > MOST_COLUMNS:
        return {}
    kept = values != 0
    columns = torch.from_numpy(kept.numpy().nonzero()[1].astype(np.uint16))
    return {"counts": kept.sum(dim=1, dtype=torch.int32), "columns": columns, "values": values[kept]}


def _dense(stored: Mapping[str, torch.Tensor], name: str, entry: Mapping) -> torch.Tensor:
    shape, values = tuple(entry["shape"]), stored[f"{name}:values"]
    if entry["form"] == "dense":
        return values.reshape(shape).to(_DTYPES.get(entry["dtype"], values.dtype))
    kept = (
        _kept_by_mask(stored[f"{name}:mask"], shape)
        if entry["form"] == "bitmask"
        else _kept_by_rows(stored, name, shape)
    )
    dense = torch.zeros(shape, dtype=_DTYPES[entry["dtype"]])
    if int(kept.sum()) != len(values):
        raise ValueError(f"{name} has {len(values)} values for {int(kept.sum())} places")
    dense[kept] = values.to(dense.dtype)
    return dense


def _kept_by_mask(mask: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    count = math.prod(shape)
    if count > 8 * len(mask):
        raise ValueError(f"{len(mask)} bytes of places for {count} weights")
    return torch.from_numpy(np.unpackbits(mask.numpy(), count=count).astype(bool)).reshape(shape)


def _kept_by_rows(stored: Mapping[str, torch.Tensor], name: str, shape: tuple[int, ...]) -> torch.Tensor:
    counts, columns = stored[f"{name}:counts"].long(), stored[f"{name}:columns"].to(torch.int64)
    if len(counts) != shape[0] or shape[1] > MOST_COLUMNS:
        raise ValueError(f"{name} has {len(counts)} rows for a shape of {shape}")
    kept = torch.zeros(shape, dtype=torch.bool)
    kept[torch.arange(shape[0]).repeat_interleave(counts), columns] = True
    return kept


def _bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())

"""The native library: whether it was built, and which instruction sets it may use here."""

from __future__ import annotations

import ctypes
import functools
import os
import warnings
from pathlib import Path
from typing import Any

# Before the library is loaded, so that both use torch's OpenMP and with it one set of threads.
import torch

from sparsebert.errors import UserError

FILE = Path(__file__).parent / "_native.so"
# Of the interface in csrc/sparsebert.h.
VERSION = 5
FORCE = "SPARSEBERT_ISA"
NONE = "none"
ISAS = ("portable", "avx2", "avx512", "avx512_bf16", "amx")
BF16, AMX = ISAS[-2:]
# AMX in plain code, so that its kernels can be tested on any processor: only where it is asked for by name.
EMULATED = "emulated"
# Those that multiply bf16. A tile is 16 x 32 weights, whether a register of its own holds it or sixteen vectors; only
# with the former does it pay to multiply zeros along: trees go by stages, single values are spread over tiles.
TILED = (BF16, AMX, EMULATED)
SPREADING = (AMX, EMULATED)
ACTIVATIONS = {"gelu": 0, "relu": 1, "none": 2}


@functools.cache
def library() -> ctypes.CDLL | None:
    """The library, None where it was not built. One that cannot be used is warned of, and None too."""
    if not FILE.is_file():
        return None
    try:
        built = ctypes.CDLL(str(FILE))
        found = built.sb_version()
    except (OSError, AttributeError) as error:
        return _unusable(str(error))
    return built if found == VERSION else _unusable(f"it is version {found} and must be {VERSION}")


def isa() -> str | None:
    """The instruction set in use: the best of this processor, or the one that the variable SPARSEBERT_ISA names.

    None where the library was not built, or SPARSEBERT_ISA is `none`. Raises UserError for one that is not there.
    """
    return _chosen(library(), os.environ.get(FORCE) or None)


def _unusable(why: str) -> None:
    warnings.warn(f"The native kernels are not used, install sparsebert again to rebuild them: {why}", stacklevel=3)


def has_tiles() -> bool:
    """Whether it multiplies tiles of bf16."""
    return isa() in TILED


def number(isa_name: str) -> int:
    """By which the library knows an instruction set."""
    return (*ISAS, EMULATED).index(isa_name)


@functools.cache
def _chosen(built: ctypes.CDLL | None, forced: str | None) -> str | None:
    if built is None or forced == NONE:
        return None
    have = ISAS[: built.sb_best_isa() + 1]
    if forced is not None and forced not in (*have, EMULATED):
        raise UserError(
            f"This processor or build does not have what {FORCE} asks for", got=forced, allowed=[*have, NONE]
        )
    return forced or have[-1]


def check_status(code: int, isa_name: str) -> None:
    """Raise RuntimeError if a function returned that it cannot run with this instruction set."""
    if code != 0:
        raise RuntimeError(f"the native library refused the instruction set {isa_name}")


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Uninitialised memory for a function to write to, whatever torch's default type and device are."""
    return torch.empty(shape, dtype=dtype, device="cpu")


@functools.cache
def function(name: str, *arguments: Any) -> Any:
    """One of its functions, after the number of the instruction set. Raises RuntimeError where it was not built."""
    built = library()
    if built is None:
        raise RuntimeError("the native library was not built")
    found = built[name]
    found.argtypes = (ctypes.c_int32, *arguments)
    return found

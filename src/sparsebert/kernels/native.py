"""The native library: whether it was built, and which instruction sets it may use here."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path
from typing import Any

from sparsebert.errors import UserError

FILE = Path(__file__).parent / "_native.so"
FORCE = "SPARSEBERT_ISA"
NONE = "none"
ISAS = ("portable", "avx2", "avx512", "amx")
AMX = ISAS[-1]
# AMX in plain code, so that its kernels can be tested on any processor: only where it is asked for by name.
EMULATED = "emulated"
TILED = (AMX, EMULATED)
ACTIVATIONS = {"gelu": 0, "relu": 1, "none": 2}


@functools.cache
def library() -> ctypes.CDLL | None:
    """The library, None where it was not built."""
    # Torch comes first, so that both use its OpenMP and with it one set of threads.
    import torch  # noqa: F401

    return ctypes.CDLL(str(FILE)) if FILE.is_file() else None


def isa() -> str | None:
    """The instruction set in use: the best of this processor, or the one that the variable SPARSEBERT_ISA names.

    None where the library was not built, or SPARSEBERT_ISA is `none`. Raises UserError for one that is not there.
    """
    return _chosen(library(), os.environ.get(FORCE))


def has_tiles() -> bool:
    """Whether it has bf16 tiles."""
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


def done(code: int, isa_name: str) -> None:
    """Raise RuntimeError if a function gave that it cannot run with this instruction set."""
    if code != 0:
        raise RuntimeError(f"the native library refused the instruction set {isa_name}")


@functools.cache
def function(name: str, *arguments: Any) -> Any:
    """One of its functions, after the number of the instruction set. Raises RuntimeError where it was not built."""
    built = library()
    if built is None:
        raise RuntimeError("the native library was not built")
    found = built[name]
    found.argtypes = (ctypes.c_int32, *arguments)
    return found

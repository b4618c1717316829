"""Fast feedforward layers with bfloat16 weights for many tokens, on the tiles of AMX."""

from __future__ import annotations

import ctypes

import torch

from sparsebert.kernels import native
from sparsebert.kernels.packed import WIDTH
from sparsebert.kernels.reference import levels_of
from sparsebert.kernels.tiled import TiledTree

ROWS_AT_ONCE = 32


class _TileFff(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("tokens", "hidden", "trees", "depth")),
        *((name, ctypes.c_int32) for name in ("activation", "threads")),
    )


def fff(
    x: torch.Tensor, weight: TiledTree, b_in: torch.Tensor, activation: str, isa_name: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Outputs [tokens, hidden], nodes and logits [trees, tokens, depth + 1]; see `reference.fff`.

    x [tokens, hidden] is bfloat16, b_in [trees, nodes] and what is returned float32, nodes int32. Sums are float32,
    activations are rounded to bfloat16. All contiguous, on the CPU. isa_name: `amx`, or `emulated`. Raises ValueError
    for tensors of other kinds.
    """
    _check(x, weight, b_in)
    tokens, levels, threads = len(x), levels_of(weight.nodes), torch.get_num_threads()
    y = native.empty(tokens, weight.hidden)
    nodes = native.empty(weight.trees, tokens, levels, dtype=torch.int32)
    logits = native.empty(weight.trees, tokens, levels)
    across = -(-weight.hidden // WIDTH)
    numbers = native.empty(4 * tokens + 2 ** (levels - 1) + 1, dtype=torch.int32)
    # One block of 32 more than needed: rows of 2^n values would all fall on the same lines of the cache.
    rows = native.empty(threads * ROWS_AT_ONCE * (across + 1) * WIDTH, dtype=torch.bfloat16)
    call = _TileFff(tokens, weight.hidden, weight.trees, levels - 1, native.ACTIVATIONS[activation], threads)
    parts = (x, weight.w_in, b_in, weight.w_out, y, nodes, logits, numbers, rows)
    run = native.function("sb_tile_fff", ctypes.POINTER(_TileFff), *[ctypes.c_void_p] * 9)
    status = run(native.number(isa_name), ctypes.byref(call), *(part.data_ptr() for part in parts))
    native.check_status(status, isa_name)
    return y, nodes, logits


def _check(x: torch.Tensor, weight: TiledTree, b_in: torch.Tensor) -> None:
    if x.dim() != 2 or x.shape[1] != weight.hidden:
        raise ValueError(f"the input must be [tokens, {weight.hidden}], got {tuple(x.shape)}")
    if b_in.shape != (weight.trees, weight.nodes):
        raise ValueError(f"the bias must be {[weight.trees, weight.nodes]}, got {tuple(b_in.shape)}")
    if any(tensor.dtype != torch.bfloat16 for tensor in (x, weight.w_in, weight.w_out)):
        raise ValueError("inputs and weights must be bfloat16")
    if b_in.dtype != torch.float32:
        raise ValueError(f"the bias must be float32, got {b_in.dtype}")
    for tensor in (x, weight.w_in, weight.w_out, b_in):
        if not tensor.is_contiguous() or not tensor.is_cpu:
            raise ValueError("all tensors must be contiguous and on the CPU")

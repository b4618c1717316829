"""Attention of short sequences by the native library."""

from __future__ import annotations

import ctypes

import torch

from sparsebert.kernels import native

MOST_KEYS = 1024
TYPES = (torch.float32, torch.bfloat16)
TURNED, LANES, TOKENS = 32, 16, 12
TOKENS_ON_TILES = 32


class _Strides(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int64) for name in ("batch", "token", "head"))


class _Attention(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "heads", "queries", "keys", "size")),
        *((name, _Strides) for name in ("q", "k", "v")),
        *((name, ctypes.c_int64) for name in ("mask_batch", "mask_head", "mask_query")),
        ("scale", ctypes.c_float),
        ("threads", ctypes.c_int32),
    )


def supports(dtype: torch.dtype, isa_name: str | None) -> bool:
    """Whether there is a kernel for this type with this instruction set; None = no library."""
    return isa_name in native.TILED if dtype == torch.bfloat16 else dtype == torch.float32 and isa_name is not None


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scale: float, isa_name: str
) -> torch.Tensor:
    """softmax(scale q k^T) v as [batch, queries, heads, size], for q [batch, heads, queries, size] and k, v of keys.

    All are float32, or bfloat16 for an instruction set of `native.TILED`, on the CPU, with the values of a head side by
    side; sums and exponentials are float32. The mask is bool, its shape broadcasts to [batch, heads, queries, keys],
    and False = not seen. A query that sees nothing gives zero. Raises ValueError for tensors of other kinds.
    """
    _check(q, k, v)
    (batch, heads, queries, size), keys = q.shape, k.shape[2]
    seen = None if mask is None else _expanded(mask, (batch, heads, queries, keys))
    around = (0, 0, 0) if seen is None else seen.stride()[:3]
    threads, half = torch.get_num_threads(), q.dtype == torch.bfloat16
    needed = _tile_workspace_size(keys, size) if half else _workspace_size(keys, size)
    y = native.empty(batch, queries, heads, size, dtype=q.dtype)
    workspace = native.empty(threads * needed, dtype=q.dtype)
    strides = [_Strides(part.stride(0), part.stride(2), part.stride(1)) for part in (q, k, v)]
    call = _Attention(batch, heads, queries, keys, size, *strides, *around, scale, threads)
    name = "sb_tile_attention" if half else "sb_attention"
    run = native.function(name, ctypes.POINTER(_Attention), *[ctypes.c_void_p] * 6)
    given = (q.data_ptr(), k.data_ptr(), v.data_ptr(), None if seen is None else seen.data_ptr())
    written = (y.data_ptr(), workspace.data_ptr())
    native.check_status(run(native.number(isa_name), ctypes.byref(call), *given, *written), isa_name)
    return y


def _workspace_size(keys: int, size: int) -> int:
    # As csrc/sparsebert.h has it. Padded for whole vectors, and so that rows lie on different lines of the cache.
    turned, wide = -(-keys // TURNED) * TURNED, -(-size // LANES) * LANES
    return turned * size + keys * wide + TOKENS * (turned + LANES + wide)


def _tile_workspace_size(keys: int, size: int) -> int:
    blocks, across = -(-keys // TURNED), -(-size // TURNED)
    rows = TOKENS_ON_TILES * (across + 1 + blocks + 1) * TURNED
    return 2 * blocks * across * TURNED**2 + rows + 2 * TOKENS_ON_TILES * (blocks * TURNED + LANES)


def _expanded(mask: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    if mask.dtype != torch.bool or not mask.is_cpu:
        raise ValueError(f"the mask must be bool and on the CPU, got {mask.dtype}")
    # Keys must lie side by side, which a mask that is the same for all of them does not.
    expanded = mask.expand(shape)
    return expanded if expanded.stride(3) == 1 else expanded.contiguous()


def _check(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    if q.dim() != 4 or k.shape != v.shape or (*q.shape[:2], q.shape[3]) != (*k.shape[:2], k.shape[3]):
        raise ValueError(f"the shapes do not fit together: {[tuple(part.shape) for part in (q, k, v)]}")
    for part in (q, k, v):
        if part.dtype not in TYPES or part.dtype != q.dtype or not part.is_cpu:
            raise ValueError(f"everything must be of one of {TYPES}, and on the CPU, got {q.dtype} and {part.dtype}")
        if part.stride(3) != 1:
            raise ValueError("the values of a head must lie side by side")

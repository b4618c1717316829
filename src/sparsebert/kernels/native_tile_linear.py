"""Sparse linear layers with bfloat16 weights, on the tiles of AMX."""

from __future__ import annotations

import ctypes

import torch

from sparsebert.kernels import native
from sparsebert.kernels.native_linear import ELSEWHERE, Norm, ResidualNorm, check_sizes, norm_for
from sparsebert.kernels.packed import SINGLE, WIDTH
from sparsebert.kernels.tiled import TILE, TiledMatrix

INPUTS = (torch.bfloat16, torch.float32)
# Tokens that a thread works on at once. Blocks are read once for them, and single values spread once, which costs as
# much as some hundred tokens' products; not measured yet.
TOKENS_AT_ONCE, TOKENS_OF_SINGLE = 256, 1024
# Four tiles of sums are computed at once: of 64 tokens where blocks have 16 outputs.
GROUP = 64


class _TileLinear(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("tokens", "inputs", "outputs", "height", "chunk")),
        ("norm", Norm),
        *((name, ctypes.c_int32) for name in ("activation", "bf16", "threads")),
    )


def linear(
    x: torch.Tensor,
    weight: TiledMatrix,
    bias: torch.Tensor | None,
    activation: str,
    isa_name: str,
    norm: ResidualNorm | None = None,
) -> torch.Tensor:
    """activation(x W^T + bias) [tokens, outputs] in x's type, for x [tokens, inputs] and bias [outputs].

    x is bfloat16, or float32 and then rounded to it; sums, bias, gamma and beta are float32, the residual is of x's
    type, and the product is rounded to it before they are added. Everything is contiguous and on the CPU; activation is
    `gelu`, `relu` or `none`. isa_name: `amx`, or `emulated`. Raises ValueError for tensors of other kinds.
    """
    _check(x, weight, bias)
    tokens, threads = len(x), torch.get_num_threads()
    y = x.new_empty(tokens, weight.outputs)
    chunk = _chunk(tokens, weight.height, threads)
    across, tall = -(-weight.inputs // WIDTH), weight.block_height
    scratch = native.room(threads * (chunk * (across + 1) + tall * across) * WIDTH, dtype=torch.bfloat16)
    sizes = (tokens, weight.inputs, weight.outputs, tall, chunk, norm_for(norm, tokens, weight.outputs, x.dtype))
    call = _TileLinear(*sizes, native.ACTIVATIONS[activation], x.dtype == torch.bfloat16, threads)
    parts = (x, weight.values, weight.starts, weight.columns, weight.masks, weight.begins, bias, y, scratch)
    run = native.function("sb_tile_linear", ctypes.POINTER(_TileLinear), *[ctypes.c_void_p] * 9)
    pointers = (None if part is None else part.data_ptr() for part in parts)
    native.done(run(native.number(isa_name), ctypes.byref(call), *pointers), isa_name)
    return y


def _chunk(tokens: int, height: int, threads: int) -> int:
    """A thread's share of tokens, or as many as are worth it. Of single values threads share the spreading too."""
    wanted = min(tokens, TOKENS_OF_SINGLE) if height == SINGLE else min(-(-tokens // threads), TOKENS_AT_ONCE)
    return max(GROUP, -(-wanted // GROUP) * GROUP)


def _check(x: torch.Tensor, weight: TiledMatrix, bias: torch.Tensor | None) -> None:
    check_sizes(x, weight.height, weight.inputs, weight.outputs, bias)
    if not _fits_together(weight):
        raise ValueError(f"values {tuple(weight.values.shape)} and {len(weight.starts)} starts do not fit together")
    numbers = [weight.starts, weight.columns, *(t for t in (weight.masks, weight.begins) if t is not None)]
    if any(tensor.dtype != torch.int32 for tensor in numbers):
        raise ValueError("starts, columns, masks and begins must be int32")
    if x.dtype not in INPUTS or weight.values.dtype != torch.bfloat16:
        raise ValueError(f"bfloat16 weights and an input of {INPUTS}, got {weight.values.dtype} and {x.dtype}")
    if bias is not None and bias.dtype != torch.float32:
        raise ValueError(f"the bias must be float32, got {bias.dtype}")
    for tensor in (x, weight.values, *numbers, *(() if bias is None else (bias,))):
        if not tensor.is_contiguous() or tensor.device.type != "cpu":
            raise ValueError(ELSEWHERE)


def _fits_together(weight: TiledMatrix) -> bool:
    blocks, tiles = len(weight.columns), weight.block_height // TILE
    if weight.starts.shape != (-(-weight.outputs // weight.block_height) + 1,):
        return False
    if weight.height != SINGLE:
        return weight.masks is None and weight.values.shape == (blocks, tiles, TILE, TILE, 2)
    if weight.masks is None or weight.begins is None or weight.values.dim() != 1:
        return False
    return weight.masks.shape == (blocks, tiles, TILE) and weight.begins.shape == (blocks,)

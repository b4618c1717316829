"""Sparse linear layers with bfloat16 weights, on the tiles of AMX or by AVX-512's dot products of bfloat16."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch

from sparsebert.kernels import native
from sparsebert.kernels.native_linear import (
    ELSEWHERE,
    Norm,
    ResidualNorm,
    SparseLayer,
    check_sizes,
    norm_for,
    pointer,
)
from sparsebert.kernels.packed import SINGLE, WIDTH
from sparsebert.kernels.tiled import TILE, TiledMatrix

INPUTS = (torch.bfloat16, torch.float32)
# Tokens that a thread takes through a chain at once. Blocks are read once for them, and single values spread once,
# which costs as much as some hundred tokens' products. Measured with AVX-512's dot products only.
TOKENS_AT_ONCE, TOKENS_OF_SINGLE = 64, 1024
# Four tiles of sums are computed at once: of 64 tokens where blocks have 16 outputs.
GROUP = 64


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("inputs", "outputs", "height")),
        *((name, ctypes.c_void_p) for name in ("values", "starts", "columns", "masks", "begins", "bias")),
        ("activation", ctypes.c_int64),
    )


class _Chain(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("tokens", "layers", "chunk")),
        ("norm", Norm),
        *((name, ctypes.c_int32) for name in ("bf16", "threads")),
    )


def linear(
    x: torch.Tensor,
    weight: TiledMatrix,
    bias: torch.Tensor | None,
    activation: str,
    isa_name: str,
    norm: ResidualNorm | None = None,
) -> torch.Tensor:
    """activation(x W^T + bias) [tokens, outputs] for x [tokens, inputs] and bias [outputs]; see `chain`."""
    return chain(x, [SparseLayer(weight, bias, activation)], norm, isa_name)


def chain(x: torch.Tensor, layers: Sequence[SparseLayer], norm: ResidualNorm | None, isa_name: str) -> torch.Tensor:
    """What layers give one after another [tokens, outputs of the last] in x's type, for x [tokens, inputs].

    x is bfloat16, or float32 and then rounded to it, as is what lies between layers; sums, biases, gamma and beta are
    float32, the residual is of x's type, and the last product is rounded to it before they are added. Everything is
    contiguous and on the CPU. isa_name: one of `native.TILED`. Raises ValueError for tensors of other kinds, or that do
    not fit together.
    """
    weights = [
        _checked(x if i == 0 else x.new_empty(0, layers[i - 1].weight.outputs), layer) for i, layer in enumerate(layers)
    ]
    tokens, outputs, threads = len(x), weights[-1].outputs, torch.get_num_threads()
    chunk = _chunk(tokens, any(weight.height == SINGLE for weight in weights), threads)
    y = x.new_empty(tokens, outputs)
    workspace = native.empty(threads * _workspace_size(chunk, weights), dtype=torch.bfloat16)
    following = norm_for(norm, tokens, outputs, x.dtype)
    call = _Chain(tokens, len(layers), chunk, following, x.dtype == torch.bfloat16, threads)
    stages = (_Layer * len(layers))(*map(_stage, weights, layers))
    run = native.function("sb_tile_linear", ctypes.POINTER(_Chain), ctypes.POINTER(_Layer), *[ctypes.c_void_p] * 3)
    given = (x.data_ptr(), y.data_ptr(), workspace.data_ptr())
    native.check_status(run(native.number(isa_name), ctypes.byref(call), stages, *given), isa_name)
    return y


def _chunk(tokens: int, has_single: bool, threads: int) -> int:
    """A thread's share of tokens, or as many as are worth it. Of single values threads share the spreading too."""
    wanted = min(tokens, TOKENS_OF_SINGLE) if has_single else min(-(-tokens // threads), TOKENS_AT_ONCE)
    return max(GROUP, -(-wanted // GROUP) * GROUP)


def _workspace_size(chunk: int, weights: Sequence[TiledMatrix]) -> int:
    """Of a thread: copies of inputs, twice what lies between layers, and a row of blocks of spread values."""
    across = [-(-weight.inputs // WIDTH) for weight in weights]
    # One block more a row: rows of 2^n values would all fall on the same lines of the cache.
    rows = across[0] + 1 + 2 * max((one + 1 for one in across[1:]), default=0)
    singles = (
        one * weight.block_height for one, weight in zip(across, weights, strict=True) if weight.height == SINGLE
    )
    return (chunk * rows + max(singles, default=0)) * WIDTH


def _stage(weight: TiledMatrix, layer: SparseLayer) -> _Layer:
    parts = (weight.values, weight.starts, weight.columns, weight.masks, weight.begins, layer.bias)
    sizes = (weight.inputs, weight.outputs, weight.block_height)
    return _Layer(*sizes, *map(pointer, parts), native.ACTIVATIONS[layer.activation])


def _checked(x: torch.Tensor, layer: SparseLayer) -> TiledMatrix:
    weight, bias = layer.weight, layer.bias
    if not isinstance(weight, TiledMatrix):
        raise ValueError(f"the weight must be a TiledMatrix, got a {type(weight).__name__}")
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
    return weight


def _fits_together(weight: TiledMatrix) -> bool:
    blocks, tiles = len(weight.columns), weight.block_height // TILE
    if weight.starts.shape != (-(-weight.outputs // weight.block_height) + 1,):
        return False
    if weight.height != SINGLE:
        return weight.masks is None and weight.values.shape == (blocks, tiles, TILE, TILE, 2)
    if weight.masks is None or weight.begins is None or weight.values.dim() != 1:
        return False
    return weight.masks.shape == (blocks, tiles, TILE) and weight.begins.shape == (blocks,)

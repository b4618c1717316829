"""Sparse linear layers by the native library: single values, and chains of layers of blocks."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sparsebert.kernels import native
from sparsebert.kernels.packed import HEIGHTS, SINGLE, WIDTH, PackedMatrix
from sparsebert.kernels.tiled import TiledMatrix

PANEL_TOKENS = 64
FLOAT = (torch.float32,)
# Of single values, whose weights and sums are float32 all the same.
INPUTS = (torch.float32, torch.bfloat16)
# Tokens that a thread takes through a chain at once: a multiple of 12, whose values between layers fill some 300 KB.
GROUP, FLOATS_AT_ONCE, MOST_AT_ONCE = 12, 80_000, 24
ELSEWHERE = "all tensors must be contiguous and on the CPU"


@dataclass(frozen=True)
class SparseLayer:
    """activation(x W^T + bias); activation is `gelu`, `relu` or `none`. Blocks of bfloat16 are in tiles."""

    weight: PackedMatrix | TiledMatrix
    bias: torch.Tensor | None
    activation: str = "none"


@dataclass(frozen=True)
class ResidualNorm:
    """The layer norm of residual [tokens, outputs] plus what a layer gives; gamma and beta [outputs]."""

    residual: torch.Tensor
    gamma: torch.Tensor
    beta: torch.Tensor
    epsilon: float


class _Linear(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("tokens", "inputs", "outputs")),
        *((name, ctypes.c_int32) for name in ("activation", "bf16", "threads")),
    )


class _Blocks(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("inputs", "outputs", "height")),
        *((name, ctypes.c_void_p) for name in ("values", "starts", "columns", "bias")),
        ("activation", ctypes.c_int64),
    )


class Norm(ctypes.Structure):
    """As the library reads a ResidualNorm; all zero = none."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("residual", "gamma", "beta")),
        ("epsilon", ctypes.c_float),
    )


class _Chain(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("tokens", "layers", "chunk")),
        ("norm", Norm),
        ("threads", ctypes.c_int32),
    )


def linear(
    x: torch.Tensor, weight: PackedMatrix, bias: torch.Tensor | None, activation: str, isa_name: str
) -> torch.Tensor:
    """activation(x W^T + bias) [tokens, outputs] for x [tokens, inputs] and bias [outputs].

    Everything is float32, but for single values x may be bfloat16, and with it the result; contiguous and on the CPU.
    activation is `gelu`, `relu` or `none`. Raises ValueError for tensors of other kinds.
    """
    layer = SparseLayer(weight, bias, activation)
    if weight.height != SINGLE:
        return chain(x, [layer], None, isa_name)
    _check(x, layer, INPUTS)
    threads = torch.get_num_threads()
    y = native.empty(len(x), weight.outputs, dtype=x.dtype)
    workspace = native.empty(threads * PANEL_TOKENS * weight.inputs)
    kind = native.ACTIVATIONS[activation]
    call = _Linear(len(x), weight.inputs, weight.outputs, kind, x.dtype == torch.bfloat16, threads)
    parts = (x, weight.values, weight.starts, weight.columns)
    run = native.function("sb_elements", ctypes.POINTER(_Linear), *[ctypes.c_void_p] * 7)
    given = (*(part.data_ptr() for part in parts), pointer(bias), y.data_ptr(), workspace.data_ptr())
    native.check_status(run(native.number(isa_name), ctypes.byref(call), *given), isa_name)
    return y


def chain(x: torch.Tensor, layers: Sequence[SparseLayer], norm: ResidualNorm | None, isa_name: str) -> torch.Tensor:
    """What layers of blocks give one after another [tokens, outputs of the last], for x [tokens, inputs].

    What lies between them stays in a core's cache. Everything is float32, contiguous and on the CPU. Raises ValueError
    for tensors of other kinds, or that do not fit together.
    """
    for index, layer in enumerate(layers):
        _check(x if index == 0 else x.new_empty(0, layers[index - 1].weight.outputs), layer)
        if layer.weight.height == SINGLE:
            raise ValueError("a chain is of blocks, not of single values")
    outputs, widest = layers[-1].weight.outputs, max(layer.weight.inputs for layer in layers)
    tokens, threads = len(x), torch.get_num_threads()
    chunk = _chunk(tokens, sum(layer.weight.inputs for layer in layers), threads)
    y, workspace = native.empty(tokens, outputs), native.empty(threads * 2 * chunk * (-(-widest // WIDTH) * WIDTH))
    call = _Chain(tokens, len(layers), chunk, norm_for(norm, tokens, outputs, torch.float32), threads)
    stages = (_Blocks * len(layers))(*[_stage(layer) for layer in layers])
    run = native.function("sb_blocks", ctypes.POINTER(_Chain), ctypes.POINTER(_Blocks), *[ctypes.c_void_p] * 3)
    given = (x.data_ptr(), y.data_ptr(), workspace.data_ptr())
    native.check_status(run(native.number(isa_name), ctypes.byref(call), stages, *given), isa_name)
    return y


def check_sizes(x: torch.Tensor, height: int, inputs: int, outputs: int, bias: torch.Tensor | None) -> None:
    """Raise ValueError if a weight cannot have blocks of this height, or x or bias do not fit it."""
    if height not in (SINGLE, *HEIGHTS):
        raise ValueError(f"blocks must have {' or '.join(map(str, HEIGHTS))} outputs, got {height}")
    if x.dim() != 2 or x.shape[1] != inputs:
        raise ValueError(f"the input must be [tokens, {inputs}], got {tuple(x.shape)}")
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"the bias must be [{outputs}], got {tuple(bias.shape)}")


def norm_for(norm: ResidualNorm | None, tokens: int, outputs: int, dtype: torch.dtype) -> Norm:
    """Raises ValueError if it does not fit a result [tokens, outputs] of `dtype`; gamma and beta are float32."""
    if norm is None:
        return Norm()
    if norm.residual.shape != (tokens, outputs) or not norm.gamma.shape == norm.beta.shape == (outputs,):
        raise ValueError(f"the residual must be [{tokens}, {outputs}], and gamma and beta [{outputs}]")
    _check_tensor(norm.residual, (dtype,))
    for tensor in (norm.gamma, norm.beta):
        _check_tensor(tensor)
    return Norm(norm.residual.data_ptr(), norm.gamma.data_ptr(), norm.beta.data_ptr(), norm.epsilon)


def _stage(layer: SparseLayer) -> _Blocks:
    weight = layer.weight
    pointers = (weight.values.data_ptr(), weight.starts.data_ptr(), weight.columns.data_ptr(), pointer(layer.bias))
    return _Blocks(weight.inputs, weight.outputs, weight.height, *pointers, native.ACTIVATIONS[layer.activation])


def pointer(tensor: torch.Tensor | None) -> int | None:
    """Where it lies; None is null."""
    return None if tensor is None else tensor.data_ptr()


def _chunk(tokens: int, inputs: int, threads: int) -> int:
    fit = min(MOST_AT_ONCE, max(GROUP, FLOATS_AT_ONCE // max(1, inputs) // GROUP * GROUP))
    # No more than a thread's share, else threads would stand idle; whole groups, as the kernel takes 12 tokens at once.
    share = -(-tokens // threads)
    return min(fit, max(GROUP, -(-share // GROUP) * GROUP))


def _check(x: torch.Tensor, layer: SparseLayer, inputs: Sequence[torch.dtype] = FLOAT) -> None:
    weight, bias = layer.weight, layer.bias
    if not isinstance(weight, PackedMatrix):
        raise ValueError(f"the weight must be a PackedMatrix, got a {type(weight).__name__}")
    check_sizes(x, weight.height, weight.inputs, weight.outputs, bias)
    rows = weight.outputs if weight.height == SINGLE else -(-weight.outputs // weight.height)
    shape = (len(weight.columns),) if weight.height == SINGLE else (len(weight.columns), WIDTH, weight.height)
    if weight.starts.shape != (rows + 1,) or weight.values.shape != shape:
        raise ValueError(f"values {tuple(weight.values.shape)} and {len(weight.starts)} starts do not fit together")
    if weight.starts.dtype != torch.int32 or weight.columns.dtype != torch.int32:
        raise ValueError("starts and columns must be int32")
    _check_tensor(x, inputs)
    for tensor in (weight.values, bias):
        if tensor is not None:
            _check_tensor(tensor)
    for tensor in (weight.starts, weight.columns):
        if not tensor.is_contiguous() or not tensor.is_cpu:
            raise ValueError(ELSEWHERE)


def _check_tensor(tensor: torch.Tensor, allowed: Sequence[torch.dtype] = FLOAT) -> None:
    if tensor.dtype not in allowed:
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
        raise ValueError(f"everything must be {names}, got {tensor.dtype}")
    if not tensor.is_contiguous() or not tensor.is_cpu:
        raise ValueError(ELSEWHERE)

"""Sparse linear layers by the native library."""

from __future__ import annotations

import ctypes

import torch

from sparsebert.kernels import native
from sparsebert.kernels.packed import HEIGHTS, SINGLE, WIDTH, PackedMatrix

PANEL_TOKENS = 64
PADDING = 16
# Tokens that a thread of the block kernel works on at once: a multiple of 12, whose inputs fill some 80 KB.
GROUP, FLOATS_AT_ONCE = 12, 20_000


class _Linear(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("tokens", "inputs", "outputs")),
        *((name, ctypes.c_int32) for name in ("activation", "threads")),
    )


def linear(
    x: torch.Tensor, weight: PackedMatrix, bias: torch.Tensor | None, activation: str, isa_name: str
) -> torch.Tensor:
    """activation(x W^T + bias) [tokens, outputs] for x [tokens, inputs] and bias [outputs].

    Everything is float32, contiguous and on the CPU; activation is `gelu`, `relu` or `none`. Raises ValueError for
    tensors of other kinds.
    """
    _check(x, weight, bias)
    tokens, threads = len(x), torch.get_num_threads()
    y = torch.empty(tokens, weight.outputs)
    call = _Linear(tokens, weight.inputs, weight.outputs, native.ACTIVATIONS[activation], threads)
    tensors = (weight.values, weight.starts, weight.columns)
    given = (*(tensor.data_ptr() for tensor in tensors), None if bias is None else bias.data_ptr(), y.data_ptr())
    if weight.height == SINGLE:
        scratch = torch.empty(threads * PANEL_TOKENS * weight.inputs)
        run = native.function("sb_elements", ctypes.POINTER(_Linear), *[ctypes.c_void_p] * 7)
        sizes: tuple[int, ...] = ()
    else:
        chunk = _chunk(tokens, max(1, weight.inputs), threads)
        scratch = torch.empty(threads * chunk * (weight.inputs + PADDING))
        run = native.function(
            "sb_blocks", ctypes.POINTER(_Linear), ctypes.c_int64, ctypes.c_int64, *[ctypes.c_void_p] * 7
        )
        sizes = (weight.height, chunk)
    isa_number = native.ISAS.index(isa_name)
    if run(isa_number, ctypes.byref(call), *sizes, x.data_ptr(), *given, scratch.data_ptr()) != 0:
        raise RuntimeError(f"the native library refused the instruction set {isa_name}")
    return y


def _chunk(tokens: int, inputs: int, threads: int) -> int:
    fit = max(GROUP, FLOATS_AT_ONCE // inputs // GROUP * GROUP)
    share = -(-tokens // threads)
    return min(fit, max(GROUP, -(-share // GROUP) * GROUP))


def _check(x: torch.Tensor, weight: PackedMatrix, bias: torch.Tensor | None) -> None:
    if weight.height not in (SINGLE, *HEIGHTS):
        raise ValueError(f"blocks must have {' or '.join(map(str, HEIGHTS))} outputs, got {weight.height}")
    if x.dim() != 2 or x.shape[1] != weight.inputs:
        raise ValueError(f"the input must be [tokens, {weight.inputs}], got {tuple(x.shape)}")
    if bias is not None and bias.shape != (weight.outputs,):
        raise ValueError(f"the bias must be [{weight.outputs}], got {tuple(bias.shape)}")
    rows = weight.outputs if weight.height == SINGLE else -(-weight.outputs // weight.height)
    shape = (len(weight.columns),) if weight.height == SINGLE else (len(weight.columns), WIDTH, weight.height)
    if weight.starts.shape != (rows + 1,) or weight.values.shape != shape:
        raise ValueError(f"values {tuple(weight.values.shape)} and {len(weight.starts)} starts do not fit together")
    if weight.starts.dtype != torch.int32 or weight.columns.dtype != torch.int32:
        raise ValueError("starts and columns must be int32")
    floats = [tensor for tensor in (x, weight.values, bias) if tensor is not None]
    if any(tensor.dtype != torch.float32 for tensor in floats):
        raise ValueError(f"everything must be float32, got {[str(tensor.dtype) for tensor in floats]}")
    for tensor in (*floats, weight.starts, weight.columns):
        if not tensor.is_contiguous() or tensor.device.type != "cpu":
            raise ValueError("all tensors must be contiguous and on the CPU")

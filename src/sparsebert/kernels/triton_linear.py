"""Block-sparse linear layers on a GPU, in Triton. Also runs on a CPU with TRITON_INTERPRET=1 set before import."""

# Inside a kernel names mean what Triton makes of them, which a type checker does not see.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl

from sparsebert.kernels.native_linear import check_sizes
from sparsebert.kernels.packed import SINGLE, WIDTH, PackedMatrix
from sparsebert.kernels.triton_fff import _active, on_device_of

TOKENS_AT_ONCE = 64


def linear(x: torch.Tensor, weight: PackedMatrix, bias: torch.Tensor | None, activation: str) -> torch.Tensor:
    """activation(x W^T + bias) [tokens, outputs] in x's type, for blocks; x contiguous, values of x's type.

    Raises ValueError for a weight of single values, and for tensors of other kinds.
    """
    if weight.height == SINGLE:
        raise ValueError("there is no kernel for single values on a GPU")
    check_sizes(x, weight.height, weight.inputs, weight.outputs, bias)
    if x.dtype != weight.values.dtype or not x.is_contiguous():
        raise ValueError(f"the input must be contiguous and {weight.values.dtype}, got {x.dtype}")
    with on_device_of(x):
        return _linear(x, weight, bias, activation)


def _linear(x: torch.Tensor, weight: PackedMatrix, bias: torch.Tensor | None, activation: str) -> torch.Tensor:
    tokens = len(x)
    y = torch.empty(tokens, weight.outputs, dtype=x.dtype, device=x.device)
    if tokens == 0:
        return y
    grid = (triton.cdiv(tokens, TOKENS_AT_ONCE), len(weight.starts) - 1)
    parts = (weight.values, weight.starts, weight.columns, x if bias is None else bias)
    sizes = {"M": TOKENS_AT_ONCE, "HEIGHT": weight.height, "WIDE": WIDTH}
    how = {"BIASED": bias is not None, "ACTIVATED": activation != "none", "RELU": activation == "relu"}
    _blocks[grid](x, *parts, y, tokens, weight.inputs, weight.outputs, **sizes, **how)
    return y


@triton.jit
def _blocks(
    x,
    values,
    starts,
    columns,
    bias,
    y,
    tokens,
    inputs,
    outputs,
    M: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDE: tl.constexpr,
    BIASED: tl.constexpr,
    ACTIVATED: tl.constexpr,
    RELU: tl.constexpr,
):
    row = tl.program_id(1)
    token = (tl.program_id(0) * M + tl.arange(0, M)).to(tl.int64)
    here = token < tokens
    down, across = tl.arange(0, HEIGHT), tl.arange(0, WIDE)
    total = tl.zeros([M, HEIGHT], dtype=tl.float32)
    for block in range(tl.load(starts + row), tl.load(starts + row + 1)):
        cols = tl.load(columns + block) * WIDE + across
        given = tl.load(
            x + token[:, None] * inputs + cols[None, :], mask=here[:, None] & (cols < inputs)[None, :], other=0.0
        )
        weight = tl.load(values + block * WIDE * HEIGHT + across[:, None] * HEIGHT + down[None, :])
        total += tl.dot(given, weight, input_precision="ieee")
    output = row * HEIGHT + down
    inside = output < outputs
    if BIASED:
        total += tl.load(bias + output, mask=inside, other=0.0).to(tl.float32)[None, :]
    if ACTIVATED:
        total = _active(total, RELU)
    tl.store(
        y + token[:, None] * outputs + output[None, :],
        total.to(y.dtype.element_ty),
        mask=here[:, None] & inside[None, :],
    )

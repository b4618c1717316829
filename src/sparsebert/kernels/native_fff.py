"""Fast feedforward layers by the native library."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sparsebert.kernels import native
from sparsebert.kernels.reference import levels_of

WEIGHTS = (torch.float32, torch.bfloat16)


class _Fff(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("tokens", "hidden", "trees", "depth", "sort_level")),
        *((name, ctypes.c_int32) for name in ("activation", "bf16", "threads")),
    )


def fff(
    x: torch.Tensor,
    w_in: torch.Tensor,
    b_in: torch.Tensor,
    w_out: torch.Tensor,
    activation: str,
    sort_level: int,
    isa_name: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs [tokens, hidden], and the ways for `fff_ways`; see `reference.fff`.

    x and b_in are float32, w_in and w_out float32 or bfloat16 (sums are float32), all contiguous, on the CPU. Tokens
    are sorted by the node that they reach at `sort_level`; 0 = not. Raises ValueError for tensors of other kinds.
    """
    for tensor in (x, w_in, b_in, w_out):
        if not tensor.is_contiguous() or not tensor.is_cpu:
            raise ValueError("all tensors must be contiguous and on the CPU")
    shapes, types = (x.shape, w_in.shape, b_in.shape, w_out.shape), (x.dtype, w_in.dtype, b_in.dtype, w_out.dtype)
    plan = _plan(shapes, types, activation, sort_level, torch.get_num_threads())
    y = torch.empty_like(x)
    # One allocation for nodes, logits and what the kernel needs to sort: for one token, making tensors is the cost.
    ways = torch.empty(plan.room, dtype=torch.int32)
    start = ways.data_ptr()
    parts = (y.data_ptr(), start, start + 4 * plan.steps, start + 8 * plan.steps)
    given = (x.data_ptr(), w_in.data_ptr(), b_in.data_ptr(), w_out.data_ptr())
    run = native.function("sb_fff", ctypes.POINTER(_Fff), *[ctypes.c_void_p] * 8)
    if run(native.number(isa_name), plan.call, *given, *parts) != 0:
        raise RuntimeError(f"the native library refused the instruction set {isa_name}")
    return y, ways


def fff_ways(ways: torch.Tensor, trees: int, tokens: int, levels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The nodes and logits of a call of `fff`, both [trees, tokens, levels]."""
    steps = trees * tokens * levels
    nodes, logits = ways[:steps], ways[steps : 2 * steps].view(torch.float32)
    return nodes.view(trees, tokens, levels), logits.view(trees, tokens, levels)


@dataclass(frozen=True)
class _Plan:
    """What calls with the same shapes share: steps of all tokens, and int32 of room for ways and sorting."""

    call: Any
    steps: int
    room: int


@functools.lru_cache(maxsize=256)
def _plan(
    shapes: Sequence[torch.Size], types: Sequence[torch.dtype], activation: str, sort_level: int, threads: int
) -> _Plan:
    _check(shapes, types)
    (tokens, hidden), (trees, nodes, _), *_rest = shapes
    levels = levels_of(nodes)
    steps = trees * tokens * levels
    numbers = (native.ACTIVATIONS[activation], types[1] == torch.bfloat16, threads)
    call = _Fff(tokens, hidden, trees, levels - 1, sort_level, *numbers)
    return _Plan(ctypes.byref(call), steps, 2 * steps + 2 * tokens + 2**levels + 1)


def _check(shapes: Sequence[torch.Size], types: Sequence[torch.dtype]) -> None:
    x, w_in, b_in, w_out = shapes
    if len(x) != 2 or len(w_in) != 3 or x[1] != w_in[2] or b_in != w_in[:2] or w_out != w_in:
        raise ValueError(f"the shapes do not fit together: {[tuple(shape) for shape in shapes]}")
    if w_in[1] & (w_in[1] + 1) or w_in[1] == 0:
        raise ValueError(f"a tree must have 2^(depth + 1) - 1 nodes, got {w_in[1]}")
    if types[0] != torch.float32 or types[2] != torch.float32 or types[1] != types[3]:
        raise ValueError("inputs and biases must be float32, and both weights of one type")
    if types[1] not in WEIGHTS:
        raise ValueError(f"weights must be float32 or bfloat16, got {types[1]}")

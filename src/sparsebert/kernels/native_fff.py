"""Fast feedforward layers by the native library."""

from __future__ import annotations

import ctypes

import torch

from sparsebert.kernels import native

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
    _check_fff(x, w_in, b_in, w_out)
    tokens, hidden = x.shape
    trees, nodes, _ = w_in.shape
    levels = (nodes + 1).bit_length() - 1
    y = torch.empty_like(x)
    steps = trees * tokens * levels
    # One allocation for nodes, logits and what the kernel needs to sort: for one token, making tensors is the cost.
    ways = torch.empty(2 * steps + 2 * tokens + 2**levels + 1, dtype=torch.int32)
    start = ways.data_ptr()
    parts = (y.data_ptr(), start, start + 4 * steps, start + 8 * steps)
    call = _Fff(
        tokens,
        hidden,
        trees,
        levels - 1,
        sort_level,
        native.ACTIVATIONS[activation],
        w_in.dtype == torch.bfloat16,
        torch.get_num_threads(),
    )
    run = native.function("sb_fff", ctypes.POINTER(_Fff), *[ctypes.c_void_p] * 8)
    given = (x.data_ptr(), w_in.data_ptr(), b_in.data_ptr(), w_out.data_ptr())
    if run(native.ISAS.index(isa_name), ctypes.byref(call), *given, *parts) != 0:
        raise RuntimeError(f"the native library refused the instruction set {isa_name}")
    return y, ways


def fff_ways(ways: torch.Tensor, trees: int, tokens: int, levels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The nodes and logits of a call of `fff`, both [trees, tokens, levels]."""
    steps = trees * tokens * levels
    nodes, logits = ways[:steps], ways[steps : 2 * steps].view(torch.float32)
    return nodes.view(trees, tokens, levels), logits.view(trees, tokens, levels)


def _check_fff(x: torch.Tensor, w_in: torch.Tensor, b_in: torch.Tensor, w_out: torch.Tensor) -> None:
    shape = w_in.shape
    if x.dim() != 2 or x.shape[1] != shape[2] or b_in.shape != shape[:2] or w_out.shape != shape:
        raise ValueError(f"the shapes do not fit together: {[tuple(t.shape) for t in (x, w_in, b_in, w_out)]}")
    if shape[1] & (shape[1] + 1) or shape[1] == 0:
        raise ValueError(f"a tree must have 2^(depth + 1) - 1 nodes, got {shape[1]}")
    if x.dtype != torch.float32 or b_in.dtype != torch.float32 or w_in.dtype != w_out.dtype:
        raise ValueError("inputs and biases must be float32, and both weights of one type")
    if w_in.dtype not in WEIGHTS:
        raise ValueError(f"weights must be float32 or bfloat16, got {w_in.dtype}")
    for tensor in (x, w_in, b_in, w_out):
        if not tensor.is_contiguous() or tensor.is_cuda:
            raise ValueError("all tensors must be contiguous and on the CPU")

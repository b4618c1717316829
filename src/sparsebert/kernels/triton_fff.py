"""Fast feedforward layers on a GPU, in Triton. Also runs on a CPU, slowly, with TRITON_INTERPRET=1 set before import.

Few tokens walk, one program each. Many go by stages of up to six levels: all 63 nodes of a stage's subtree are one
dense product for the tokens that enter it, whose values off the path are then zeroed, so that the second product is
dense too; between stages tokens are sorted by the subtree that they enter. Weights are read once a block of tokens.
"""

# Inside a kernel names mean what Triton makes of them, which a type checker does not see.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl

from sparsebert.kernels.reference import check_tree, levels_of

WALK_BELOW = 64
STAGE_LEVELS = 6
TOKENS_AT_ONCE, INPUTS_AT_ONCE = 64, 64


def fff(x: torch.Tensor, w_in: torch.Tensor, b_in: torch.Tensor, w_out: torch.Tensor, activation: str) -> torch.Tensor:
    """Outputs [tokens, hidden] in x's type; see `reference.fff`. All tensors contiguous, x and weights of one type.

    Raises ValueError for tensors of other kinds.
    """
    _check(x, w_in, b_in, w_out)
    with on_device_of(x):
        return _fff(x, w_in, b_in, w_out, activation)


def on_device_of(x: torch.Tensor) -> AbstractContextManager[object]:
    """Triton starts kernels on the current GPU, wherever the tensors are."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _check(x: torch.Tensor, w_in: torch.Tensor, b_in: torch.Tensor, w_out: torch.Tensor) -> None:
    check_tree(w_in, b_in, w_out)
    if x.dim() != 2 or x.shape[1] != w_in.shape[2]:
        raise ValueError(f"the input must be [tokens, {w_in.shape[2]}], got {tuple(x.shape)}")
    if not x.dtype == w_in.dtype == w_out.dtype:
        raise ValueError(f"input and weights must be of one type, got {x.dtype}, {w_in.dtype} and {w_out.dtype}")
    if any(not part.is_contiguous() or part.device != x.device for part in (x, w_in, b_in, w_out)):
        raise ValueError("all tensors must be contiguous and on one device")


def _fff(x: torch.Tensor, w_in: torch.Tensor, b_in: torch.Tensor, w_out: torch.Tensor, activation: str) -> torch.Tensor:
    tokens, hidden = x.shape
    y = torch.empty(tokens, hidden, dtype=torch.float32, device=x.device)
    if tokens == 0:
        return y.to(x.dtype)
    if tokens < WALK_BELOW:
        trees, nodes, _ = w_in.shape
        levels = levels_of(nodes)
        shape = {"TREES": trees, "LEVELS": levels, "WIDE": triton.next_power_of_2(hidden)}
        _walk[(tokens,)](x, w_in, b_in, w_out, y, hidden, nodes, **shape, RELU=activation == "relu")
    else:
        for tree in range(len(w_in)):
            _by_stages(x, w_in[tree], b_in[tree], w_out[tree], y, tree == 0, activation)
    return y.to(x.dtype)


def _by_stages(
    x: torch.Tensor,
    w_in: torch.Tensor,
    b_in: torch.Tensor,
    w_out: torch.Tensor,
    y: torch.Tensor,
    first: bool,
    activation: str,
) -> None:
    tokens, hidden = x.shape
    levels = levels_of(len(w_in))
    node = torch.zeros(tokens, dtype=torch.int32, device=x.device)
    for level in range(0, levels, STAGE_LEVELS):
        order, blocks = _grouped(node, level)
        deep = min(STAGE_LEVELS, levels - level)
        # 16 is the least that `tl.dot` multiplies.
        sizes = {"LEVELS": deep, "WIDTH": max(16, 2**deep), "M": TOKENS_AT_ONCE, "K": INPUTS_AT_ONCE}
        how = {"FIRST": first and level == 0, "RELU": activation == "relu"}
        _stage[(len(blocks),)](x, w_in, b_in, w_out, y, order, blocks, node, hidden, **sizes, **how)


def _grouped(node: torch.Tensor, level: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens in the order of their nodes, all of `level`, and [first, end, node] of blocks that share a node.

    Their number is fixed by the number of tokens, so that nothing waits for the GPU; those left over are empty.
    """
    count, first = 2**level, 2**level - 1
    ordered, order = torch.sort(node)
    ends = torch.searchsorted(
        ordered, torch.arange(first, first + count, device=node.device, dtype=node.dtype), right=True
    )
    starts = torch.nn.functional.pad(ends[:-1], (1, 0))
    blocks_end = ((ends - starts + TOKENS_AT_ONCE - 1) // TOKENS_AT_ONCE).cumsum(0)
    block = torch.arange(len(node) // TOKENS_AT_ONCE + count, device=node.device)
    group = torch.searchsorted(blocks_end, block, right=True).clamp(max=count - 1)
    before = torch.nn.functional.pad(blocks_end[:-1], (1, 0))[group]
    begin = (starts[group] + (block - before) * TOKENS_AT_ONCE).clamp(max=len(node))
    empty = block >= blocks_end[-1]
    table = torch.stack([begin, torch.where(empty, begin, ends[group]), first + group], dim=1)
    return order.int(), table.int()


@triton.jit
def _active(logits, RELU: tl.constexpr):
    if RELU:
        return tl.where(logits < 0, 0.0, logits)
    return 0.5 * logits * (1.0 + tl.erf(logits * 0.7071067811865476))


@triton.jit
def _walk(
    x,
    w_in,
    b_in,
    w_out,
    y,
    hidden,
    nodes,
    TREES: tl.constexpr,
    LEVELS: tl.constexpr,
    WIDE: tl.constexpr,
    RELU: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, WIDE)
    there = cols < hidden
    given = tl.load(x + token * hidden + cols, mask=there, other=0.0).to(tl.float32)
    total = tl.zeros([WIDE], dtype=tl.float32)
    for tree in range(TREES):
        node = tree * nodes.to(tl.int64)
        for _ in range(LEVELS):
            row = tl.load(w_in + node * hidden + cols, mask=there, other=0.0).to(tl.float32)
            logit = tl.sum(given * row, axis=0) + tl.load(b_in + node).to(tl.float32)
            out = tl.load(w_out + node * hidden + cols, mask=there, other=0.0).to(tl.float32)
            total += _active(logit, RELU) * out
            at = node - tree * nodes
            node = tree * nodes + 2 * at + 1 + (logit > 0).to(tl.int64)
    tl.store(y + token * hidden + cols, total, mask=there)


@triton.jit
def _stage(
    x,
    w_in,
    b_in,
    w_out,
    y,
    order,
    blocks,
    entered,
    hidden,
    LEVELS: tl.constexpr,
    WIDTH: tl.constexpr,
    M: tl.constexpr,
    K: tl.constexpr,
    FIRST: tl.constexpr,
    RELU: tl.constexpr,
):
    block = tl.program_id(0)
    begin, end = tl.load(blocks + 3 * block), tl.load(blocks + 3 * block + 1)
    root = tl.load(blocks + 3 * block + 2)
    if begin < end:
        rows = begin + tl.arange(0, M)
        here = rows < end
        token = tl.load(order + rows, mask=here, other=0).to(tl.int64)
        # Local number i of level j is node root * 2^j + i of the tree: both count from the left, level by level.
        local = tl.arange(0, WIDTH)
        power = tl.full([WIDTH], 1, tl.int32)
        for j in tl.static_range(1, LEVELS):
            power = tl.where(local + 1 >= 2**j, 2**j, power)
        real = local < 2**LEVELS - 1
        node = tl.where(real, root * power + local, 0).to(tl.int64)
        logits = tl.zeros([M, WIDTH], dtype=tl.float32)
        for k in range(0, hidden, K):
            cols = k + tl.arange(0, K)
            inside = cols < hidden
            given = tl.load(
                x + token[:, None] * hidden + cols[None, :], mask=here[:, None] & inside[None, :], other=0.0
            )
            weight = tl.load(
                w_in + node[None, :] * hidden + cols[:, None], mask=real[None, :] & inside[:, None], other=0.0
            )
            # In TF32 a logit near zero could change its sign, and its token would go to another child.
            logits += tl.dot(given, weight, input_precision="ieee")
        logits += tl.load(b_in + node, mask=real, other=0.0).to(tl.float32)[None, :]
        # A token's node is its own, and registers cannot be indexed: its logit is picked by a sum over all nodes.
        at = tl.zeros([M], dtype=tl.int32)
        on_path = tl.zeros([M, WIDTH], dtype=tl.int1)
        for _ in tl.static_range(LEVELS):
            mine = local[None, :] == at[:, None]
            on_path = on_path | mine
            logit = tl.sum(tl.where(mine, logits, 0.0), axis=1)
            at = 2 * at + 1 + (logit > 0).to(tl.int32)
        tl.store(entered + token, root * 2**LEVELS + at, mask=here)
        active = tl.where(on_path, _active(logits, RELU), 0.0)
        for k in range(0, hidden, K):
            cols = k + tl.arange(0, K)
            inside = cols < hidden
            weight = tl.load(
                w_out + node[:, None] * hidden + cols[None, :], mask=real[:, None] & inside[None, :], other=0.0
            )
            part = tl.dot(active.to(weight.dtype), weight, input_precision="ieee")
            to = y + token[:, None] * hidden + cols[None, :]
            both = here[:, None] & inside[None, :]
            if not FIRST:
                part += tl.load(to, mask=both, other=0.0)
            tl.store(to, part, mask=both)

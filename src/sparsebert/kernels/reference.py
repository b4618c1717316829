"""What every kernel must compute, in plain PyTorch: clear first, and the path taken where nothing faster is there."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"gelu": F.gelu, "relu": F.relu}


def levels_of(nodes: int) -> int:
    """Of a tree of so many nodes."""
    # While torch.jit traces, sizes are tensors.
    return (int(nodes) + 1).bit_length() - 1


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, activation: str) -> torch.Tensor:
    """activation(x W^T + bias) [..., outputs]; activation is `gelu`, `relu` or `none`."""
    y = F.linear(x, weight, bias)
    return y if activation == "none" else ACTIVATIONS[activation](y)


def check_tree(w_in: torch.Tensor, b_in: torch.Tensor, w_out: torch.Tensor) -> None:
    """Raise ValueError unless these are weights [trees, nodes, hidden] and biases [trees, nodes] of binary trees."""
    if w_in.dim() != 3 or b_in.shape != w_in.shape[:2] or w_out.shape != w_in.shape:
        raise ValueError(f"the shapes do not fit together: {[tuple(weight.shape) for weight in (w_in, b_in, w_out)]}")
    nodes = w_in.shape[1]
    if nodes & (nodes + 1) or nodes == 0:
        raise ValueError(f"a tree must have 2^(depth + 1) - 1 nodes, got {nodes}")


def fff_route(x: torch.Tensor, w_in: torch.Tensor, b_in: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The nodes that tokens visit, and the logits there, both [trees, tokens, depth + 1].

    x [tokens, hidden], w_in [trees, nodes, hidden], b_in [trees, nodes] with nodes = 2^(depth + 1) - 1. From node n a
    token goes to 2n + 1, or to 2n + 2 where the logit is positive (Belcak & Wattenhofer 2023, arXiv:2311.10770,
    algorithm 1).
    """
    trees, nodes, _ = w_in.shape
    levels = levels_of(nodes)
    # Not len(x), which an exporter takes for a constant.
    node = torch.zeros(trees, x.shape[0], dtype=torch.long, device=x.device)
    tree = torch.arange(trees, device=x.device)[:, None]
    visited, logits = [], []
    for _ in range(levels):
        logit = torch.einsum("th,kth->kt", x, w_in[tree, node].to(x.dtype)) + b_in[tree, node].to(x.dtype)
        visited.append(node)
        logits.append(logit)
        node = 2 * node + 1 + (logit > 0).long()
    return torch.stack(visited, dim=-1), torch.stack(logits, dim=-1)


def fff(x: torch.Tensor, w_in: torch.Tensor, b_in: torch.Tensor, w_out: torch.Tensor, activation: str) -> torch.Tensor:
    """Outputs [tokens, hidden]: over all trees, the output rows of the visited nodes times their activations.

    w_out is [trees, nodes, hidden]; for the rest see `fff_route`. Raises ValueError for weights that are not of trees.
    """
    check_tree(w_in, b_in, w_out)
    visited, logits = fff_route(x, w_in, b_in)
    active = ACTIVATIONS[activation](logits)
    y = torch.zeros_like(x)
    for tree in range(len(w_in)):
        for level in range(visited.shape[-1]):
            y += active[tree, :, level, None] * w_out[tree][visited[tree, :, level]].to(x.dtype)
    return y

"""Fast feedforward layers by the native library."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch

from sparsebert.kernels import native
from sparsebert.kernels.reference import check_tree, levels_of

WEIGHTS = (torch.float32, torch.bfloat16)
# Tokens from which sorting pays, and the level by whose nodes they are sorted.
SORTED_FROM, SORTED_AT = 256, 7
PLANS = 256


class _Fff(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("tokens", "hidden", "trees", "depth", "sort_level")),
        *((name, ctypes.c_void_p) for name in ("w_in", "b_in", "w_out")),
        *((name, ctypes.c_int32) for name in ("activation", "bf16", "threads")),
    )


@dataclass(frozen=True)
class _Plan:
    """What calls with as many tokens share.

    steps: of all tokens. workspace: int32 for paths and sorting. alone: whether it can do without.
    """

    call: _Fff
    address: int
    steps: int
    workspace: int
    alone: bool


class FffCalls:
    """The kernel for weights that stay where they are: what calls share is found out once.

    Walking a tree takes less time than Python takes to look at the tensors. Only good while the weights are there: ask
    `serve` first. Raises ValueError for weights of other kinds than `fff` takes.
    """

    def __init__(
        self, w_in: torch.Tensor, b_in: torch.Tensor, w_out: torch.Tensor, activation: str, isa_name: str
    ) -> None:
        _check_weights(w_in, b_in, w_out)
        self._places = w_in.data_ptr(), b_in.data_ptr(), w_out.data_ptr()
        self._shape, self._dtype = w_in.shape, w_in.dtype
        self._activation, self._isa_name, self._isa = activation, isa_name, native.number(isa_name)
        self._run = native.function("sb_fff", *[ctypes.c_void_p] * 4)
        self._plans: dict[tuple[int, int | None, int], _Plan] = {}

    def serve(
        self, w_in: torch.Tensor, b_in: torch.Tensor, w_out: torch.Tensor, activation: str, isa_name: str
    ) -> bool:
        """Whether these are the weights: not when they have moved or are of another kind, though when written to."""
        return (
            self._places == (w_in.data_ptr(), b_in.data_ptr(), w_out.data_ptr())
            and self._dtype is w_in.dtype
            and self._dtype is w_out.dtype
            and b_in.dtype is torch.float32
            and self._shape == w_in.shape
            and w_in.is_contiguous()
            and w_out.is_contiguous()
            and self._activation == activation
            and self._isa_name == isa_name
        )

    def outputs(self, x: torch.Tensor) -> torch.Tensor:
        """Of `fff`, without the paths."""
        plan = self._plan(x, None)
        if not plan.alone:
            return self._with_paths(plan, x)[0]
        y = torch.empty_like(x)
        native.check_status(self._run(self._isa, plan.address, x.data_ptr(), y.data_ptr(), None), self._isa_name)
        return y

    def with_paths(self, x: torch.Tensor, sort_level: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """See `fff`."""
        return self._with_paths(self._plan(x, sort_level), x)

    def _with_paths(self, plan: _Plan, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, workspace = torch.empty_like(x), native.empty(plan.workspace, dtype=torch.int32)
        status = self._run(self._isa, plan.address, x.data_ptr(), y.data_ptr(), workspace.data_ptr())
        native.check_status(status, self._isa_name)
        return y, workspace

    def _plan(self, x: torch.Tensor, sort_level: int | None) -> _Plan:
        if x.dtype != torch.float32 or not x.is_contiguous() or not x.is_cpu or x.dim() != 2:
            raise ValueError("the input must be [tokens, hidden], float32, contiguous and on the CPU")
        tokens, hidden = x.shape
        if hidden != self._shape[2]:
            raise ValueError(f"the shapes do not fit together: input of {hidden}, weights of {self._shape[2]}")
        key = (tokens, sort_level, torch.get_num_threads())
        return self._plans.get(key) or self._planned(key)

    def _planned(self, key: tuple[int, int | None, int]) -> _Plan:
        tokens, sort_level, threads = key
        trees, nodes, hidden = self._shape
        levels = levels_of(nodes)
        level = _sort_level(tokens, levels) if sort_level is None else sort_level
        numbers = (native.ACTIVATIONS[self._activation], self._dtype == torch.bfloat16, threads)
        call = _Fff(tokens, hidden, trees, levels - 1, level, *self._places, *numbers)
        steps = trees * tokens * levels
        workspace = 2 * steps + 2 * tokens + 2**levels + 1
        # Texts of any length come by: without a bound there would be a plan for each.
        if len(self._plans) >= PLANS:
            self._plans.clear()
        alone = tokens == 1 and level == 0
        return self._plans.setdefault(key, _Plan(call, ctypes.addressof(call), steps, workspace, alone))


def fff(
    x: torch.Tensor,
    w_in: torch.Tensor,
    b_in: torch.Tensor,
    w_out: torch.Tensor,
    activation: str,
    sort_level: int | None,
    isa_name: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs [tokens, hidden], and the paths for `fff_paths`; see `reference.fff`.

    x and b_in are float32, w_in and w_out float32 or bfloat16 (sums are float32), all contiguous, on the CPU. Tokens
    are sorted by the node that they reach at `sort_level`; 0 = not, None = where it pays. Raises ValueError for tensors
    of other kinds.
    """
    return FffCalls(w_in, b_in, w_out, activation, isa_name).with_paths(x, sort_level)


def fff_paths(paths: torch.Tensor, trees: int, tokens: int, levels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The nodes and logits of a call of `fff`, both [trees, tokens, levels]."""
    steps = trees * tokens * levels
    nodes, logits = paths[:steps], paths[steps : 2 * steps].view(torch.float32)
    return nodes.view(trees, tokens, levels), logits.view(trees, tokens, levels)


def supports(w_in: torch.Tensor, b_in: torch.Tensor, w_out: torch.Tensor) -> bool:
    """Whether the kernel reads weights of this kind as they lie."""
    whole = all(weight.is_contiguous() and weight.is_cpu for weight in (w_in, b_in, w_out))
    return whole and w_in.dtype in WEIGHTS and b_in.dtype == torch.float32


def _sort_level(tokens: int, levels: int) -> int:
    return min(SORTED_AT, levels - 1) if tokens >= SORTED_FROM else 0


def _check_weights(w_in: torch.Tensor, b_in: torch.Tensor, w_out: torch.Tensor) -> None:
    check_tree(w_in, b_in, w_out)
    if b_in.dtype != torch.float32 or w_in.dtype != w_out.dtype:
        raise ValueError("biases must be float32, and both weights of one type")
    if w_in.dtype not in WEIGHTS:
        raise ValueError(f"weights must be float32 or bfloat16, got {w_in.dtype}")
    if not supports(w_in, b_in, w_out):
        raise ValueError("all tensors must be contiguous and on the CPU")

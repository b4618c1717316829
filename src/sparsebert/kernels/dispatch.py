"""Which kernel runs: chosen by device, library and number of tokens; one custom operator for torch.compile."""

from __future__ import annotations

import torch

from sparsebert.kernels import native, reference

SORTED_FROM = 256
SORTED_AT = 7


def fff_backend(w_in: torch.Tensor) -> str:
    """The name of what `fff` would run with these weights: `plain`, or `native` and the instruction set."""
    chosen = _native_isa(w_in)
    return "plain" if chosen is None else f"native {chosen}"


def fff(x: torch.Tensor, w_in: torch.Tensor, b_in: torch.Tensor, w_out: torch.Tensor, activation: str) -> torch.Tensor:
    """Outputs [tokens, hidden] of a fast feedforward layer, in x's type; see `reference.fff`. Has no gradient."""
    if torch.compiler.is_compiling():
        return _operator(x, w_in, b_in, w_out, activation)
    return _run(x, w_in, b_in, w_out, activation)


def sort_level(tokens: int, levels: int) -> int:
    """The level by whose nodes tokens are sorted; 0 = not worth it."""
    return min(SORTED_AT, levels - 1) if tokens >= SORTED_FROM else 0


def _native_isa(w_in: torch.Tensor) -> str | None:
    return native.isa() if w_in.device.type == "cpu" and w_in.dtype in native.WEIGHTS else None


def _run(x: torch.Tensor, w_in: torch.Tensor, b_in: torch.Tensor, w_out: torch.Tensor, activation: str) -> torch.Tensor:
    chosen = _native_isa(w_in)
    if chosen is None:
        return reference.fff(x, w_in, b_in, w_out, activation)
    level = sort_level(len(x), (w_in.shape[1] + 1).bit_length() - 1)
    plain = (x.float().contiguous(), w_in.contiguous(), b_in.float().contiguous(), w_out.contiguous())
    return native.fff(*plain, activation, level, chosen)[0].to(x.dtype)


@torch.library.custom_op("sparsebert::fff", mutates_args=())
def _operator(
    x: torch.Tensor, w_in: torch.Tensor, b_in: torch.Tensor, w_out: torch.Tensor, activation: str
) -> torch.Tensor:
    return _run(x, w_in, b_in, w_out, activation)


@_operator.register_fake
def _(x: torch.Tensor, w_in: torch.Tensor, b_in: torch.Tensor, w_out: torch.Tensor, activation: str) -> torch.Tensor:
    return torch.empty_like(x)

"""The native attention kernel as one of transformers' attention implementations, named `sparsebert`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sparsebert.kernels import dispatch

NAME, STOCK = "sparsebert", "sdpa"
MORE = ("position_bias", "softcap", "cache")


def attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Context [batch, queries, heads, size] of an encoder, for query, key and value [batch, heads, tokens, size].

    In evaluation without gradients, where `dispatch.attention_runs`, by the kernel; else, and where it is causal or has
    more to it (`rest`), by torch's `sdpa`.
    """
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    runs = dispatch.attention_runs(query, key, value, attention_mask) and scale > 0
    if module.training or torch.is_grad_enabled() or not runs or _has_more(module, attention_mask, rest):
        given: Any = (module, query, key, value, attention_mask)
        return sdpa_attention_forward(*given, dropout=dropout, scaling=scaling, **rest)
    return dispatch.attention(query, key, value, attention_mask, scale), None


def _has_more(module: nn.Module, mask: torch.Tensor | None, rest: Mapping[str, object]) -> bool:
    """What transformers' own `sdpa` looks at besides: it takes attention for causal if nothing says otherwise."""
    causal = rest.get("is_causal")
    if causal is None:
        causal = getattr(module, "is_causal", True)
    return (mask is None and bool(causal)) or any(rest.get(name) is not None for name in MORE)


AttentionInterface.register(NAME, attention_forward)
AttentionMaskInterface.register(NAME, sdpa_mask)

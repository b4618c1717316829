"""The native attention kernel as one of transformers' attention implementations, named `sparsebert`."""

from __future__ import annotations

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sparsebert.kernels import dispatch

NAME, STOCK = "sparsebert", "sdpa"


def attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **rest: object,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Context [batch, queries, heads, size] of an encoder, for query, key and value [batch, heads, tokens, size].

    In evaluation without gradients, where `dispatch.attention_runs`, by the kernel; else by torch, with the same result
    up to rounding.
    """
    if module.training or torch.is_grad_enabled() or not dispatch.attention_runs(query, key, attention_mask):
        given = (module, query, key, value, attention_mask)
        return sdpa_attention_forward(*given, dropout=dropout, scaling=scaling, **rest)  # pyright: ignore[reportArgumentType]
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    return dispatch.attention(query, key, value, attention_mask, scale), None


AttentionInterface.register(NAME, attention_forward)
AttentionMaskInterface.register(NAME, sdpa_mask)

"""Which inputs a number is made of, to first order. Pure maths on tensors, without models."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gradient_times_input(score: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """For each token [...] of `inputs` [..., width] the sum over its numbers of gradient times input.

    `score` makes one number [] of the inputs. Where it is linear in them without a constant, the tokens' parts add up
    to it; of any other function they are its first-order part at these inputs (Shrikumar et al. 2017, arXiv:1605.01713,
    section 2; Ancona et al. 2018, arXiv:1711.06104).
    """
    leaf = inputs.detach().clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(score(leaf), leaf)
    return (gradient * leaf).sum(dim=-1).detach()


def received(attention: Tensor, mask: Tensor) -> Tensor:
    """How much attention each token gets, a mean over the tokens that pay it: [rows, heads, tokens].

    `attention` [rows, heads, tokens that pay, tokens that are paid], `mask` [rows, tokens] is 1 for what is no padding.
    """
    paying = mask.to(attention.dtype)[:, None, :, None]
    return (attention * paying).sum(dim=2) / paying.sum(dim=2)

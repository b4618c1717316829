"""Fast feedforward layers: binary trees of neurons, of which a token uses one a level."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from sparsebert.errors import UserError, unknown
from sparsebert.kernels import dispatch
from sparsebert.kernels.reference import ACTIVATIONS, fff_route, levels_of
from sparsebert.models.fff_sizes import DEEPEST

DENSE_BELOW = 2


@dataclass(frozen=True)
class Routing:
    """How training routes tokens.

    soft: a token goes both ways at each node, the right one with the sigmoid of the logit as its share (Belcak &
    Wattenhofer 2023, arXiv:2308.14711, section 2); else it takes the hard path alone, as in arXiv:2311.10770.
    hardening: weight of the mean entropy of the shares, which drives soft routing to hard (their loss, with their h).
    balance: weight of a term that is 1 where all nodes of a level are visited alike and rises to their number (Fedus et
    al. 2021, arXiv:2101.03961, eq. 4, level by level).

    Raises UserError for a weight that is negative or not finite.
    """

    soft: bool = False
    hardening: float = 0.0
    balance: float = 0.0

    def __post_init__(self) -> None:
        """Check the weights."""
        for name, weight in (("hardening", self.hardening), ("balance", self.balance)):
            if not 0 <= weight < math.inf:
                raise UserError(
                    f"The weight of a tree's {name} must be a finite number", got=weight, allowed="0 or more"
                )


class FastFeedForward(nn.Module):
    """`trees` balanced binary trees of depth + 1 levels, whose outputs are summed; KxD in the paper's names.

    Every node is a neuron with an input row, an input bias and an output row; a token visits one node a level, and goes
    right where the logit is positive (arXiv:2311.10770). In training all logits are computed and those off the path are
    masked; in evaluation only the path is computed, by the kernel that `backend` names. Both give the same, up to
    rounding, unless routing in training is soft. `penalty` holds the weighted terms of `routing` after a training pass;
    SparseTrainer adds it. A whole model's routing is kept in its config, see `set_routing`.

    Raises UserError for a depth, a number of trees or an activation that is not supported.
    """

    def __init__(
        self, hidden: int, depth: int, trees: int = 1, activation: str = "gelu", routing: Routing | None = None
    ) -> None:
        super().__init__()
        if not 0 <= depth <= DEEPEST:
            raise UserError("A tree cannot have this depth", got=depth, allowed=f"0 to {DEEPEST}")
        if trees < 1 or hidden < 1:
            raise UserError("There must be at least one tree and one hidden unit", got=f"{trees} and {hidden}")
        if activation not in ACTIVATIONS:
            raise unknown("activation", activation, list(ACTIVATIONS))
        self.hidden, self.depth, self.trees, self.activation = hidden, depth, trees, activation
        self.routing = routing or Routing()
        self.penalty: torch.Tensor | None = None
        # Which of the next batch's tokens the penalty is of, as the model's attention mask has it; None = of all.
        self.counted: torch.Tensor | None = None
        self._cache = dispatch.FffCache()
        nodes = 2 ** (depth + 1) - 1
        self.w_in = nn.Parameter(torch.empty(trees, nodes, hidden))
        self.b_in = nn.Parameter(torch.empty(trees, nodes))
        self.w_out = nn.Parameter(torch.empty(trees, nodes, hidden))
        self.reset_parameters()

    @property
    def nodes(self) -> int:
        """Of one tree."""
        return self.w_in.shape[1]

    @property
    def name(self) -> str:
        """The paper's, as `1x11`."""
        return f"{self.trees}x{self.depth}"

    @property
    def backend(self) -> str:
        """What computes evaluation without gradients here: `dense` for shallow trees, else see `fff_backend`."""
        return "dense" if self.depth < DENSE_BELOW else dispatch.fff_backend(self.w_in)

    def train(self, mode: bool = True) -> FastFeedForward:
        """Set the mode, and forget the penalty and `counted`, which are of one batch in training."""
        self.penalty, self.counted = None, None
        return super().train(mode)

    def __getstate__(self) -> dict[str, object]:
        """Without the penalty, whose graph cannot be copied, and without what is of one batch."""
        return {**self.__dict__, "penalty": None, "counted": None}

    def repack(self) -> None:
        """Forget packed weights after a change to them that torch does not count, see `SparseLinear.repack`."""
        self._cache = dispatch.FffCache()

    def reset_parameters(self) -> None:
        """As a linear layer of `hidden` inputs, and one of as many inputs as neurons that a token uses."""
        bound, out_bound = self.hidden**-0.5, (self.trees * (self.depth + 1)) ** -0.5
        nn.init.uniform_(self.w_in, -bound, bound)
        nn.init.uniform_(self.b_in, -bound, bound)
        nn.init.uniform_(self.w_out, -out_bound, out_bound)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """X [..., hidden] to [..., hidden]. Raises ValueError for inputs of another width, or of whole numbers."""
        if x.shape[-1] != self.hidden or not x.is_floating_point():
            raise ValueError(f"the input must be [..., {self.hidden}] of floats, got {tuple(x.shape)} of {x.dtype}")
        flat = x if x.dim() == 2 else x.reshape(-1, self.hidden)
        # The kernels have no backward pass, and for a shallow tree one dense product is faster than walking it.
        if self.training or torch.is_grad_enabled() or self.depth < DENSE_BELOW:
            return self._dense(flat).view_as(x)
        y = dispatch.fff(flat, *self._weights(), self.activation, self._cache)
        return y if x.dim() == 2 else y.view_as(x)

    @torch.no_grad()
    def paths(self, x: torch.Tensor) -> torch.Tensor:
        """The nodes that x [..., hidden] visits, [trees, tokens, depth + 1]."""
        return fff_route(x.reshape(-1, self.hidden), self.w_in, self.b_in)[0]

    def extra_repr(self) -> str:
        """For print(model)."""
        return f"{self.hidden}, {self.name}, {self.activation}"

    def _weights(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # As attributes they take longer to look up than a token takes to multiply.
        own = self._parameters
        w_in, b_in, w_out = own.get("w_in"), own.get("b_in"), own.get("w_out")
        if w_in is None or b_in is None or w_out is None:
            return self.w_in, self.b_in, self.w_out
        return w_in, b_in, w_out

    def _dense(self, x: torch.Tensor) -> torch.Tensor:
        logits = F.linear(x, self.w_in.flatten(0, 1), self.b_in.flatten()).view(x.shape[0], self.trees, self.nodes)
        share = _soft_share(logits) if self.training and self.routing.soft else _hard_share(logits)
        if self.training:
            self.penalty = self._penalty(logits)
        active = ACTIVATIONS[self.activation](logits) * share
        return active.flatten(1) @ self.w_out.flatten(0, 1)

    def _penalty(self, logits: torch.Tensor) -> torch.Tensor | None:
        terms, weight = [], self._weight(logits)
        inner = logits[..., : self.nodes // 2]
        if self.routing.hardening > 0 and self.depth > 0:
            # The entropy of going right, from logits: p log p by itself is nan at p = 0.
            entropy = F.binary_cross_entropy_with_logits(inner, inner.sigmoid(), reduction="none")
            terms.append(self.routing.hardening * (weight * entropy).sum(dim=0).mean())
        if self.routing.balance > 0 and self.depth > 0:
            hard, soft = ((weight * share).sum(dim=0) for share in (_hard_share(logits), _soft_share(logits)))
            terms.append(self.routing.balance * _imbalance(hard, soft))
        return torch.stack(terms).sum() if terms else None

    def _weight(self, logits: torch.Tensor) -> torch.Tensor:
        """What each token counts in a mean over them [tokens, 1, 1]."""
        ones = torch.ones(len(logits), 1, 1, dtype=logits.dtype, device=logits.device)
        # A model that leaves padding out itself hands on fewer tokens than its mask has places, all of them real.
        if self.counted is not None and self.counted.numel() == len(logits):
            ones = self.counted.to(ones).view_as(ones)
        return ones / ones.sum().clamp_min(1)


def _soft_share(logits: torch.Tensor) -> torch.Tensor:
    """The share of a token that each node gets [tokens, trees, nodes]: the product of the sigmoids above it."""
    shares = [torch.ones_like(logits[..., :1])]
    for level in range(levels_of(logits.shape[-1]) - 1):
        first, width = 2**level - 1, 2**level
        right = logits[..., first : first + width].sigmoid()
        shares.append(torch.stack([shares[-1] * (1 - right), shares[-1] * right], dim=-1).flatten(-2))
    return torch.cat(shares, dim=-1)


@torch.no_grad()
def _hard_share(logits: torch.Tensor) -> torch.Tensor:
    """1 for the nodes on the path, else 0 [tokens, trees, nodes]."""
    share = torch.zeros_like(logits)
    node = torch.zeros(*logits.shape[:-1], 1, dtype=torch.long, device=logits.device)
    for _ in range(levels_of(logits.shape[-1])):
        share.scatter_(-1, node, 1.0)
        node = 2 * node + 1 + (logits.gather(-1, node) > 0).long()
        # The last level has no children; its result is not used.
        node = node.clamp_max(logits.shape[-1] - 1)
    return share


def _imbalance(hard: torch.Tensor, soft: torch.Tensor) -> torch.Tensor:
    """Nodes of a level times the sum of (part of tokens that visits) x (mean share), mean over levels and trees.

    `hard` and `soft` are those means over tokens [trees, nodes].
    """
    # Counting visits has no gradient. It comes through the shares, and pushes those of crowded nodes down.
    products = hard * soft
    levels = levels_of(hard.shape[-1])
    terms = [2**level * products[:, 2**level - 1 : 2 ** (level + 1) - 1].sum(dim=-1) for level in range(1, levels)]
    return torch.stack(terms).mean()

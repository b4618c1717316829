"""Views: what a criterion may look at, and the frozen description of a criterion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from sparsebert.errors import UserError
from sparsebert.sparse.sites import Site

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class InputSums:
    """Sums over the real (not padding) tokens that a linear layer has read: of squares and of |x| [in features]."""

    squares: torch.Tensor
    absolute: torch.Tensor
    tokens: torch.Tensor


@dataclass(frozen=True)
class View:
    """One tensor at one step. `state` belongs to the criterion and is saved with the run; change it in place.

    grad: the accumulated, unscaled, clipped gradient, dense also where the mask is False. mask: True = kept.
    inputs: of the linear layer that owns the weight, for criteria with `reads_inputs`.
    """

    name: str
    weight: torch.Tensor
    grad: torch.Tensor | None
    mask: torch.Tensor
    state: State
    step: int
    seed: int
    inputs: InputSums | None = None


Views = Mapping[str, View]


def part_of(state: State, prefix: str) -> State:
    """The entries whose names start with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def stateless(weight: torch.Tensor) -> State:
    """The state of a criterion that remembers nothing."""
    return {}


def check_rate(rate: float) -> None:
    """Raise ValueError for a learning rate that learns nothing, or the wrong way."""
    if rate <= 0:
        raise ValueError(f"lr must be above 0, got {rate:g}")


def check_seen(view: View, steps: torch.Tensor) -> None:
    """Raise UserError if a criterion has seen no gradient of a tensor: its scores would all be equal."""
    if not bool(steps):
        raise UserError(
            f"Masks change before any gradient of {view.name} was seen",
            got=f"step {view.step}",
            fix="start later, narrow the scope, or use a criterion that reads no gradients",
        )


@dataclass(frozen=True)
class Criterion:
    """How much a unit matters; higher = keep.

    score(site, views) -> [units]. start(weight) makes the state of one tensor; observe(view) updates it in place, on
    every step, or with `window` only on that many steps before each change of masks, after which it starts anew.
    correct(site, views, keep) -> new values of the tensors that make up for what goes.
    reads_loss: `score` also gets `loss`, the mean loss on fixed examples with the weights as they are now.
    """

    score: Callable[..., torch.Tensor]
    start: Callable[[torch.Tensor], State] = stateless
    observe: Callable[[View], None] | None = None
    window: int | None = None
    correct: Callable[[Site, Views, torch.Tensor], dict[str, torch.Tensor]] | None = None
    reads_inputs: bool = False
    reads_loss: bool = False

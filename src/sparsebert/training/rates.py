"""Learning rates: of gates, beside those of weights, and over a training that goes up once and down once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from sparsebert.sparse.gated import GatedRule

# What crammed BERT's rate begins with, as a part of the highest (its `budget-triangle2`).
LOWEST = 0.25
# An optimiser, the steps of warm-up and all steps, to the schedule of its rates.
Cycle = Callable[[torch.optim.Optimizer, int, int], torch.optim.lr_scheduler.LRScheduler]


def add_gates(optimizer: torch.optim.Optimizer, gated: Sequence[GatedRule]) -> None:
    """Give an optimiser the gates' scores and multipliers, with rates of their own, once."""
    for own in (group for rule in gated for group in rule.parameter_groups()):
        moved = {id(parameter) for parameter in own["params"]}
        if any({id(parameter) for parameter in group["params"]} == moved for group in optimizer.param_groups):
            continue
        for group in optimizer.param_groups:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in moved]
        optimizer.add_param_group(own)


def one_cycle(optimizer: torch.optim.Optimizer, warmup: int, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Up to each group's rate in `warmup` of `steps`, then to zero (Smith & Topin 2018, arXiv:1708.07120)."""
    # The first phase is one step shorter than its share says, and must not be empty.
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=steps + 1,
        pct_start=max(2, warmup) / (steps + 1),
        cycle_momentum=False,
    )


def triangular(optimizer: torch.optim.Optimizer, warmup: int, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """In straight lines from a quarter of each group's rate up to it in `warmup` of `steps`, then down to zero.

    The one-cycle schedule of crammed BERT (Geiping & Goldstein 2023, arXiv:2212.14034, section 4.3, with the numbers of
    its code, where the way up takes three quarters).
    """

    def share(step: int) -> float:
        if step < warmup:
            return LOWEST + (1 - LOWEST) * step / warmup
        return max(0.0, (steps - step) / max(1, steps - warmup))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def rate_at(schedule: str, share: float, warmup: float) -> float:
    """The part of the highest rate when a `share` of the time is over, of which `warmup` is the way up; all are 0-1.

    For a training whose length is hours: linear, cosine, constant_with_warmup or triangular.
    """
    if share < warmup:
        up = share / warmup
        return LOWEST + (1 - LOWEST) * up if schedule == "triangular" else up
    down = (share - warmup) / max(1e-9, 1 - warmup)
    if schedule == "cosine":
        return (1 + math.cos(math.pi * down)) / 2
    return 1.0 if schedule == "constant_with_warmup" else 1 - down


# The names of recipes for what the trainer makes itself; transformers has the others.
CYCLES: dict[str, Cycle] = {"one_cycle": one_cycle, "triangular": triangular}

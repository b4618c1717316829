"""Learning rates: of gates, beside those of weights, and over one cycle."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparsebert.sparse.gated import GatedRule


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

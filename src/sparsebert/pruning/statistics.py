"""Calibration statistics: what examples say of the units of each group, in one forward and two backward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from sparsebert.groups import Group
from sparsebert.modes import evaluating
from sparsebert.tasks.kind import TaskKind

FLOOR = 0.1
CalibrationBatch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class CalibrationStatistics:
    """All that a criterion may look at for one group of `units` units, `width` columns each (n = units * width).

    weight: output projection [d, n]. input_norm: norm of each unit's input slices [units].
    second: token-weighted second moment of the projection's inputs, E[w x x^T] [n, n]; mean: E[w x] [n].
    fisher: tokens an example times E[g g^T] of the gradient of a random unit combination of the logits at the
    projection's output [d, d], so that tr(D S D^T F) estimates the squared change of a logit for a weight change D.
    activation: E|x| [n]. taylor: E over examples of |sum x dL/dx| [units].
    centred: the projection has a bias that can take up the mean of what is removed.
    """

    name: str
    width: int
    weight: torch.Tensor
    input_norm: torch.Tensor
    second: torch.Tensor
    mean: torch.Tensor
    fisher: torch.Tensor
    activation: torch.Tensor
    taylor: torch.Tensor
    centred: bool
    seed: int
    loss_rise: Callable[[Sequence[int]], float] | None = None

    @property
    def units(self) -> int:
        """Number of units."""
        return self.weight.shape[1] // self.width

    @property
    def hessian(self) -> torch.Tensor:
        """Second moment of the inputs, about their mean where a bias takes the mean up [n, n]."""
        return self.second - torch.outer(self.mean, self.mean) if self.centred else self.second

    def columns(self, units: torch.Tensor) -> torch.Tensor:
        """Column numbers of the given units, in order."""
        return (units[:, None] * self.width + torch.arange(self.width)).flatten()


@dataclass
class _Sums:
    """Running sums for one group; `second` and `mean` are of x - origin, with the first batch's mean as the origin.

    In single precision a column whose mean is far from zero would drown the covariance otherwise.
    """

    origin: torch.Tensor | None
    second: torch.Tensor
    mean: torch.Tensor
    fisher: torch.Tensor
    activation: torch.Tensor
    taylor: torch.Tensor
    weight: float = 0.0
    tokens: int = 0
    examples: int = 0


@dataclass
class _Tape:
    """What the hooks of one module saw in the current batch."""

    inputs: torch.Tensor | None = None
    outputs: torch.Tensor | None = None
    passes: list[torch.Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Collected:
    """CalibrationStatistics a group, and the estimated squared logit change of skipping each layer [layers]."""

    groups: dict[str, CalibrationStatistics]
    skip_errors: dict[str, float]


def collect_statistics(
    model: nn.Module,
    groups: Sequence[Group],
    layers: Sequence[str],
    batches: Iterable[CalibrationBatch],
    kind: TaskKind,
    seed: int,
) -> Collected:
    """Run `batches` through the model once, forward and twice backward, and sum up the statistics of every group.

    Two gradients are taken: of a random combination of the outputs, centred where those are of a softmax (for
    `fisher`; the Gauss-Newton matrix J^T J of the outputs, by Hutchinson's estimator) and of the loss (for `taylor`;
    Michel et al. 2019, arXiv:1905.10650, eq. 2, and Molchanov et al. 2017, arXiv:1611.06440, eq. 9).
    Tokens are weighted by their share of the squared gradient, a tenth spread evenly: what later layers ignore
    need not be preserved. `batches` hold model inputs with an attention_mask [B, T], and `labels`.
    """
    generator = torch.Generator().manual_seed(seed)
    modules = {group.name: model.get_submodule(group.module) for group in groups}
    layer_modules = {path: model.get_submodule(path) for path in layers}
    tapes = {name: _Tape() for name in [*modules, *layer_modules]}
    handles = [
        module.register_forward_hook(_watch(tapes[name])) for name, module in {**modules, **layer_modules}.items()
    ]
    sums = {group.name: _empty(modules[group.name], group) for group in groups}
    skips = dict.fromkeys(layers, 0.0)
    examples = 0
    try:
        with evaluating(model):
            for batch in batches:
                _one_batch(model, batch, kind, generator, tapes)
                mask = batch["attention_mask"].bool()
                examples += len(mask)
                for group in groups:
                    _add(sums[group.name], tapes[group.name], mask, modules[group.name], group)
                for path in layers:
                    skips[path] += _skip_error(tapes[path], mask)
    finally:
        for handle in handles:
            handle.remove()
    parameters = dict(model.named_parameters())
    statistics = {group.name: _finish(group, sums[group.name], parameters, seed) for group in groups}
    return Collected(statistics, {path: value / examples for path, value in skips.items()})


def _watch(tape: _Tape) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        out = output[0] if isinstance(output, tuple) else output
        tape.inputs, tape.outputs = args[0].detach(), out

    return hook


def _one_batch(
    model: nn.Module, batch: CalibrationBatch, kind: TaskKind, generator: torch.Generator, tapes: dict[str, _Tape]
) -> None:
    inputs = {key: value for key, value in batch.items() if key in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.enable_grad():
        outputs = kind.outputs(model(**inputs))
        logits = kind.counted(outputs, batch["labels"])
        # Hutchinson: g = J^T r with E[r r^T] = I has E[g g^T] = J^T J, in one backward pass instead of one a logit.
        direction = torch.randn(logits.shape, generator=generator)
        # A constant added to all logits of a softmax changes no probability, and must not count as a change.
        if kind.exclusive or kind.hides_tokens:
            direction = direction - direction.mean(dim=-1, keepdim=True)
        watched = [tape.outputs for tape in tapes.values() if tape.outputs is not None]
        first = torch.autograd.grad((logits * direction).sum(), watched, retain_graph=True)
        # Its own outputs as labels are where the loss has no slope: there the first gradient says what matters.
        second = torch.autograd.grad(kind.loss(outputs, batch["labels"]), watched) if not kind.by_model else first
    for tape, a, b in zip(tapes.values(), first, second, strict=True):
        tape.passes = [a.detach(), b.detach()]


def _empty(module: nn.Module, group: Group) -> _Sums:
    weight = module.get_parameter("weight")
    d, n = weight.shape
    zeros = torch.zeros
    return _Sums(
        None,
        zeros(n, n, dtype=torch.float64),
        zeros(n, dtype=torch.float64),
        zeros(d, d, dtype=torch.float64),
        zeros(n, dtype=torch.float64),
        zeros(group.units, dtype=torch.float64),
    )


def _add(sums: _Sums, tape: _Tape, mask: torch.Tensor, module: nn.Module, group: Group) -> None:
    assert tape.inputs is not None
    inputs, (logit_gradient, loss_gradient) = tape.inputs, tape.passes
    if inputs.dim() == 2:
        # One vector a text, as a pooler reads.
        mask = mask.new_ones(len(mask), 1)
        inputs, logit_gradient, loss_gradient = (one[:, None] for one in (inputs, logit_gradient, loss_gradient))
    x, g = inputs[mask], logit_gradient[mask]
    share = g.square().sum(dim=1)
    # A block that no logit depends on, as under a head of zeros, has no gradient at all.
    share = share / share.mean().clamp_min(torch.finfo(share.dtype).tiny)
    weights = FLOOR + (1 - FLOOR) * share
    sums.origin = x.mean(dim=0) if sums.origin is None else sums.origin
    centred = x - sums.origin
    # Products within a batch in single precision, for speed; their sum over all batches in double, or late batches
    # would be rounded away.
    sums.second += ((centred * weights[:, None]).T @ centred).double()
    sums.mean += (weights[:, None] * centred).sum(dim=0).double()
    sums.fisher += (g.T @ g).double()
    sums.activation += x.abs().sum(dim=0).double()
    sums.weight += float(weights.sum())
    sums.tokens += len(x)
    sums.examples += len(mask)
    # The gradient at the projection's input is W^T times that at its output, so no second hook is needed.
    per_column = inputs * (loss_gradient @ module.get_parameter("weight").detach()) * mask[..., None]
    per_unit = per_column.sum(dim=1).view(len(mask), group.units, -1).sum(dim=2)
    # The loss is a mean over the batch: the gradient of one example's own loss is `len(mask)` times as large.
    sums.taylor += per_unit.abs().sum(dim=0).double() * len(mask)


def _skip_error(tape: _Tape, mask: torch.Tensor) -> float:
    assert tape.inputs is not None and tape.outputs is not None
    # To first order: how the random combination of logits changes when the layer gives back its input.
    change = (tape.inputs - tape.outputs.detach()) * tape.passes[0]
    return float((change.sum(dim=2) * mask).square().sum())


def _finish(group: Group, sums: _Sums, parameters: dict[str, nn.Parameter], seed: int) -> CalibrationStatistics:
    assert sums.origin is not None
    weight, origin = parameters[group.output.tensor].detach().double(), sums.origin.double()
    mean = sums.mean / sums.weight
    return CalibrationStatistics(
        name=group.name,
        width=group.output.width,
        weight=weight,
        input_norm=_input_norm(group, parameters),
        # From moments about the origin to the covariance, and from that to moments about zero.
        second=sums.second / sums.weight - torch.outer(mean, mean) + torch.outer(mean + origin, mean + origin),
        mean=mean + origin,
        fisher=sums.fisher / sums.examples,
        activation=sums.activation / sums.tokens,
        taylor=sums.taylor / sums.examples,
        centred=f"{group.module}.bias" in parameters,
        seed=seed,
    )


def _input_norm(group: Group, parameters: dict[str, nn.Parameter]) -> torch.Tensor:
    total = torch.zeros(group.units, dtype=torch.float64)
    for part in group.inputs:
        tensor = parameters[part.tensor].detach().double()
        rows = tensor.narrow(part.dim, part.offset, group.units * part.width)
        total += rows.reshape(group.units, -1).square().sum(dim=1)
    return total.sqrt()

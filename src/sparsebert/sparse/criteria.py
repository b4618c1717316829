"""Criteria inside training: how much a unit matters. Each function makes a frozen Criterion; higher = keep."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch

from sparsebert.errors import UserError
from sparsebert.sparse.sites import Site
from sparsebert.sparse.views import Criterion, State, View, Views, check_seen, stateless

MOST_TRIALS = 4096


def magnitude(p: float = 1.0) -> Criterion:
    """|w|^p, summed over a unit's weights (Han et al. 2015, arXiv:1506.02626; p = 1 is the L1 norm).

    Raises ValueError unless p is positive.
    """
    if p <= 0:
        raise ValueError(f"p must be positive, got {p:g}")
    return _pooled(lambda view: view.weight.abs() if p == 1 else view.weight.abs() ** p)


def random() -> Criterion:
    """Uniform noise that the seed, the site and the step decide, equal on all processes."""

    def score(site: Site, views: Views) -> torch.Tensor:
        view = next(iter(views.values()))
        seed = zlib.crc32(f"{view.seed}:{site.name}:{view.step}".encode())
        noise = torch.rand(site.units, generator=torch.Generator().manual_seed(seed))
        return noise.to(view.weight.device)

    return Criterion(score)


def gradient(window: int = 1) -> Criterion:
    """Mean |dL/dw| of the last `window` steps before masks change; 1 is what RigL grows by.

    Evci et al. 2020, arXiv:1911.11134, section 3. Raises ValueError for a window below 1.
    """
    return _averaged(lambda view, grad: grad.abs(), window)


def taylor(window: int = 32) -> Criterion:
    """Mean |w * dL/dw| of the last `window` steps before masks change.

    Molchanov et al. 2019, arXiv:1906.10771, eq. 8, with the absolute value. Raises ValueError for a window below 1.
    """
    return _averaged(lambda view, grad: (view.weight * grad).abs(), window)


def activation() -> Criterion:
    """|w| times the L2 norm of the input it multiplies (Wanda, Sun et al. 2023, arXiv:2306.11695, eq. 1).

    The norm is per token, so that it does not depend on how many have been read.
    """

    def one(view: View) -> torch.Tensor:
        assert view.inputs is not None
        norm = (view.inputs.squares / view.inputs.tokens.clamp_min(1)).sqrt()
        return view.weight.abs() * norm

    return _pooled(one, reads_inputs=True)


def mean_activation() -> Criterion:
    """Mean |x| of what a head or neuron gives to the projection that reads it; of a layer, of all that it has.

    Raises UserError for structures other than heads, neurons and layers, which have no activation of their own.
    """

    def score(site: Site, views: Views) -> torch.Tensor:
        if site.name in views:
            raise UserError(
                "mean_activation is of heads and neurons",
                got=f"single weights or blocks of {site.name}",
                fix="use activation",
            )
        values = {name: torch.zeros_like(view.weight) for name, view in views.items()}
        for output in site.spread(torch.ones(site.units)):
            inputs = views[output].inputs
            assert inputs is not None
            values[output] = (inputs.absolute / inputs.tokens.clamp_min(1)).expand_as(views[output].weight)
        return site.pool(values)

    return Criterion(score, reads_inputs=True)


def movement() -> Criterion:
    """-w * dL/dw summed over all steps: weights that move away from zero (Sanh et al. 2020, arXiv:2005.07683, eq. 5).

    Of what is pruned already the weight is zero, so it cannot come back; a `movement` gate can.
    """

    def start(weight: torch.Tensor) -> State:
        return {"moved": torch.zeros_like(weight, dtype=torch.float32)}

    def observe(view: View) -> None:
        assert view.grad is not None
        view.state["moved"].addcmul_(view.weight.float(), view.grad.float(), value=-1)

    return _pooled(lambda view: view.state["moved"], start=start, observe=observe)


def loss_increase() -> Criterion:
    """Rise of the training loss when a unit is set to zero (Michel et al. 2019, arXiv:1905.10650, section 3).

    One forward pass over the fixed examples a unit. Raises UserError for sites of more than 4,096 units.
    """

    def score(site: Site, views: Views, loss: Callable[[], float]) -> torch.Tensor:
        if site.units > MOST_TRIALS:
            raise UserError(
                "loss_increase measures the loss once a unit",
                got=f"{site.units} units in {site.name}",
                allowed=f"at most {MOST_TRIALS}",
                fix="use another criterion, or whole heads, neurons or layers",
            )
        before, scores = loss(), []
        for unit in range(site.units):
            scores.append(_loss_without(site, views, unit, loss) - before)
        return torch.tensor(scores, device=next(iter(views.values())).weight.device)

    return Criterion(score, reads_loss=True)


def _loss_without(site: Site, views: Views, unit: int, loss: Callable[[], float]) -> float:
    keep = torch.ones(site.units, dtype=torch.bool, device=next(iter(views.values())).weight.device)
    keep[unit] = False
    masks = {name: mask for name, mask in site.expand(keep).items() if name in views}
    saved = {name: views[name].weight[~mask].clone() for name, mask in masks.items()}
    try:
        for name, mask in masks.items():
            views[name].weight[~mask] = 0
        return loss()
    finally:
        for name, mask in masks.items():
            views[name].weight[~mask] = saved[name]


def _pooled(
    one: Callable[[View], torch.Tensor],
    start: Callable[[torch.Tensor], State] = stateless,
    observe: Callable[[View], None] | None = None,
    window: int | None = None,
    reads_inputs: bool = False,
) -> Criterion:
    """A criterion of single weights, summed over a unit."""

    def score(site: Site, views: Views) -> torch.Tensor:
        return site.pool({name: one(view).float() for name, view in views.items()})

    return Criterion(score, start=start, observe=observe, window=window, reads_inputs=reads_inputs)


def _averaged(value: Callable[[View, torch.Tensor], torch.Tensor], window: int) -> Criterion:
    """The mean of something of weight and gradient over the last steps."""
    if window < 1:
        raise ValueError(f"the window must be at least 1 step, got {window}")

    def start(weight: torch.Tensor) -> State:
        return {"sum": torch.zeros_like(weight, dtype=torch.float32), "steps": torch.zeros(1, device=weight.device)}

    def observe(view: View) -> None:
        assert view.grad is not None
        view.state["sum"].add_(value(view, view.grad))
        view.state["steps"].add_(1)

    return _pooled(_mean, start=start, observe=observe, window=window)


def _mean(view: View) -> torch.Tensor:
    check_seen(view, view.state["steps"])
    return view.state["sum"] / view.state["steps"]

"""Which dimensions of the hidden states a model can do without, and how what reads them makes up for the loss."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from sparsebert.data.batches import inputs_of
from sparsebert.groups import Group, Slice
from sparsebert.models.hidden import Axes, axes_of, narrow
from sparsebert.models.layout import plain_layout
from sparsebert.modes import evaluating
from sparsebert.progress import tracked
from sparsebert.pruning.obs import BATCH_FRACTION, damped_hessian, damped_inverse
from sparsebert.pruning.statistics import CalibrationBatch, CalibrationStatistics, collect_statistics
from sparsebert.tasks.kind import TaskKind

Hook = Callable[[nn.Module, tuple[Any, ...], Any], None]


def narrow_by_calibration(
    model: PreTrainedModel, size: int, batches: Sequence[CalibrationBatch], kind: TaskKind, seed: int
) -> PreTrainedModel:
    """A copy of `model` whose hidden states have `size` dimensions, those that its matrices miss least.

    What reads hidden states predicts those that are gone from those that are left, by least squares, and norms get the
    scale and the mean that they had on average. Raises UserError as `narrow` does.
    """
    axes = axes_of(model, plain_layout(model))
    groups = reading_groups(model, axes, batches[0])
    found = collect_statistics(model, groups, (), tracked(batches, "Calibrating"), kind, seed).groups
    kept = dimensions_kept(list(found.values()), size)
    changed = copy.deepcopy(model)
    for group in groups:
        make_up(changed.get_submodule(group.module), found[group.name], kept)
    refit_norms(changed, model, axes, kept, batches)
    return narrow(changed, kept.tolist())


def reading_groups(model: PreTrainedModel, axes: Axes, batch: CalibrationBatch) -> list[Group]:
    """The dimensions as each matrix reads them, one group a matrix: the columns of its weight are the units.

    Left out are matrices that, asked for `batch`, read something besides one vector a token or a text, such as the
    embeddings of relative positions, and the one that predicts tokens.
    """
    size = model.config.hidden_size
    reads = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.in_features == size and 1 in axes.get(f"{name}.weight", ())
    }
    rows = tuple(batch["attention_mask"].shape)
    seen = shapes_read(model, reads, batch)
    return [
        Group(name, "dimension", -1, size, (), Slice(f"{name}.weight", 1))
        for name, module in reads.items()
        if seen[name] in ([rows], [rows[:1]]) and module is not model.get_output_embeddings()
    ]


def shapes_read(
    model: PreTrainedModel, modules: Mapping[str, nn.Module], batch: CalibrationBatch
) -> dict[str, list[tuple[int, ...]]]:
    """The shapes of what each module reads, call by call, without the last axis."""
    seen: dict[str, list[tuple[int, ...]]] = {name: [] for name in modules}

    def note(name: str) -> Hook:
        return lambda module, args, output: seen[name].append(tuple(args[0].shape[:-1]))

    run_hooked(model, {name: note(name) for name in modules}, [batch])
    return seen


def run_hooked(model: PreTrainedModel, hooks: Mapping[str, Hook], batches: Iterable[CalibrationBatch]) -> None:
    """Ask the model about the batches, without gradients, while these modules have these forward hooks."""
    handles = [model.get_submodule(name).register_forward_hook(hook) for name, hook in hooks.items()]
    try:
        with evaluating(model), torch.inference_mode():
            for batch in batches:
                model(**inputs_of(batch))
    finally:
        for handle in handles:
            handle.remove()


def dimensions_kept(statistics: Sequence[CalibrationStatistics], size: int) -> torch.Tensor:
    """The numbers of the `size` dimensions that stay, rising, by one greedy path that all readers share.

    Removing dimension j costs the sum over readers of  tr(F W_j [H^-1_jj]^-1 W_j^T), after which W makes up for it
    (see pruning/obs.py, and ZipLM, arXiv:2302.04089, eq. 2-3): the error that is left when each reader predicts the
    dimension from the others. A 32nd of those left goes at a time.
    """
    readers = [_Reader.of(one) for one in statistics]
    alive = torch.arange(statistics[0].units)
    while len(alive) > size:
        scores = torch.stack([reader.scores() for reader in readers]).sum(dim=0)
        count = min(max(1, len(alive) // BATCH_FRACTION), len(alive) - size)
        gone = torch.argsort(scores, stable=True)[:count]
        stays = torch.ones(len(alive), dtype=torch.bool)
        stays[gone] = False
        readers = [reader.without(gone, stays) for reader in readers]
        alive = alive[stays]
    return alive


@dataclass(frozen=True)
class _Reader:
    """Inverse second moment H^-1 of what a matrix reads, and W^T F W of its weight, both [n, n]."""

    inverse: torch.Tensor
    cost: torch.Tensor

    @classmethod
    def of(cls, statistics: CalibrationStatistics) -> _Reader:
        weight = statistics.weight
        return cls(damped_inverse(statistics), weight.T @ (statistics.fisher @ weight))

    def scores(self) -> torch.Tensor:
        return self.cost.diagonal().clamp_min(0) / self.inverse.diagonal()

    def without(self, gone: torch.Tensor, stays: torch.Tensor) -> _Reader:
        """The same once W has made up for these: W (I - e M) with M = [H^-1_ss]^-1 H^-1_s:."""
        rows = self.inverse[gone]
        solved = torch.linalg.solve(rows[:, gone], rows)
        inverse = self.inverse - self.inverse[:, gone] @ solved
        moved = self.cost[:, gone] @ solved
        cost = self.cost - moved - moved.T + solved.T @ (self.cost[gone][:, gone] @ solved)
        return _Reader(inverse[stays][:, stays], cost[stays][:, stays])


@torch.no_grad()
def make_up(module: Any, statistics: CalibrationStatistics, kept: torch.Tensor) -> None:
    """Change the columns `kept` of a matrix, and its bias, so that it does without the others, by least squares."""
    weight, hessian = statistics.weight, statistics.hessian
    damped = damped_hessian(statistics)
    new = torch.linalg.solve(damped[kept][:, kept], (weight @ hessian)[:, kept], left=False)
    module.weight[:, kept] = new.to(module.weight)
    if statistics.centred:
        module.bias += (weight @ statistics.mean - new @ statistics.mean[kept]).to(module.bias)


@dataclass
class _Spread:
    """Over the rows that a norm sees: sum of (spread of those kept / spread of all), of the means' distance, count."""

    scale: float = 0.0
    shift: float = 0.0
    rows: int = 0


def refit_norms(
    changed: PreTrainedModel,
    model: PreTrainedModel,
    axes: Axes,
    kept: torch.Tensor,
    batches: Sequence[CalibrationBatch],
) -> None:
    """Change the norms of `changed` so that over the dimensions `kept` alone they give, on average, what they gave.

    (x - m) / s = (x - m_k) / s_k * (s_k / s) + (m_k - m) / s, with the mean m and the spread s that a norm divides by
    over all dimensions, and m_k and s_k over those kept: the weight takes up the mean of s_k / s over all tokens of
    `batches`, the bias that of (m_k - m) / s. `model` is the same model before anything was changed.
    """
    names = [name for name, module in model.named_modules() if _is_norm(name, module, axes)]
    spreads = {name: _Spread() for name in names}
    hooks = {name: _measure(spread, kept) for name, spread in spreads.items()}
    run_hooked(model, hooks, tracked(batches, "Fitting norms"))
    with torch.no_grad():
        for name, spread in spreads.items():
            _refit(changed.get_submodule(name), spread)


def _refit(norm: Any, spread: _Spread) -> None:
    if not spread.rows:
        return
    before = norm.weight.clone()
    norm.weight *= spread.scale / spread.rows
    if dict(norm.named_parameters()).get("bias") is not None:
        norm.bias += before * (spread.shift / spread.rows)


def _is_norm(name: str, module: nn.Module, axes: Mapping[str, tuple[int, ...]]) -> bool:
    own = dict(module.named_parameters(recurse=False))
    return (
        "weight" in own
        and own["weight"].dim() == 1
        and f"{name}.weight" in axes
        and not list(module.children())
        and not isinstance(module, nn.Linear)
    )


def _measure(spread: _Spread, kept: torch.Tensor) -> Hook:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        rows = args[0].detach().flatten(0, -2).double()
        # Without a spread no ratio: where positions are not added, the padding of DeBERTa is a vector of zeros.
        rows = rows[rows.std(dim=1, correction=0) > 0]
        left = rows[:, kept]
        if isinstance(module, nn.LayerNorm):
            own, all_of_it = left.std(dim=1, correction=0), rows.std(dim=1, correction=0)
            spread.shift += float(((left.mean(dim=1) - rows.mean(dim=1)) / all_of_it).sum())
        else:
            own, all_of_it = (part.square().mean(dim=1).sqrt() for part in (left, rows))
        spread.scale += float((own / all_of_it).sum())
        spread.rows += len(rows)

    return hook

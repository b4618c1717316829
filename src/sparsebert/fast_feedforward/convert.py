"""Block-wise distillation: train each fast feedforward layer on the dense block that it replaces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from sparsebert.data.batches import inputs_of
from sparsebert.errors import DivergedError, UserError
from sparsebert.fast_feedforward.layer import FastFeedForward
from sparsebert.fast_feedforward.routing import PathStatistics, path_statistics
from sparsebert.models.blocks import fff_place
from sparsebert.models.families import ModelFamily
from sparsebert.models.layout import layout_of
from sparsebert.modes import evaluating
from sparsebert.progress import tracked
from sparsebert.training.collate import Batch

HELD_OUT = 0.1
TINY = 1e-12


@dataclass(frozen=True)
class BlockDistillation:
    """How a layer is distilled: AdamW on the squared error of random tokens, with a cosine schedule down to zero."""

    steps: int = 2000
    tokens: int = 512
    learning_rate: float = 2e-3
    seed: int = 0


@dataclass(frozen=True)
class Fit:
    """How well one fast feedforward layer reproduces its dense block, on tokens that were held out.

    error: squared error over the variance of what the dense block gives; 0 = the same, 1 = no better than the mean.
    paths: statistics of the routing paths, by tree.
    """

    layer: int
    error: float
    paths: tuple[PathStatistics, ...]


@dataclass(frozen=True)
class Examples:
    """Inputs and outputs of one dense block on real tokens [tokens, hidden].

    neighbours [tokens - 1] are as in `path_statistics`.
    """

    x: torch.Tensor
    y: torch.Tensor
    neighbours: torch.Tensor


def distill_blocks(
    dense: PreTrainedModel, converted: PreTrainedModel, batches: Iterable[Batch], distillation: BlockDistillation
) -> list[Fit]:
    """Train every fast feedforward layer of `converted` in place to compute what the dense model's block does.

    `batches` hold model inputs with an attention_mask. A block's inputs and outputs on all of their tokens are held in
    memory, in fp32.
    Raises UserError if the models have different numbers of layers, DivergedError if a loss is no number.
    """
    family = layout_of(dense).family
    theirs, own = (layout_of(model).layers for model in (dense, converted))
    if len(theirs) != len(own):
        raise UserError("The models have different numbers of layers", got=f"{len(theirs)} and {len(own)}")
    wanted, seen = trees_of(converted), list(batches)
    fits = []
    for index in tracked(list(wanted), "Distilling blocks"):
        examples = block_examples(dense, theirs[index].path, family, seen)
        fits.append(_distill_one(index, wanted[index], examples, distillation))
    return fits


def trees_of(model: PreTrainedModel) -> dict[int, FastFeedForward]:
    """The fast feedforward layers of a model, by the index of their layer."""
    layout = layout_of(model)
    places = {layer.index: f"{layer.path}.{fff_place(layout.family)}" for layer in layout.layers}
    blocks = {index: model.get_submodule(place) for index, place in places.items()}
    return {index: block for index, block in blocks.items() if isinstance(block, FastFeedForward)}


def path_statistics_of(model: PreTrainedModel, batches: Iterable[Batch]) -> dict[int, tuple[PathStatistics, ...]]:
    """Statistics of the routing paths of all real tokens, by layer and tree."""
    paths, masks = routing_paths(model, batches)
    same = _neighbours(masks)
    return {index: tuple(path_statistics(path, same) for path in own) for index, own in paths.items()}


@torch.no_grad()
def routing_paths(
    model: PreTrainedModel, batches: Iterable[Batch]
) -> tuple[dict[int, torch.Tensor], list[torch.Tensor]]:
    """By layer the nodes that real tokens visit [trees, tokens, levels], and the attention mask of each batch."""
    trees, masks = trees_of(model), []
    paths: dict[int, list[torch.Tensor]] = {index: [] for index in trees}
    seen: dict[int, torch.Tensor] = {}

    def keep(index: int) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        return lambda module, args: seen.update({index: args[0]})

    handles = [tree.register_forward_pre_hook(keep(index)) for index, tree in trees.items()]
    try:
        with evaluating(model):
            for batch in batches:
                model(**inputs_of(batch))
                masks.append(batch["attention_mask"].bool())
                for index, tree in trees.items():
                    paths[index].append(tree.paths(seen[index].view(*masks[-1].shape, -1)[masks[-1]]))
    finally:
        for handle in handles:
            handle.remove()
    return {index: torch.cat(own, dim=1) for index, own in paths.items()}, masks


@torch.no_grad()
def block_examples(model: PreTrainedModel, layer: str, family: ModelFamily, batches: Iterable[Batch]) -> Examples:
    """Inputs and outputs of one layer's feedforward block on the real tokens of the batches."""
    x, y, masks = [], [], []
    ends = family.ffn.output if not family.ffn.block else family.ffn.block
    with _recorded(model, f"{layer}.{fff_place(family)}", f"{layer}.{ends}") as tape:
        for batch in batches:
            model(**inputs_of(batch))
            mask = batch["attention_mask"].bool()
            given, gave = tape.pop()
            x.append(given.view(*mask.shape, -1)[mask].float())
            y.append(gave.view(*mask.shape, -1)[mask].float())
            masks.append(mask)
    return Examples(torch.cat(x), torch.cat(y), _neighbours(masks))


def _neighbours(masks: Iterable[torch.Tensor]) -> torch.Tensor:
    """Of the real tokens in order [tokens - 1]: whether each is of the same text as the next; masks are [texts, T]."""
    counts = torch.cat([mask.sum(dim=1) for mask in masks])
    text = torch.repeat_interleave(torch.arange(len(counts)), counts)
    return text[1:] == text[:-1]


@contextmanager
def _recorded(model: nn.Module, first: str, last: str) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """A list that gets, in each forward pass, the input of one module and the output of another."""
    tape: list[tuple[torch.Tensor, torch.Tensor]] = []
    inputs: list[torch.Tensor] = []

    def starts(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        inputs.append(args[0])

    def ends(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        tape.append((inputs.pop(), output))

    handles = [
        model.get_submodule(first).register_forward_pre_hook(starts),
        model.get_submodule(last).register_forward_hook(ends),
    ]
    try:
        with evaluating(model):
            yield tape
    finally:
        for handle in handles:
            handle.remove()


def _distill_one(layer: int, tree: FastFeedForward, examples: Examples, distillation: BlockDistillation) -> Fit:
    count = len(examples.x)
    kept = max(1, round(count * (1 - HELD_OUT)))
    generator = torch.Generator().manual_seed(distillation.seed)
    optimizer = torch.optim.AdamW(tree.parameters(), lr=distillation.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, distillation.steps)
    variance = (examples.y - examples.y.mean(dim=0)).square().mean()
    was_training = tree.training
    tree.train()
    for step in range(distillation.steps):
        rows = torch.randint(kept, (min(distillation.tokens, kept),), generator=generator)
        loss = (tree(examples.x[rows]) - examples.y[rows]).square().mean() / variance
        if not torch.isfinite(loss):
            raise DivergedError(step + 1, float(loss.detach()))
        total = loss if tree.penalty is None else loss + tree.penalty
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()
    tree.train(was_training)
    return Fit(layer, _error(tree, examples, kept), _path_statistics(tree, examples))


@torch.no_grad()
def _error(tree: FastFeedForward, examples: Examples, start: int) -> float:
    x, y = (values[start:] if start < len(values) else values for values in (examples.x, examples.y))
    # Of all examples: those held out may be a single token.
    variance = (examples.y - examples.y.mean(dim=0)).square().mean().clamp_min(TINY)
    with evaluating(tree):
        return float((tree(x) - y).square().mean() / variance)


def _path_statistics(tree: FastFeedForward, examples: Examples) -> tuple[PathStatistics, ...]:
    return tuple(path_statistics(path, examples.neighbours) for path in tree.paths(examples.x))

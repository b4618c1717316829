"""How few bytes a member's file may have: as what it is stored for that, and a smaller shape where that is not enough.

Bytes are known before anything is trained: they depend on the shape, and on how it is stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from transformers import PreTrainedModel

from sparsebert.errors import UnreachableError
from sparsebert.models.hidden import narrow
from sparsebert.models.layout import layout_of
from sparsebert.models.smaller_vocabulary import cut_vocabulary
from sparsebert.models.storage import Packing, bytes_each
from sparsebert.models.surgeon import Keep, shrink
from sparsebert.pruning.calibration import Calibrated
from sparsebert.pruning.candidates import levels
from sparsebert.pruning.search import Found
from sparsebert.pruning.target_kinds import CountedTarget
from sparsebert.pruning.targets import ATTEMPTS, ByteRoom, Goal, packing_for_size
from sparsebert.recipe.compress import CompressRecipe
from sparsebert.recipe.storing import LEVELLED
from sparsebert.runs.context import RunContext
from sparsebert.runs.sparse_model import packings_of, start_of, stored_bytes


class Built(Protocol):
    """What is made of a shape that was found."""

    @property
    def small(self) -> PreTrainedModel:
        """The model with that shape."""
        ...


B = TypeVar("B", bound=Built)


@dataclass(frozen=True)
class Limit:
    """Bytes that a file may have at the most, and how it may be stored, finest first.

    `is_target`: they are what the target asks for, not something besides it.
    """

    most: int
    packings: tuple[Packing, ...]
    is_target: bool = False


@dataclass(frozen=True)
class Fitted(Generic[B]):
    """A shape and what it achieved, the model made of it, how it is stored, and whether that alone was not enough."""

    found: Found
    achieved: float
    built: B
    packing: Packing
    cut_further: bool


def check_reach(context: RunContext[CompressRecipe], ids: Sequence[int] | None) -> None:
    """Raises UnreachableError where the smallest shape, stored as coarsely as may be, is larger than is asked for.

    `ids` are the entries of the tokenizer that stay, none = all.
    """
    recipe = context.recipe
    packings = packings_of(recipe, recipe.even)
    coarsest = packings[-1]
    asked = {} if recipe.max_size is None else {f"max_size {recipe.max_size:g}": recipe.max_size}
    if len(packings) > 1:
        asked |= {f"The target size {one.value:g}": one.value for one in recipe.targets if one.kind == "size"}
    if not asked:
        return
    start = context.start()
    dense = start_of(start).footprint.bytes_on_disk
    if ids is not None:
        start = cut_vocabulary(start, ids)
    if recipe.hidden_size is not None:
        start = narrow(start, range(recipe.hidden_size))
    least = least_part(start, recipe, coarsest, dense)
    for what, part in asked.items():
        if part < least:
            raise _unreachable(what, least, recipe)


def least_part(
    model: PreTrainedModel, recipe: CompressRecipe, packing: Packing, dense: int, scratch: Path | None = None
) -> float:
    """Part of `dense` bytes that the smallest shape which the search may find takes in a file."""
    return stored_bytes(_smallest(model, recipe), packing, scratch) / dense


def limit_for(goal: Goal, calibrated: Calibrated, dense: int) -> tuple[Limit | None, Packing]:
    """What a member's file may have, none = it is not limited, and how it is stored unless that is too much.

    `dense` are the bytes of the dense model's file.
    """
    recipe, kind, value = goal.recipe, goal.target.rules, goal.target.value
    packings, limit = packings_of(recipe, recipe.even), recipe.max_size
    if isinstance(kind, CountedTarget) and kind.counts == "bytes":
        packing = packing_for_size(goal, packings, calibrated)
        if packing != packings[0] and (limit is None or value <= limit):
            return Limit(math.floor(value * dense), (packing,), is_target=True), packing
        packings = packings[packings.index(packing) :]
    return None if limit is None else Limit(math.floor(limit * dense), packings), packings[0]


def fit(
    goal: Goal,
    limit: Limit | None,
    search: Callable[[Goal], tuple[Found, float]],
    build: Callable[[Found], B],
    scratch: Path,
) -> Fitted[B]:
    """Search for the goal; store what is found as finely as the limit lets; else search again with the bytes there are.

    Raises UnreachableError as `search` does, and where the files of what is found stay too large.
    """
    if limit is not None and limit.is_target:
        goal = _with_room(goal, limit, {}, scratch)
    for _ in range(ATTEMPTS):
        found, achieved = _search(goal, limit, search, scratch)
        built = build(found)
        if limit is None:
            return Fitted(found, achieved, built, goal.packing, cut_further=False)
        for packing in limit.packings if goal.room is None else limit.packings[-1:]:
            if stored_bytes(built.small, packing, scratch) <= limit.most:
                cut = goal.room is not None and not limit.is_target
                return Fitted(found, achieved, built, packing, cut)
        if goal.room is None:
            goal = _with_room(goal, limit, {}, scratch)
        else:
            over = stored_bytes(built.small, goal.packing, scratch) - limit.most
            goal = replace(goal, room=replace(goal.room, weights=goal.room.weights - over))
    raise _no_shape(goal)


def _search(
    goal: Goal, limit: Limit | None, search: Callable[[Goal], tuple[Found, float]], scratch: Path
) -> tuple[Found, float]:
    """With room as of layers with heads and neurons, or else of layers without, which have fewer names in the file."""
    if limit is None or goal.room is None:
        return search(goal)
    bare = {group.name: torch.zeros(group.units, dtype=torch.bool) for group in layout_of(goal.start).groups}
    for tried in (goal, _with_room(goal, limit, bare, scratch)):
        try:
            return search(tried)
        except UnreachableError:
            continue
    raise _no_shape(goal)


def _no_shape(goal: Goal) -> UnreachableError:
    what = f"No shape was found for {goal.target.kind} {goal.target.value:g} whose file is small enough"
    return UnreachableError(what, fix="ask for a little more")


def _with_room(goal: Goal, limit: Limit, keep: Keep, scratch: Path) -> Goal:
    """The goal in the coarsest form, with what is left for weights beside the names of layers that are like `keep`."""
    coarsest, count = limit.packings[-1], len(layout_of(goal.start).layers)
    one, every = (_beside(shrink(goal.start, keep, range(layers, count)), coarsest, scratch) for layers in (1, count))
    a_layer = (every - one) / max(count - 1, 1)
    return replace(goal, packing=coarsest, room=ByteRoom(limit.most - (one - a_layer), a_layer))


def words(packing: Packing) -> str:
    """As what weights are stored, for a note."""
    layers, tables = packing.weights or "float32", packing.embeddings or packing.weights or "float32"
    return layers if layers == tables else f"{layers}, tables of embeddings in {tables}"


def _beside(model: PreTrainedModel, packing: Packing, scratch: Path) -> float:
    """Bytes of a model's file besides its weights: names and shapes, and places of zeros."""
    each = bytes_each(model, packing)
    weights = sum(one.numel() * each[name] for name, one in model.named_parameters())
    return stored_bytes(model, packing, scratch) - weights


def _smallest(model: PreTrainedModel, recipe: CompressRecipe) -> PreTrainedModel:
    """Layers without heads and neurons, or whole or narrow ones where those are asked for; one if others may go."""
    layers = layout_of(model).layers
    keep = {}
    for group in (group for layer in layers for group in layer.groups.values() if recipe.shape == "search"):
        count = min(count for count in levels(group.units, group.output.width) if count or not recipe.even)
        if not (recipe.even and group.kind == "head"):
            keep[group.name] = torch.arange(group.units) < count
    return shrink(model, keep, range(1, len(layers)) if recipe.search.drop_layers else (), even=recipe.even)


def _unreachable(what: str, least: float, recipe: CompressRecipe) -> UnreachableError:
    nearest = math.ceil(1000 * least) / 1000
    ways = ["--vocabulary auto"] * (recipe.vocabulary is None)
    ways += ["--weights int4"] * (recipe.weights not in (None, "int4") and not recipe.even)
    ways += ["--embedding-weights int4"] * (recipe.embedding_weights not in (None, "int4") and not recipe.even)
    ways += [f"no --even, so that weights may be in {' or '.join(LEVELLED)}"] * recipe.even
    ways += ["--shape search"] * (recipe.shape == "layers")
    ways += ["--set search.drop_layers=true"] * (not recipe.search.drop_layers)
    return UnreachableError(
        f"{what} cannot be met",
        allowed=f"the nearest reachable is about {nearest:g}",
        fix=f"what would help: {', '.join(ways)}" if ways else "",
    )

"""Which layers and heads of the model that a run began with are left in one that was cut from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedModel

from sparsebert.models.layout import Layout, layout_of
from sparsebert.models.surgeon import Keep
from sparsebert.pruning.candidates import Candidate
from sparsebert.records import Shape

# For each layer of a model, one number a head.
Heads = tuple[tuple[int, ...], ...]


def shape_of(
    model: PreTrainedModel,
    origin: Sequence[int],
    dense: PreTrainedModel,
    kept: Heads | None = None,
    importance: Sequence[Sequence[float]] = (),
) -> Shape:
    """Heads and neurons left in each layer of the dense model, of the most that one of its layers has.

    For each layer of `model`, `origin` holds the number of the dense model's layer that it was, and `kept` the dense
    model's numbers of its heads; where `kept` is none, they are known only if no head of the layers left is gone.
    `importance` is by layer and head of the dense model.
    """
    full, own = layout_of(dense), layout_of(model)
    known = _untouched(own, origin, full) if kept is None else kept
    width, whole = model.config.hidden_size, dense.config.hidden_size
    heads, neurons = [0] * len(full.layers), [0] * len(full.layers)
    numbers: list[tuple[int, ...]] = [()] * len(full.layers)
    for index, (layer, place) in enumerate(zip(own.layers, origin, strict=True)):
        heads[place], neurons[place] = layer.units["head"], layer.units["neuron"]
        numbers[place] = known[index] if known else ()
    return Shape(
        heads=tuple(heads),
        neurons=tuple(neurons),
        dropped_layers=tuple(sorted(set(range(len(full.layers))) - set(origin))),
        full_heads=max(_heads(full)) or full.full_heads,
        full_neurons=max(layer.units["neuron"] for layer in full.layers) or full.full_neurons,
        hidden=width if width < whole else None,
        full_hidden=whole if width < whole else None,
        kept_heads=tuple(numbers) if known else (),
        head_importance=tuple(map(tuple, importance)),
    )


def heads_left(model: PreTrainedModel, keep: Keep, dropped: Sequence[int] = (), numbers: Heads | None = None) -> Heads:
    """The numbers of the heads of each layer that stays when `model` is cut by these masks.

    `numbers` are those of the heads that it has now, none = from 0. A layer without heads has none.
    """
    before = _counted(layout_of(model)) if numbers is None else numbers
    found = []
    for layer, own in zip(layout_of(model).layers, before, strict=True):
        if layer.index in dropped:
            continue
        mask = keep.get(layer.groups["head"].name) if "head" in layer.groups else None
        found.append(own if mask is None else tuple(own[unit] for unit in mask.nonzero().flatten().tolist()))
    return tuple(found)


def head_importance(
    layout: Layout,
    candidates: Mapping[str, Mapping[int, Candidate]],
    numbers: Heads,
    origin: Sequence[int],
    shape: Shape,
) -> tuple[tuple[float, ...], ...]:
    """By layer and head of the dense model, whose `shape` this is: the error of the block once that head goes too.

    `candidates` go from all heads to none, each without one more than the last; the layers of `layout` are those of
    `origin` and their heads have these numbers. A head that is gone already has 0.
    """
    found = [[0.0] * shape.full_heads for _ in shape.heads]
    for layer, own, place in zip(layout.layers, numbers, origin, strict=True):
        if "head" not in layer.groups:
            continue
        left, worst = set(range(layer.units["head"])), 0.0
        for _, option in sorted(candidates[layer.groups["head"].name].items(), reverse=True):
            worst = max(worst, option.error)
            for unit in left - set(option.units.tolist()):
                found[place][own[unit]] = worst
            left &= set(option.units.tolist())
    return tuple(map(tuple, found))


def _heads(layout: Layout) -> list[int]:
    return [layer.units["head"] for layer in layout.layers]


def _counted(layout: Layout) -> Heads:
    return tuple(tuple(range(units)) for units in _heads(layout))


def _untouched(own: Layout, origin: Sequence[int], full: Layout) -> Heads:
    """The numbers of the heads where all layers that stayed have all of theirs, else nothing."""
    same = _heads(own) == [_heads(full)[place] for place in origin]
    return _counted(own) if same else ()

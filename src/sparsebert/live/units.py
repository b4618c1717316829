"""What of a model can be switched off, and what its parts are called. Plain data, without torch.

A head is called by its layer and its number, as `2h5`: those that it had before others were pruned, from 1. The neurons
of a layer are divided into quarters, `2n1` those with the largest weights; trees are one part, `2n1`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sparsebert.errors import UserError

QUARTERS = 4
MOST_NAMES = 4096
_NAME = re.compile(r"([1-9]\d{0,3})([hn])([1-9]\d{0,3})", re.ASCII)


@dataclass(frozen=True)
class LayerUnits:
    """One layer: its number from 1, the numbers of its heads, and its neurons; or whether it has trees instead."""

    layer: int
    heads: tuple[int, ...]
    neurons: int
    trees: bool = False

    @property
    def quarters(self) -> int:
        """The parts of its feedforward block, 0 where that is gone."""
        return 1 if self.trees else min(QUARTERS, self.neurons)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all of its parts."""
        heads = (f"{self.layer}h{head}" for head in self.heads)
        return (*heads, *(f"{self.layer}n{part}" for part in range(1, self.quarters + 1)))

    def told(self) -> dict[str, Any]:
        """As the page draws it."""
        return {"layer": self.layer, "heads": self.heads, "quarters": self.quarters, "trees": self.trees}


def checked(names: Any, layers: Sequence[LayerUnits]) -> tuple[str, ...]:
    """The parts of a model that a page wants switched off, in the model's order, each once.

    Raises UserError for none, for what is no name of a part, and for a part that the model does not have.
    """
    if not isinstance(names, list) or len(names) > MOST_NAMES or not all(isinstance(name, str) for name in names):
        raise UserError("The parts to switch off are a list of names", got=type(names).__name__)
    if not names:
        raise UserError("Nothing is switched off", fix="click a head or a feedforward block first")
    every = [name for layer in layers for name in layer.names]
    for name in names:
        if name not in every:
            raise UserError("The model has no such part", got=in_words(name), allowed=_allowed(name, layers))
    return tuple(name for name in every if name in set(names))


def in_words(name: str) -> str:
    """As a reader would call it; what is no name of a part as it stands, cut short."""
    found = _NAME.fullmatch(name)
    if found is None:
        return name[:40]
    layer, kind, number = found.groups()
    return f"layer {layer}, head {number}" if kind == "h" else f"layer {layer}, part {number} of the feedforward block"


def _allowed(name: str, layers: Sequence[LayerUnits]) -> str:
    """What there is instead: parts of that layer, or layers."""
    found = _NAME.fullmatch(name)
    own = next((one for one in layers if found and one.layer == int(found[1])), None)
    if own is None or found is None:
        return f"layers {', '.join(str(one.layer) for one in layers)}"
    numbers = own.heads if found[2] == "h" else range(1, own.quarters + 1)
    what = "heads" if found[2] == "h" else "parts"
    return f"{what} {', '.join(map(str, numbers))}" if numbers else f"no {what}"


def of_layer(names: Sequence[str], layer: LayerUnits) -> tuple[list[bool], list[bool]]:
    """Of the heads of a layer, and of the parts of its feedforward block, whether each is in `names`."""
    chosen = set(names)
    found = list(_flags(layer, chosen))
    return found[: len(layer.heads)], found[len(layer.heads) :]


def _flags(layer: LayerUnits, chosen: set[str]) -> Iterator[bool]:
    return (name in chosen for name in layer.names)

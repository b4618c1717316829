"""Sizes of fast feedforward layers by the paper's names, `KxD`: K trees of depth D, a tree of depth 0 being one node.

Belcak & Wattenhofer 2023, arXiv:2311.10770, sections 2.1 and table 1. Where the paper contradicts itself, its table and
its code agree on what is here: a tree named D has D + 1 levels (its text also says "trees of depth D + 1", and its
algorithm 1 counts 2^D - 1 neurons), and 12 of 4095 neurons are 0.3 % (its list of contributions says 0.03 %).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sparsebert.errors import UserError

DEEPEST = 20
_NAME = re.compile(r"([1-9]\d{0,6})x(0|[1-9]\d?)")


@dataclass(frozen=True)
class FffSize:
    """`trees` balanced binary trees of depth + 1 levels."""

    trees: int
    depth: int

    @property
    def name(self) -> str:
        """The paper's, as `512x2`."""
        return f"{self.trees}x{self.depth}"

    @property
    def neurons(self) -> int:
        """Neurons that are trained, one a node: K (2^(D+1) - 1)."""
        return self.trees * (2 ** (self.depth + 1) - 1)

    @property
    def neurons_used(self) -> int:
        """Neurons that one token uses, one a level: K (D + 1)."""
        return self.trees * (self.depth + 1)


def parse_fff(name: str) -> FffSize:
    """The size of that name. Raises UserError for any other text, and for trees deeper than layers can be."""
    found = _NAME.fullmatch(name)
    if found is None or int(found[2]) > DEEPEST:
        allowed = f"TREESxDEPTH with a depth of 0 to {DEEPEST}, as 512x2"
        raise UserError("That is no size of a fast feedforward layer", got=repr(name), allowed=allowed)
    return FffSize(int(found[1]), int(found[2]))


def fff_sizes(neurons: int) -> tuple[FffSize, ...]:
    """The paper's ladder from a dense block of so many neurons to one tree, each size deeper and narrower.

    Depths 0 and 1 split the dense block, into `neurons` and half as many trees; from depth 2 on, sizes halve the trees
    at each level, down to one of depth floor(log2 neurons), so that all have nearly as many neurons: 3072 gives the
    paper's 3072x0, 1536x1, 512x2, 256x3, ... 1x11. Raises UserError for less than one neuron.
    """
    if neurons < 1:
        raise UserError("A feedforward block has at least one neuron", got=neurons)
    deepest = neurons.bit_length() - 1
    trees = {depth: 2 ** (deepest - depth) for depth in range(2, deepest + 1)}
    shallow = {depth: neurons // 2**depth for depth in range(min(deepest, 1) + 1)}
    return tuple(FffSize(number, depth) for depth, number in (shallow | trees).items())

"""Groups: which slices of which tensors live and die together. Plain data, no torch.

One description drives scoring, masking, counting and cutting, so these four can never disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GroupKind = Literal["head", "neuron", "dimension"]
# The kinds that a layer has one group of. Costs and errors of a layer are added up in this order.
LAYER_KINDS: tuple[GroupKind, ...] = ("head", "neuron")


@dataclass(frozen=True)
class Slice:
    """`width` consecutive entries a unit, along `dim` of parameter `tensor`, the first unit at `offset`."""

    tensor: str
    dim: int
    width: int = 1
    offset: int = 0

    def start(self, unit: int) -> int:
        """First index that belongs to `unit`."""
        return self.offset + unit * self.width


@dataclass(frozen=True)
class Group:
    """The units of one block of one layer: its attention heads, or the neurons of its feedforward part.

    `inputs` are the slices that produce a unit's activations (query, key, value; or up and gate, weights and
    biases), `output` the columns of the one projection that reads them. `constant` names what a unit gives when its
    input weights are zero but its biases are not: the value bias of a head, `activation(bias)` of a neuron.
    """

    name: str
    kind: GroupKind
    layer: int
    units: int
    inputs: tuple[Slice, ...]
    output: Slice
    constant: tuple[Slice, ...] = ()

    @property
    def module(self) -> str:
        """Dotted name of the output projection, the module whose input holds this group's activations."""
        return self.output.tensor.removesuffix(".weight")

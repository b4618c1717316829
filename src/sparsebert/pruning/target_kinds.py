"""What a member of the family can be asked for: ranges, directions, budgets and what was achieved. Plain arithmetic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sparsebert.recipe.schema import Target
    from sparsebert.reports.rows import FamilyRow

# No cost is nothing; of one that is, there would be no ratio.
_LEAST = 1e-9


@dataclass(frozen=True)
class DenseCost:
    """What the dense model costs in the unit of a cost table: its layers, and what is `fixed` outside them.

    Where layers cannot be measured alone, all of it counts as layers.
    """

    layers: float
    fixed: float


class TargetKind(ABC):
    """One thing to ask for, as a number between `low` and `high`, both excluded.

    `falling`: a smaller value asks for more. `suffix` ends the member's name, as in `2x`. A kind is either a
    TimedTarget or a CountedTarget, by what it is measured by.
    """

    low: float
    high: float
    falling: bool
    suffix: str

    @abstractmethod
    def text(self, value: float) -> str:
        """What was asked for, as a reader says it: `2× faster`."""

    def long_text(self, value: float) -> str:
        """The same where there is room for what of the model it is about."""
        return self.text(value)

    @abstractmethod
    def budget(self, value: float, dense: DenseCost) -> float:
        """The most that the whole model may cost, in the unit of the table."""

    @abstractmethod
    def value_at(self, cost: float, dense: DenseCost) -> float:
        """What a whole model of this cost reaches, by the table."""

    @abstractmethod
    def reported(self, row: FamilyRow) -> float | None:
        """What a finished model reached, by the final measurement; None where that was not measured."""

    def reached(self, got: float, asked: float) -> float:
        """The part of what was asked that was got, 1 or more when it was met."""
        return asked / max(got, _LEAST) if self.falling else got / max(asked, _LEAST)


class TimedTarget(TargetKind, ABC):
    """Measured by time in the chosen runtime, against the dense model; costs are milliseconds."""

    @abstractmethod
    def measured(self, speedup: float, latency_ms: float) -> float:
        """The value of a model that is so many times as fast as the dense one and takes `latency_ms` as a whole.

        `speedup` is of the encoder, or of the whole model in a runtime that runs it as one program.
        """

    @abstractmethod
    def corrected(self, budget: float, fixed: float, ratio: float) -> float:
        """The next budget to try, where this one gave `ratio` times the value that was asked for."""


class CountedTarget(TargetKind, ABC):
    """Measured by counting; costs are of the unit `counts`."""

    counts: Literal["bytes", "encoder_weights"]


class SpeedupTarget(TimedTarget):
    """Times as fast as the dense encoder: layers alone, as embeddings and head do not shrink (ADR 4).

    Of the whole model in a runtime that runs it as one program (ADR 20).
    """

    low, high, falling, suffix = 1, 1000, False, "x"

    def text(self, value: float) -> str:
        """As `2× faster`."""
        return f"{value:g}× faster"

    def long_text(self, value: float) -> str:
        """As `2× faster encoder`."""
        return f"{self.text(value)} encoder"

    def budget(self, value: float, dense: DenseCost) -> float:
        """The layers sped up, and what lies outside them as it is."""
        return dense.layers / value + dense.fixed

    def value_at(self, cost: float, dense: DenseCost) -> float:
        """Layers of the dense model over those of this one."""
        return dense.layers / max(cost - dense.fixed, _LEAST)

    def reported(self, row: FamilyRow) -> float | None:
        """The measured speedup of the encoder, or of the whole model where only that was measured."""
        found = row.encoder_speedup or row.model_speedup
        return None if found is None else found.mid

    def measured(self, speedup: float, latency_ms: float) -> float:
        """The speedup itself."""
        return speedup

    def corrected(self, budget: float, fixed: float, ratio: float) -> float:
        """The layers alone scaled by the error: what lies outside them is no part of a speedup."""
        return fixed + (budget - fixed) * ratio


class LatencyTarget(TimedTarget):
    """Milliseconds of a forward pass of the whole model."""

    low, high, falling, suffix = 0, 1e6, True, "ms"

    def text(self, value: float) -> str:
        """As `8 ms`."""
        return f"{value:g} ms"

    def budget(self, value: float, dense: DenseCost) -> float:
        """The milliseconds themselves."""
        return value

    def value_at(self, cost: float, dense: DenseCost) -> float:
        """The milliseconds themselves."""
        return cost

    def reported(self, row: FamilyRow) -> float | None:
        """The measured latency of the whole model."""
        return None if row.latency_ms is None else row.latency_ms.mid

    def measured(self, speedup: float, latency_ms: float) -> float:
        """The latency of the whole model."""
        return latency_ms

    def corrected(self, budget: float, fixed: float, ratio: float) -> float:
        """The whole budget scaled by the error."""
        return budget / ratio


class SizeTarget(CountedTarget):
    """Part of the dense model's bytes that stays."""

    low, high, falling, suffix, counts = 0, 1, True, "-size", "bytes"

    def text(self, value: float) -> str:
        """As `25% of bytes`."""
        return f"{100 * value:g}% of bytes"

    def budget(self, value: float, dense: DenseCost) -> float:
        """A part of all bytes."""
        return value * (dense.layers + dense.fixed)

    def value_at(self, cost: float, dense: DenseCost) -> float:
        """The part of all bytes."""
        return cost / (dense.layers + dense.fixed)

    def reported(self, row: FamilyRow) -> float | None:
        """The part of the bytes on disk that is left."""
        return None if row.bytes_sparsity is None else 1 - row.bytes_sparsity.mid


class SparsityTarget(CountedTarget):
    """Part of the weights of the encoder's matrices that goes."""

    low, high, falling, suffix, counts = 0, 1, False, "-sparsity", "encoder_weights"

    def text(self, value: float) -> str:
        """As `90% sparse`."""
        return f"{100 * value:g}% sparse"

    def budget(self, value: float, dense: DenseCost) -> float:
        """The weights that stay."""
        return (1 - value) * dense.layers

    def value_at(self, cost: float, dense: DenseCost) -> float:
        """The part of the weights that is gone."""
        return 1 - (cost - dense.fixed) / dense.layers

    def reported(self, row: FamilyRow) -> float | None:
        """The sparsity of the linear weights of the encoder."""
        return None if row.encoder_sparsity is None else row.encoder_sparsity.mid


SPEEDUP = SpeedupTarget()
LATENCY_MS = LatencyTarget()
SIZE = SizeTarget()
SPARSITY = SparsityTarget()


def weakest_first(targets: Sequence[Target]) -> tuple[Target, ...]:
    """Targets in the order in which members are made, as each starts from the one before.

    Each kind keeps its places and has its weakest target first. Which of two kinds asks for more only a search can say.
    """
    kinds = {target.kind: target.rules for target in targets}
    queues = {
        name: iter(sorted((one for one in targets if one.kind == name), key=_value, reverse=kind.falling))
        for name, kind in kinds.items()
    }
    return tuple(next(queues[target.kind]) for target in targets)


def _value(target: Target) -> float:
    return target.value

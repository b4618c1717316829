"""One trial of `doctor`: what was timed against what, as data and in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch

from sparsebert.kernels.packed import WIDTH
from sparsebert.measurement.doctor_zeros import BLOCK
from sparsebert.timing import Variant, interleave, quartiles, ratios


class Precision(StrEnum):
    """The type of weights and inputs."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"

    @property
    def dtype(self) -> torch.dtype:
        """As torch knows it."""
        return torch.float32 if self is Precision.FLOAT32 else torch.bfloat16


class Form(StrEnum):
    """What is timed: one matrix with random zeros in one of three forms, or the whole model changed in one of four."""

    ROWS = "matrix_rows"
    VALUES = "matrix_values"
    BLOCKS = "matrix_blocks"
    HALVED = "model_halved"
    LIVE = "model_live"
    DENSE = "dense"
    KERNELS = "model_kernels"


TEXTS = {
    Form.ROWS: "one matrix, single weights, compressed sparse rows",
    Form.VALUES: "one matrix, single weights, native kernel",
    Form.BLOCKS: f"one matrix, {BLOCK} x {WIDTH} blocks, native kernel",
    Form.HALVED: "whole model, half of the {units} cut out",
    Form.LIVE: "whole model, its own dead heads and neurons cut out",
    Form.DENSE: "whole model, dense",
    Form.KERNELS: "whole model, its zeros left out by the sparse kernels",
}


@dataclass(frozen=True)
class Trial:
    """One measured micro-benchmark: how many times faster than dense, median and quartiles of paired rounds.

    `baseline` is the precision of the dense run that it is compared with. `shape` is that of the one matrix; None for
    the whole model. `units`: the kinds of units that were cut out, if any were.
    """

    form: Form
    sparsity: float
    speedup: float
    q25: float
    q75: float
    precision: Precision = Precision.FLOAT32
    baseline: Precision = Precision.FLOAT32
    shape: tuple[int, int] | None = None
    units: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """What was timed, in words."""
        text = TEXTS[self.form].format(units=units_text(self.units))
        half = self.shape is None and self.precision is Precision.BFLOAT16
        return f"{text}, in {self.precision}" if half else text

    @property
    def over(self) -> str:
        """What it is compared with, in words."""
        return f"dense {self.baseline}"


@dataclass(frozen=True)
class TrialCandidate:
    """Something to time. A dense one without a `baseline` is what others are compared with, and no trial itself."""

    form: Form
    precision: Precision
    sparsity: float
    run: Callable[[], object]
    baseline: Precision | None
    units: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Which of those that are timed together it is."""
        return f"{self.form} {self.precision} {self.sparsity}"


def units_text(units: Sequence[str]) -> str:
    """Kinds of units in words: `heads and neurons`."""
    return " and ".join(f"{kind}s" for kind in units)


def time_candidates(
    candidates: Sequence[TrialCandidate], rounds: int, shape: tuple[int, int] | None = None
) -> list[Trial]:
    """By interleaved rounds, each that has a baseline against the dense one of that precision, in the order given."""
    samples = interleave([Variant(one.name, one.run) for one in candidates], rounds)
    dense = {one.precision: samples[one.name] for one in candidates if one.form is Form.DENSE}
    found = []
    for one in candidates:
        if one.baseline is not None:
            q25, median, q75 = quartiles(ratios(samples[one.name], dense[one.baseline]))
            found.append(Trial(one.form, one.sparsity, median, q25, q75, one.precision, one.baseline, shape, one.units))
    return found

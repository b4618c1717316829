"""Schedules: a number as a function of the optimiser step, with no hidden counter."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.recipe.schema import When

Schedule = Callable[[int], float]
STEEPNESS = 12.0


@dataclass(frozen=True)
class Times:
    """Optimiser steps in a whole training, and in an epoch of it; None if data without a length has no epochs."""

    total: int
    per_epoch: float | None


@dataclass(frozen=True)
class Constant:
    """The same value at every step."""

    value: float

    def __call__(self, step: int) -> float:
        """The value."""
        return self.value


@dataclass(frozen=True)
class OneShot:
    """`initial` before step `start`, `final` from it on; `stop` plays no part."""

    initial: float
    final: float
    start: int
    stop: int = 0

    def __call__(self, step: int) -> float:
        """The value at a step."""
        return self.final if step >= self.start else self.initial


@dataclass(frozen=True)
class Ramp:
    """From `initial` at step `start` to `final` at `stop`, by `share` of the way, both 0 to 1.

    Raises ValueError if stop < start.
    """

    initial: float
    final: float
    start: int
    stop: int
    share: Callable[[float], float]

    def __post_init__(self) -> None:
        _check(self.start, self.stop)

    def __call__(self, step: int) -> float:
        """The value at a step."""
        share = self.share(_progress(self.start, self.stop, step))
        # Not initial + share * (final - initial): that is not exact at share 1.
        return (1 - share) * self.initial + share * self.final


def linear(initial: float, final: float, start: int, stop: int) -> Ramp:
    """A straight line."""
    return Ramp(initial, final, start, stop, lambda way: way)


def cubic(initial: float, final: float, start: int, stop: int) -> Ramp:
    """Fast first, then slowly. Zhu & Gupta 2017, arXiv:1710.01878, eq. 1."""
    return Ramp(initial, final, start, stop, lambda way: 1 - (1 - way) ** 3)


def sigmoid(initial: float, final: float, start: int, stop: int) -> Ramp:
    """Slow, fast, slow: a logistic curve over 12 of its units, scaled to be exact at both ends."""
    scale = math.tanh(STEEPNESS / 4)
    return Ramp(initial, final, start, stop, lambda way: 0.5 + 0.5 * math.tanh(STEEPNESS * (way - 0.5) / 2) / scale)


def cosine(initial: float, final: float, start: int, stop: int) -> Ramp:
    """Half a cosine."""
    return Ramp(initial, final, start, stop, lambda way: (1 - math.cos(math.pi * way)) / 2)


@dataclass(frozen=True)
class Exponential:
    """What is left, 1 - value, shrinks by the same factor every step, from `start` to `stop`.

    For values below 1, as sparsities are. Raises ValueError for others, and if stop < start.
    """

    initial: float
    final: float
    start: int
    stop: int

    def __post_init__(self) -> None:
        _check(self.start, self.stop)
        if self.initial >= 1 or self.final >= 1:
            raise ValueError(f"an exponential schedule is for values below 1, got {self.initial:g} to {self.final:g}")

    def __call__(self, step: int) -> float:
        """The value at a step."""
        share = _progress(self.start, self.stop, step)
        if share in (0.0, 1.0):
            return (self.initial, self.final)[int(share)]
        return 1 - (1 - self.initial) ** (1 - share) * (1 - self.final) ** share


def schedule_of(spec: float | Mapping[str, Any], times: Times) -> Schedule:
    """A number is constant; a mapping names a schedule and its values, `start` and `stop` as recipe.schema.When.

    Raises UserError for what is neither, for an unknown kind or key, and for a schedule that does not fit into `times`.
    """
    if not isinstance(spec, Mapping):
        return Constant(_number(spec))
    values = dict(spec)
    kind = str(values.pop("kind", ""))
    if kind == "constant":
        return registry.make("schedule", kind, values)
    start, stop = values.get("start", {"percent": 0}), values.get("stop", {"percent": 100})
    values["start"], values["stop"] = window(start, stop, times)
    return registry.make("schedule", kind, values)


def moment(spec: Mapping[str, Any] | When, times: Times) -> int:
    """A moment in optimiser steps.

    Raises UserError if it is not exactly one of steps, epochs and percent, and for epochs of data without a length.
    """
    try:
        when = When.model_validate(spec)
    except ValidationError as error:
        raise UserError(
            f"This is no moment: {error.errors()[0]['msg'].removeprefix('Value error, ')}", got=spec
        ) from None
    if when.epochs is None:
        return when.in_steps(times.total, 0)
    if times.per_epoch is None:
        raise UserError(
            "Data without a length has no epochs", got=f"{when.epochs:g} epochs", fix="give steps or percent"
        )
    return when.in_steps(times.total, times.per_epoch)


def window(start: Mapping[str, Any] | When, stop: Mapping[str, Any] | When, times: Times) -> tuple[int, int]:
    """The first and last step at which a value changes.

    Raises UserError if that stops before it starts, or after the training, which would miss its target.
    """
    first, last = moment(start, times), moment(stop, times)
    if last < first:
        raise UserError("The schedule stops before it starts", got=f"start {first}, stop {last} (steps)")
    if last > times.total:
        raise UserError(
            "The schedule goes on after the training ends",
            got=f"start {first}, stop {last} (steps)",
            allowed=f"at most {times.total}, the steps of this training",
            fix="train longer, or give start and stop in percent",
        )
    return first, last


def moments(start: int, stop: int, every: int) -> Callable[[int], bool]:
    """Whether masks change at a step: at `start`, every `every` steps after it, and at `stop` in any case."""
    return lambda step: start <= step <= stop and ((step - start) % every == 0 or step == stop)


def _number(spec: Any) -> float:
    try:
        return float(spec)
    except (TypeError, ValueError):
        raise UserError("This is neither a number nor a schedule", got=spec) from None


def _check(start: int, stop: int) -> None:
    if stop < start:
        raise ValueError(f"it stops before it starts (start {start}, stop {stop}, in steps)")


def _progress(start: int, stop: int, step: int) -> float:
    if stop == start:
        return float(step >= start)
    return min(1.0, max(0.0, (step - start) / (stop - start)))

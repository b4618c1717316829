"""The one timing engine: variants in interleaved rounds, paired ratios, and the encoder's share of a forward pass.

Machines drift (turbo, neighbours, temperature), so times of different minutes cannot be compared. Here all variants
are timed within each round, and a speedup is the median of the ratios of the rounds.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from scipy.special import bdtr
from torch import nn

from sparsebert.errors import UserError
from sparsebert.recipe.schema import MOST_THREADS
from sparsebert.records import TimeSummary, Timing

NS_PER_MS = 1e6
LEVEL = 0.05
# A median ratio is known well enough if its 95 % interval reaches no further from it than this part of it.
NARROW = 0.05
# More rounds than asked for are at most so many times as many, and take at most so long.
MOST_TIMES = 4
LONGEST_S = 30.0


class Measurable(Protocol):
    """What `measure` times: a Variant, or one that runs in another process, by the clock there."""

    @property
    def name(self) -> str:
        """Unlike all others of a measurement."""
        ...

    def warm_up(self, warmup_ms: float, min_sample_ms: float, clock: Callable[[], int]) -> int:
        """Run for so long; gives how many calls make a sample of `min_sample_ms`."""
        ...

    def sample(self, calls: int, clock: Callable[[], int]) -> tuple[int, int | None]:
        """Nanoseconds of so many calls, and those of them in a part, where there is one."""
        ...


@dataclass(frozen=True)
class Variant:
    """One thing to time. `part_ns` reads a running total of the nanoseconds spent in a part of the calls so far."""

    name: str
    call: Callable[[], object]
    part_ns: Callable[[], int] | None = None

    def warm_up(self, warmup_ms: float, min_sample_ms: float, clock: Callable[[], int]) -> int:
        """As Measurable says: three calls at least, of which the fastest decides."""
        return _calls_per_sample(self, warmup_ms, min_sample_ms, clock)

    def sample(self, calls: int, clock: Callable[[], int]) -> tuple[int, int | None]:
        """As Measurable says."""
        part_before = self.part_ns() if self.part_ns else 0
        start = clock()
        for _ in range(calls):
            self.call()
        total = clock() - start
        return total, (self.part_ns() - part_before if self.part_ns else None)


@dataclass(frozen=True)
class Samples:
    """Milliseconds a call, one entry a round; `calls` were made for each entry. `part_ms` belongs to `part_ns`."""

    whole_ms: tuple[float, ...]
    part_ms: tuple[float, ...] | None
    calls: int

    def shared(self, parts: int) -> Samples:
        """The same, of a call that is taken for so many."""
        part_ms = None if self.part_ms is None else tuple(ms / parts for ms in self.part_ms)
        return Samples(tuple(ms / parts for ms in self.whole_ms), part_ms, self.calls * parts)


@dataclass(frozen=True)
class Conditions:
    """What a time was measured under."""

    scope: Literal["encoder", "model"]
    backend: str
    dtype: str
    attention: str
    batch: int
    length: int
    threads: int


def measure(
    variants: Sequence[Measurable],
    rounds: int = 15,
    *,
    compared: Iterable[tuple[str, str]] = (),
    warmup_ms: float = 200,
    min_sample_ms: float = 15,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, Samples]:
    """Time every variant once a round, in an order that changes from round to round.

    Each variant first runs for `warmup_ms` (three calls at least); its fastest call fixes how many calls make a sample
    of `min_sample_ms`. Runs without autograd and without the garbage collector. `clock` counts nanoseconds.
    `compared`: names of pairs whose ratio matters. Where one of them is not known to NARROW after `rounds`, as many
    follow again, and again, until all are, or until there are MOST_TIMES as many, or LONGEST_S are over.
    """
    names, pairs = [variant.name for variant in variants], list(compared)
    if len(set(names)) != len(names):
        raise ValueError(f"variants need names of their own, got {names}")
    whole: dict[str, list[float]] = {name: [] for name in names}
    part: dict[str, list[float]] = {}
    with undisturbed():
        calls = {variant.name: variant.warm_up(warmup_ms, min_sample_ms, clock) for variant in variants}
        end = math.inf
        for turn, order in enumerate(orders(len(variants), rounds * (MOST_TIMES if pairs else 1))):
            if turn == rounds:
                end = clock() + LONGEST_S * 1000 * NS_PER_MS
            if clock() > end or (turn > 0 and turn % rounds == 0 and _all_narrow(pairs, whole, part)):
                break
            for variant in (variants[index] for index in order):
                total_ns, part_ns = variant.sample(calls[variant.name], clock)
                whole[variant.name].append(total_ns / calls[variant.name] / NS_PER_MS)
                if part_ns is not None:
                    part.setdefault(variant.name, []).append(part_ns / calls[variant.name] / NS_PER_MS)
    return {n: Samples(tuple(whole[n]), tuple(part[n]) if n in part else None, calls[n]) for n in names}


def _all_narrow(
    pairs: Iterable[tuple[str, str]], whole: Mapping[str, Sequence[float]], part: Mapping[str, Sequence[float]]
) -> bool:
    """Whether the ratio of every pair is well known, of the whole and of the part where both have one."""
    return all(
        is_narrow(ratios(times[own], times[base]))
        for own, base in pairs
        for times in (whole, part)
        if own in times and base in times
    )


def interleave(
    variants: Sequence[Measurable],
    rounds: int = 15,
    *,
    warmup_ms: float = 200,
    min_sample_ms: float = 15,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, list[float]]:
    """Milliseconds a call of each variant, one entry a round: `measure` for variants that have no part."""
    samples = measure(variants, rounds, warmup_ms=warmup_ms, min_sample_ms=min_sample_ms, clock=clock)
    return {name: list(found.whole_ms) for name, found in samples.items()}


def orders(count: int, rounds: int) -> list[list[int]]:
    """The order of `count` variants in each round, so that none always follows the same one.

    A Williams design (Williams 1949, doi:10.1071/CH9490149): over 2 * count rounds every variant follows every other
    equally often within a round, and has every place equally often.
    """
    zigzag = [index // 2 + 1 if index % 2 else -(index // 2) for index in range(count)]
    rows = ([(place + turn // 2) % count for place in zigzag] for turn in range(rounds))
    return [row[::-1] if turn % 2 else row for turn, row in enumerate(rows)]


def times(samples_ms: Sequence[float], baseline_ms: Sequence[float] | None) -> TimeSummary:
    """Summarise one variant; speedup = median of baseline/variant over the rounds (1 = as fast, higher = faster).

    Raises ValueError for rounds that cannot be paired, and for times of zero, of which there is no ratio.
    """
    if min(samples_ms) <= 0:
        raise ValueError("a time of zero has no tokens per second and no speedup")
    q25, median, q75 = quartiles(samples_ms)
    paired = None if baseline_ms is None else ratios(samples_ms, baseline_ms)
    ratio = (None, None, None) if paired is None else quartiles(paired)
    low, high = (None if paired is None else median_interval(paired)) or (None, None)
    return TimeSummary(
        rounds=len(samples_ms),
        median_ms=median,
        q25_ms=q25,
        q75_ms=q75,
        speedup=ratio[1],
        speedup_q25=ratio[0],
        speedup_q75=ratio[2],
        speedup_low=low,
        speedup_high=high,
    )


def timing(samples_ms: Sequence[float], baseline_ms: Sequence[float] | None, conditions: Conditions) -> Timing:
    """The `times` of a forward pass under these conditions, with its rate. Raises ValueError as `times` does."""
    found = times(samples_ms, baseline_ms)
    return Timing(
        **dict(found),
        **asdict(conditions),
        tokens_per_s=1000 * conditions.batch * conditions.length / found.median_ms,
    )


def ratios(samples_ms: Sequence[float], baseline_ms: Sequence[float]) -> list[float]:
    """Baseline over variant, round by round."""
    return [base / own for base, own in zip(baseline_ms, samples_ms, strict=True)]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile, with linear interpolation."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float(low), float(middle), float(high)


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the median, of whatever distribution; None for fewer than six values, which give none.

    Its ends are two of the values, as far from the least and the greatest as signs allow (Conover 1999, section 3.2).
    """
    place = int(np.sum(bdtr(np.arange(len(values)), len(values), 0.5) < LEVEL / 2))
    ordered = sorted(values)
    return (ordered[place - 1], ordered[-place]) if place > 0 else None


def is_narrow(values: Sequence[float]) -> bool:
    """Whether the 95 % interval of the median reaches no further from it than NARROW of it."""
    found, middle = median_interval(values), quartiles(values)[1]
    return found is not None and max(middle - found[0], found[1] - middle) <= NARROW * middle


class EncoderTimer:
    """Running total of the time from the start of the first layer to the end of the last, over all forward passes."""

    def __init__(self, clock: Callable[[], int], device: torch.device) -> None:
        self.total_ns = 0
        self.passes = 0
        self._clock = clock
        self._device = device
        self._start = 0

    def enter(self, module: nn.Module, inputs: object) -> None:
        """Forward pre-hook of the first layer."""
        finish(self._device)
        self._start = self._clock()

    def leave(self, module: nn.Module, inputs: object, output: object) -> None:
        """Forward hook of the last layer."""
        finish(self._device)
        self.total_ns += self._clock() - self._start
        self.passes += 1


@contextmanager
def encoder_timer(
    model: nn.Module, layer_paths: Sequence[str], clock: Callable[[], int] = time.perf_counter_ns
) -> Iterator[EncoderTimer]:
    """Time the layers of `model` (dotted paths, in the order they run) inside its forward pass, until the block ends.

    With no layers the total stays zero.
    """
    watch = EncoderTimer(clock, next(model.parameters()).device)
    if not layer_paths:
        yield watch
        return
    before = model.get_submodule(layer_paths[0]).register_forward_pre_hook(watch.enter)
    after = model.get_submodule(layer_paths[-1]).register_forward_hook(watch.leave)
    try:
        yield watch
    finally:
        before.remove()
        after.remove()


@contextmanager
def torch_threads(count: int | None) -> Iterator[int]:
    """Run torch on `count` threads (none = as it is) until the block ends. Gives the number in use."""
    if count is not None and not 1 <= count <= MOST_THREADS:
        raise UserError("That is no number of threads", got=count, allowed=f"1 to {MOST_THREADS}")
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Without autograd and without the garbage collector, until the block ends."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        with torch.inference_mode():
            yield
    finally:
        if was_on:
            gc.enable()


def finish(device: torch.device) -> None:
    """Wait for the device, because CUDA kernels run on after the call has returned."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _calls_per_sample(
    variant: Variant, warmup_ms: float, min_sample_ms: float, clock: Callable[[], int], min_calls: int = 3
) -> int:
    spent, times = 0, []
    while spent < warmup_ms * NS_PER_MS or len(times) < min_calls:
        start = clock()
        variant.call()
        times.append(clock() - start)
        spent += times[-1]
    return max(1, math.ceil(min_sample_ms * NS_PER_MS / max(1, min(times))))

"""The energy of 1,000 texts: variants in interleaved rounds, each long enough for the machine's counters."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch

from sparsebert.energy import EnergyMeter, measured_energy
from sparsebert.records import EnergyUse
from sparsebert.timing import median_interval, orders, quartiles, ratios

K = TypeVar("K", bound=Hashable)
# As few as give a median an interval, and one more. RAPL counts on once a millisecond, a GPU some ten times a second.
ROUNDS, ROUND_S = 7, 1.0
TEXTS = 1000


@dataclass(frozen=True)
class EnergyUses(Generic[K]):
    """What was measured of each variant, or why nothing was."""

    found: Mapping[K, EnergyUse] = field(default_factory=dict)
    missing: str | None = None


def energy_uses(
    repeats: Mapping[K, Callable[[float], int]],
    texts: int,
    device: torch.device,
    baseline: Callable[[K], K],
    *,
    rounds: int = ROUNDS,
    round_s: float = ROUND_S,
) -> EnergyUses[K]:
    """Repeat every variant for `round_s` seconds a round, in an order that changes; a call is of `texts` texts.

    `repeats` are told for how many seconds, and give the number of calls, as `repeated` does. Savings are over the
    variant that `baseline` gives. Nothing runs where nothing can be measured.
    """
    with measured_energy(device) as meter, torch.inference_mode():
        samples: dict[K, list[float]] = {key: [] for key in repeats}
        for order in orders(len(repeats), rounds):
            for key in (list(repeats)[place] for place in order):
                joules = _joules_per_call(repeats[key], meter, round_s)
                if joules is None:
                    return EnergyUses(missing=meter.spent.missing)
                samples[key].append(joules / texts * TEXTS)
        source = meter.spent.source
    if source is None or min(map(min, samples.values())) <= 0:
        return EnergyUses(missing=meter.spent.missing or "the counters stood still")
    return EnergyUses({key: _use(own, samples[baseline(key)], source, round_s) for key, own in samples.items()})


def repeated(call: Callable[[], object], seconds: float) -> int:
    """Call for so long, once at least; gives how often."""
    count, end = 0, time.perf_counter() + seconds
    while count == 0 or time.perf_counter() < end:
        call()
        count += 1
    return count


def _joules_per_call(repeat: Callable[[float], int], meter: EnergyMeter, round_s: float) -> float | None:
    before = meter.look().total
    if before is None:
        return None
    count = repeat(round_s)
    after = meter.look().total
    return None if after is None else (after - before) / count


def _use(own: list[float], base: list[float], source: str, round_s: float) -> EnergyUse:
    q25, median, q75 = quartiles(own)
    paired = None if own is base else ratios(own, base)
    low, high = (None if paired is None else median_interval(paired)) or (None, None)
    return EnergyUse(
        source=source,
        rounds=len(own),
        round_s=round_s,
        median_j=median,
        q25_j=q25,
        q75_j=q75,
        saving=None if paired is None else quartiles(paired)[1],
        saving_low=low,
        saving_high=high,
    )

"""Energy by the machine's own counters: RAPL of processor packages, NVML of a GPU. Never a guess from watts.

Both count all that runs there: a package is the whole processor with the programs of everybody, a GPU the whole card.
Where there is no counter, or it may not be read, there is no number but the reason why.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from sparsebert.records import NOT_HERE

if TYPE_CHECKING:
    import torch

POWERCAP = Path("/sys/class/powercap")
JOULES_PER_KWH = 3.6e6
_MICRO, _MILLI = 1e-6, 1e-3
# A package of 400 W fills the smallest range, 65 kJ, in under three minutes.
_EVERY_S, _LONGEST_GAP_S = 20.0, 120.0


class EnergyError(Exception):
    """Why a counter cannot be read."""


@dataclass(frozen=True)
class Counter:
    """A running total of joules; `wraps_at` is where it starts from zero again, None = it does not."""

    name: str
    read: Callable[[], float]
    wraps_at: float | None = None


@dataclass(frozen=True)
class Counters:
    """What can be read for one device; none of it where `missing` says why."""

    found: tuple[Counter, ...]
    missing: str | None = None

    @property
    def words(self) -> str:
        """The names of the sources, or that there is none and why."""
        return f"{NOT_HERE}: {self.missing}" if self.missing else _named(counter.name for counter in self.found)


@dataclass(frozen=True)
class Spent:
    """Joules by source, or None and the reason why that is not known."""

    joules: Mapping[str, float] | None
    missing: str | None = None

    @property
    def total(self) -> float | None:
        """Joules of all sources."""
        return None if self.joules is None else sum(self.joules.values())

    @property
    def kwh(self) -> float | None:
        """Kilowatt-hours of all sources."""
        return None if self.total is None else self.total / JOULES_PER_KWH

    @property
    def source(self) -> str | None:
        """The names of the sources."""
        return None if self.joules is None else _named(self.joules)

    def plus(self, other: Spent) -> Spent:
        """Both together, source by source; unknown where one of them is."""
        if self.joules is None or other.joules is None:
            return Spent(None, self.missing or other.missing)
        names = dict.fromkeys((*self.joules, *other.joules))
        return Spent({name: self.joules.get(name, 0.0) + other.joules.get(name, 0.0) for name in names})


NOTHING = Spent({})


class EnergyMeter:
    """What its counters have counted since it was made; unknown once one of them could not be read.

    A counter that wraps must be looked at at least every two minutes, as more than one round could not be told.
    `clock` counts seconds.
    """

    def __init__(self, counters: Counters, clock: Callable[[], float] = time.monotonic) -> None:
        self._counters, self._clock, self._lock = counters.found, clock, threading.Lock()
        self._missing = counters.missing
        self._sums = [0.0] * len(counters.found)
        self._last: list[float | None] = [None] * len(counters.found)
        self._looked = clock()
        self.look()

    @property
    def spent(self) -> Spent:
        """Until it looked last."""
        with self._lock:
            if self._missing:
                return Spent(None, self._missing)
            parts = [Spent({one.name: joules}) for one, joules in zip(self._counters, self._sums, strict=True)]
        return reduce(Spent.plus, parts, NOTHING)

    @property
    def wraps(self) -> bool:
        """Whether it must look now and then."""
        return any(counter.wraps_at is not None for counter in self._counters)

    def look(self) -> Spent:
        """Read every counter; what was spent until now."""
        with self._lock:
            now = self._clock()
            gap_s, self._looked = now - self._looked, now
            try:
                for place in () if self._missing else range(len(self._counters)):
                    self._add(place, gap_s)
            except EnergyError as error:
                self._missing = str(error)
        return self.spent

    def _add(self, place: int, gap_s: float) -> None:
        counter, before = self._counters[place], self._last[place]
        value = self._last[place] = counter.read()
        if counter.wraps_at is not None and gap_s > _LONGEST_GAP_S:
            raise EnergyError(f"{counter.name} was not read for {gap_s:.0f} s and may have begun anew more than once")
        since = 0.0 if before is None else value - before
        if since < 0 and counter.wraps_at is None:
            raise EnergyError(f"{counter.name} was set back")
        self._sums[place] += since if since >= 0 else since + (counter.wraps_at or 0.0)


@contextmanager
def measured_energy(device: torch.device | None = None, powercap: Path | None = None) -> Iterator[EnergyMeter]:
    """What the machine spends in the block, on the packages of the processor and the GPU that `device` is, if any.

    After the block `meter.spent` stays as it is. `powercap`: the folder of the kernel's counters, None = where it is.
    """
    meter, ended = EnergyMeter(counters(device, powercap)), threading.Event()
    watch = threading.Thread(target=_look_again_and_again, args=(meter, ended), daemon=True)
    if meter.wraps:
        watch.start()
    try:
        yield meter
    finally:
        ended.set()
        if meter.wraps:
            watch.join()
        meter.look()


def _look_again_and_again(meter: EnergyMeter, ended: threading.Event) -> None:
    while not ended.wait(_EVERY_S):
        meter.look()


def counters(device: torch.device | None = None, powercap: Path | None = None) -> Counters:
    """The counters of what `device` takes: of the processor's packages where they can be read, and of a GPU.

    Work of a processor without its packages cannot be told, nor that of a GPU without the GPU.
    """
    packages = rapl(powercap or POWERCAP)
    if device is None or device.type != "cuda":
        return packages
    card = nvml(device)
    return card if card.missing else Counters((*card.found, *packages.found))


def rapl(powercap: Path) -> Counters:
    """Every package of the processor, by the kernel's powercap interface (Intel, and AMD since Linux 5.8).

    Its parts (core, uncore) are counted in it already, and so is it in the platform's domain (psys); the memory of
    servers (dram) is in none. All packages or none: a part of them would be too little.
    """
    try:
        zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if _text(zone / "name").startswith("package")]
        found = [_package(zone) for zone in zones]
        for counter in found:
            counter.read()
    except EnergyError as error:
        return Counters((), str(error))
    return Counters(tuple(found), None if found else f"no RAPL counters in {powercap}")


def _package(zone: Path) -> Counter:
    name = f"RAPL {_text(zone / 'name')}"
    return Counter(name, lambda: _joules(zone / "energy_uj"), _joules(zone / "max_energy_range_uj"))


def _joules(file: Path) -> float:
    text = _text(file)
    if not text.isdecimal():
        raise EnergyError(f"{file} holds no number")
    return int(text) * _MICRO


def _text(file: Path) -> str:
    """Raises EnergyError where a counter's file cannot be read."""
    try:
        return file.read_text(encoding="ascii").strip()
    except PermissionError:
        raise EnergyError(f"{file} may be read by the administrator only") from None
    except (OSError, UnicodeError) as error:
        raise EnergyError(f"{file} cannot be read ({type(error).__name__})") from None


def nvml(device: torch.device) -> Counters:
    """The whole card that torch calls `device`, by NVIDIA's driver (`nvmlDeviceGetTotalEnergyConsumption`, Volta on).

    Needs the extra `energy`.
    """
    import torch

    try:
        import pynvml
    except ImportError:
        return Counters((), "nvidia-ml-py is not installed (pip install 'sparsebert[energy]')")
    card = torch.cuda.get_device_properties(device)
    try:
        pynvml.nvmlInit()
        # The numbers of NVML are not those of CUDA_VISIBLE_DEVICES.
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{card.uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        return Counters((), f"NVML: {error}")

    def read() -> float:
        try:
            return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) * _MILLI
        except pynvml.NVMLError as error:
            raise EnergyError(f"NVML: {error}") from None

    return Counters((Counter(f"NVML {card.name}", read),))


def _named(names: Iterable[str]) -> str:
    """Sources as one text, which says that they count more than what is measured."""
    return f"{' + '.join(names)}, all programs"

"""Compare models: interleaved times, output checks and a verdict in words.

All models and runtimes of one setting share one measurement, so that every ratio is of paired rounds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.measurement.energy import EnergyUses, energy_uses
from sparsebert.measurement.setting import Given, RealTexts, Setting, random_tokens
from sparsebert.measurement.station import Described, Station, stations
from sparsebert.records import Part, Timing
from sparsebert.timing import (
    NARROW,
    Conditions,
    Samples,
    measure,
    median_interval,
    quartiles,
    ratios,
    timing,
    torch_threads,
)

NOTICEABLE = 1.05
PERCENTILES = (50, 95, 99)


class Match(Part):
    """How outputs for the same random `sequences` differ from others.

    relative_difference: of the largest of the others. agreement: part of the sequences given the same class, if any.
    """

    largest_difference: float
    relative_difference: float
    sequences: int
    agreement: float | None = None


class TextTimes(Part):
    """Real texts, as many as `texts`: how many a second, and percentiles of the time of a batch of them.

    The rate is a median of rounds; percentiles are of the batches of all rounds.
    """

    texts: int
    texts_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


class BenchRow(Part):
    """One model in one runtime in one setting.

    `backend` is the name of the runtime, as in a Timing. A speedup in `timings` is over the first model in the same
    runtime; `backend_speedup` is over the same model in the first runtime. The two matches are against the same two.
    `cores` is how many the process may use, the same for all. Where a runtime cannot run, `unavailable` says why. With
    real texts `length` is their mean in tokens, rounded, and times are those of a batch, on average over all of them.
    """

    model: str
    backend: str
    batch: int
    length: int
    cores: int
    unavailable: str | None = None
    timings: tuple[Timing, ...] = ()
    backend_speedup: float | None = None
    backend_speedup_q25: float | None = None
    backend_speedup_q75: float | None = None
    backend_speedup_low: float | None = None
    backend_speedup_high: float | None = None
    against_baseline: Match | None = None
    against_first_backend: Match | None = None
    peak_memory_mb: float | None = None
    real: TextTimes | None = None

    def timing(self, scope: str) -> Timing | None:
        """The time of `model` or `encoder`; none where it was not measured."""
        return next((found for found in self.timings if found.scope == scope), None)


def bench(
    models: Mapping[str, PreTrainedModel],
    settings: Sequence[Setting],
    runtimes: Sequence[str] = ("eager",),
    *,
    rounds: int = 15,
    threads: int | None = None,
    seed: int = 0,
    min_sample_ms: float = 15,
    warmup_ms: float = 200,
    energy: bool = False,
    texts: RealTexts | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> list[BenchRow]:
    """Measure every model in every runtime in every setting; the first model is the baseline.

    Inputs are random tokens without padding, the same for all; with `texts` those, each as long as it is, in batches as
    the settings say, whose lengths then mean nothing. One runtime runs in this process; of several each has a
    process of its own, with the same threads and cores, and one works while the others sleep (see `stations`). The time
    of the encoder (its layers only) comes from the same forward passes, in runtimes that run layer by layer and for
    models that have layers. With `energy` rounds of a second follow, whose energy is measured where the machine can
    tell it. Raises UserError for an unknown runtime, for input that a model cannot take, and for a runtime whose
    process fails or dies.
    """
    if not models or not settings or not runtimes:
        raise UserError("A benchmark needs at least one model, one setting and one runtime")
    names, first = list(dict.fromkeys(runtimes)), next(iter(models))
    for name in names:
        registry.check("runtime", name)
    plan = _Plan(first, rounds, min_sample_ms, warmup_ms, energy, _device(models), progress)
    if texts is None:
        given = [random_tokens(models, setting, seed) for setting in settings]
    else:
        given = [texts.given(models, batch) for batch in dict.fromkeys(setting.batch for setting in settings)]
    rows: list[BenchRow] = []
    with torch_threads(threads) as count, stations(models, names, count) as opened:
        for one in given:
            results = _results(plan, one, opened, count)
            rows += [
                _row(results, key, _Key(first, key.runtime), _Key(key.model, names[0])) for key in _keys(models, names)
            ]
    return rows


def verdict(model: str, baseline: str, measured: Timing) -> str:
    """Say in words whether `model` is faster than `baseline`.

    Faster or slower needs a median ratio at least 1.05 away from 1, and its 95 % interval on the same side of 1; the
    quartiles, where there were too few rounds for an interval. A wide range is called noisy.
    """
    how = f"{measured.scope}, {measured.backend}, batch {measured.batch}, length {measured.length}"
    if model == baseline:
        spread = f"quartiles {measured.q25_ms:.2f}-{measured.q75_ms:.2f}, {measured.rounds} rounds"
        return f"{model} is the baseline ({how}; {measured.median_ms:.2f} ms, {spread})"
    range_ = _range(measured.speedup_low, measured.speedup_high, measured.speedup_q25, measured.speedup_q75)
    if measured.speedup is None or range_ is None:
        return f"{model} was not compared with {baseline} ({how})"
    return _said(model, baseline, measured.speedup, range_, how, measured.rounds)


def runtime_verdict(row: BenchRow, first: str) -> str | None:
    """Say in words whether a row's runtime is faster than the `first` for the same model; None if it is that."""
    range_ = _range(row.backend_speedup_low, row.backend_speedup_high, row.backend_speedup_q25, row.backend_speedup_q75)
    if row.backend_speedup is None or range_ is None:
        return None
    names, how = (f"{row.model} on {row.backend}", f"on {first}"), f"model, batch {row.batch}, length {row.length}"
    return _said(*names, row.backend_speedup, range_, how, row.timings[0].rounds)


class _Range(NamedTuple):
    low: float
    high: float
    what: str


def _range(low: float | None, high: float | None, q25: float | None, q75: float | None) -> _Range | None:
    """The interval of a median; the quartiles where there is none."""
    if low is not None and high is not None:
        return _Range(low, high, "95% interval")
    return None if q25 is None or q75 is None else _Range(q25, q75, "quartiles")


def _said(one: str, other: str, middle: float, range_: _Range, how: str, rounds: int) -> str:
    noisy = ", noisy" if max(middle - range_.low, range_.high - middle) > NARROW * middle else ""
    spread = f"({how}; {range_.what} {range_.low:.2f}-{range_.high:.2f}{noisy}, {rounds} rounds)"
    if middle >= NOTICEABLE and range_.low > 1:
        return f"{one} is {middle:.2f}x faster than {other} {spread}"
    if middle <= 1 / NOTICEABLE and range_.high < 1:
        return f"{one} is slower than {other}: {middle:.2f}x its speed {spread}"
    if noisy:
        return f"{one} is not shown to be faster or slower than {other}: {middle:.2f}x its speed {spread}"
    return f"{one} is no faster than {other}: {middle:.2f}x its speed {spread}"


class _Key(NamedTuple):
    model: str
    runtime: str


@dataclass(frozen=True)
class _Plan:
    """How every setting is measured; `first` is the baseline."""

    first: str
    rounds: int
    min_sample_ms: float
    warmup_ms: float
    energy: bool
    device: torch.device
    progress: Callable[[str], None]


@dataclass(frozen=True)
class _Results:
    """All that one setting gave."""

    given: Given
    threads: int
    cores: int
    ready: Mapping[_Key, Described]
    missing: Mapping[_Key, str]
    samples: Mapping[_Key, Samples]
    outputs: Mapping[_Key, Tensor]
    batches_ms: Mapping[_Key, np.ndarray]
    energy: EnergyUses[_Key]


def _keys(models: Iterable[str], runtimes: Iterable[str]) -> list[_Key]:
    return [_Key(model, runtime) for runtime in runtimes for model in models]


def _device(models: Mapping[str, PreTrainedModel]) -> torch.device:
    devices = {model.device for model in models.values()}
    if len(devices) > 1:
        raise UserError("The models lie on different devices", got=", ".join(sorted(map(str, devices))))
    return devices.pop()


def _results(plan: _Plan, given: Given, opened: Mapping[str, Station], threads: int) -> _Results:
    plan.progress(f"{given.words}: preparing")
    ready, missing = _prepare(opened, given)
    plan.progress(f"{given.words}: {len(ready)} variants, {plan.rounds} rounds")
    samples = _measure(plan, opened, list(ready), given.timed)
    batches_ms = {key: opened[key.runtime].batches_ms(key.model) for key in ready}
    uses = EnergyUses[_Key]()
    if plan.energy:
        plan.progress(f"{given.words}: energy of {len(ready)} variants")
        uses = _energy(plan, opened, list(ready), given.texts or given.batch)
    outputs = {key: torch.from_numpy(opened[key.runtime].outputs(key.model)) for key in ready}
    return _Results(given, threads, len(os.sched_getaffinity(0)), ready, missing, samples, outputs, batches_ms, uses)


def _prepare(opened: Mapping[str, Station], given: Given) -> tuple[dict[_Key, Described], dict[_Key, str]]:
    found = {runtime: station.prepare(given.batches, given.timed) for runtime, station in opened.items()}
    cells = {_Key(model, runtime): said for runtime, of in found.items() for model, said in of.items()}
    ready = {key: said for key, said in cells.items() if isinstance(said, Described)}
    return ready, {key: said for key, said in cells.items() if isinstance(said, str)}


@dataclass(frozen=True)
class _Cell:
    """One model at one Station, as something to measure: the clock is that of the station."""

    name: str
    station: Station
    model: str

    def warm_up(self, warmup_ms: float, min_sample_ms: float, clock: Callable[[], int]) -> int:
        return self.station.warm_up(self.model, warmup_ms, min_sample_ms)

    def sample(self, calls: int, clock: Callable[[], int]) -> tuple[int, int | None]:
        return self.station.sample(self.model, calls)


def _measure(plan: _Plan, opened: Mapping[str, Station], keys: Sequence[_Key], batches: int) -> dict[_Key, Samples]:
    """Milliseconds a batch."""
    cells = {key: _Cell("/".join(key), opened[key.runtime], key.model) for key in keys}
    pairs = [(cells[own].name, cells[base].name) for own, base in _pairs(keys)]
    found = measure(
        list(cells.values()),
        plan.rounds,
        compared=pairs,
        warmup_ms=plan.warmup_ms,
        min_sample_ms=plan.min_sample_ms,
    )
    return {key: found[cell.name].shared(batches) for key, cell in cells.items()}


def _pairs(keys: Sequence[_Key]) -> Iterator[tuple[_Key, _Key]]:
    """What is compared: every model with the first in its runtime, every runtime with the first of its model."""
    for index, key in enumerate(keys):
        for other in (
            next(one for one in keys if one.runtime == key.runtime),
            next(one for one in keys if one.model == key.model),
        ):
            if other in keys[:index]:
                yield key, other


def _energy(plan: _Plan, opened: Mapping[str, Station], keys: Sequence[_Key], texts: int) -> EnergyUses[_Key]:
    def baseline(key: _Key) -> _Key:
        other = _Key(plan.first, key.runtime)
        return other if other in keys else key

    repeats = {key: partial(opened[key.runtime].repeat, key.model) for key in keys}
    return energy_uses(repeats, texts, plan.device, baseline) if repeats else EnergyUses()


def _row(results: _Results, key: _Key, baseline: _Key, first: _Key) -> BenchRow:
    """`baseline`: first model, same runtime. `first`: same model, first runtime."""
    row = BenchRow(
        model=key.model,
        backend=key.runtime,
        batch=results.given.batch,
        length=results.given.length,
        cores=results.cores,
        unavailable=results.missing.get(key),
    )
    if key in results.missing:
        return row
    others = results.samples.keys() - {key}
    own_ms = results.samples[key].whole_ms
    paired = ratios(own_ms, results.samples[first].whole_ms) if first in others else None
    over = (None, None, None) if paired is None else quartiles(paired)
    low, high = (None if paired is None else median_interval(paired)) or (None, None)
    found = {
        "timings": _timings(results, key, results.samples.get(baseline)),
        "against_baseline": _match(results, key, baseline) if baseline in others else None,
        "against_first_backend": _match(results, key, first) if first in others else None,
        "backend_speedup_q25": over[0],
        "backend_speedup": over[1],
        "backend_speedup_q75": over[2],
        "backend_speedup_low": low,
        "backend_speedup_high": high,
        "real": _real(results, key),
    }
    return row.model_copy(update=found)


def _real(results: _Results, key: _Key) -> TextTimes | None:
    if results.given.texts is None:
        return None
    pass_ms = results.given.timed * float(np.median(results.samples[key].whole_ms))
    p50, p95, p99 = map(float, np.percentile(results.batches_ms[key], PERCENTILES))
    return TextTimes(
        texts=results.given.texts,
        texts_per_s=1000 * results.given.texts / pass_ms,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
    )


def _timings(results: _Results, key: _Key, baseline: Samples | None) -> tuple[Timing, ...]:
    conditions = Conditions(
        scope="model",
        backend=key.runtime,
        dtype=results.ready[key].dtype,
        attention=results.ready[key].attention,
        batch=results.given.batch,
        length=results.given.length,
        threads=results.threads,
    )
    own = results.samples[key]
    whole = timing(own.whole_ms, baseline.whole_ms if baseline else None, conditions)
    about_energy = {"energy": results.energy.found.get(key), "energy_missing": results.energy.missing}
    tokens = results.given.tokens / results.given.timed
    whole = _with_rate(whole, tokens).model_copy(update=about_energy)
    if own.part_ms is None:
        return (whole,)
    encoder = replace(conditions, scope="encoder")
    return whole, _with_rate(timing(own.part_ms, baseline.part_ms if baseline else None, encoder), tokens)


def _with_rate(found: Timing, tokens: float) -> Timing:
    """Of `tokens` a batch: texts are not all of one length, nor batches all full."""
    return found.model_copy(update={"tokens_per_s": 1000 * tokens / found.median_ms})


def _match(results: _Results, key: _Key, other: _Key) -> Match | None:
    """None for outputs of different shapes, and for those of scales that only the user's own texts could set."""
    if any(registry.get("runtime", one.runtime).calibrated for one in (key, other)):
        return None
    output, reference = results.outputs[key], results.outputs[other]
    if output.shape != reference.shape:
        return None
    equal = (output.argmax(-1) == reference.argmax(-1)).float().mean()
    largest = float((output - reference).abs().max())
    return Match(
        largest_difference=largest,
        relative_difference=largest / max(float(reference.abs().max()), 1e-12),
        sequences=len(output),
        agreement=float(equal) if results.ready[key].predicts else None,
    )

"""Where models are timed in one runtime: in this process, or in one of its own where there are several runtimes.

Runtimes of one process disturb each other: their pools of threads wait by spinning, on the same cores.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from sparsebert import registry
from sparsebert.measurement.energy import repeated
from sparsebert.models.layout import layout_of
from sparsebert.models.parcel import Parcel, parcel, unpacked
from sparsebert.processes import Remote
from sparsebert.runtimes.program import Arrays, RuntimeUnavailableError
from sparsebert.runtimes.runtime import ModelInputs, Prepared
from sparsebert.timing import Variant, encoder_timer, finish, undisturbed


@dataclass(frozen=True)
class Described:
    """What is said of a Prepared model elsewhere."""

    dtype: str
    attention: str
    predicts: bool


class Station(Protocol):
    """Some models in one runtime, ready for one setting at a time."""

    def prepare(self, batches: Sequence[Arrays]) -> dict[str, Described | str]:
        """Make all models ready for the first of some batches; the reason where the runtime cannot run one."""
        ...

    def warm_up(self, model: str, warmup_ms: float, min_sample_ms: float) -> int:
        """As of a Measurable."""
        ...

    def sample(self, model: str, calls: int) -> tuple[int, int | None]:
        """As of a Measurable; the part is the encoder."""
        ...

    def repeat(self, model: str, seconds: float) -> int:
        """Call for so long; gives how often."""
        ...

    def outputs(self, model: str) -> np.ndarray:
        """For all batches, one below the other; hidden states, many numbers for each text, for the first batch."""
        ...


class Here:
    """A Station in this process. Until `close`, or the next setting, there is no autograd and no garbage collection."""

    def __init__(self, runtime: str, models: Mapping[str, PreTrainedModel]) -> None:
        self._runtime, self._name, self._models = registry.get("runtime", runtime), runtime, models
        self._batches: list[dict[str, Tensor]] = []
        self._ready: dict[str, Prepared] = {}
        self._variants: dict[str, Variant] = {}
        self._stack = ExitStack()

    def prepare(self, batches: Sequence[Arrays]) -> dict[str, Described | str]:
        """As Station says."""
        self.close()
        device = next(iter(self._models.values())).device
        self._batches = [{name: torch.from_numpy(ids).to(device) for name, ids in batch.items()} for batch in batches]
        found = {name: self._prepared(model) for name, model in self._models.items()}
        self._ready = {name: one for name, one in found.items() if isinstance(one, Prepared)}
        self._variants = {
            name: variant_of(name, prepared, self._batches[0], self._stack) for name, prepared in self._ready.items()
        }
        self._stack.enter_context(undisturbed())
        return {
            name: one if isinstance(one, str) else Described(one.dtype, one.attention, one.predicts)
            for name, one in found.items()
        }

    def warm_up(self, model: str, warmup_ms: float, min_sample_ms: float) -> int:
        """As Station says."""
        return self._variants[model].warm_up(warmup_ms, min_sample_ms, time.perf_counter_ns)

    def sample(self, model: str, calls: int) -> tuple[int, int | None]:
        """As Station says."""
        return self._variants[model].sample(calls, time.perf_counter_ns)

    def repeat(self, model: str, seconds: float) -> int:
        """As Station says."""
        return repeated(self._variants[model].call, seconds)

    def outputs(self, model: str) -> np.ndarray:
        """As Station says."""
        run = self._ready[model].run
        first = run(self._batches[0])
        more = self._batches[1:] if first.dim() == 2 else []
        return torch.cat([output.float().cpu() for output in (first, *map(run, more))]).numpy()

    def close(self) -> None:
        """Leave the models as they were."""
        self._stack.close()

    def _prepared(self, model: PreTrainedModel) -> Prepared | str:
        try:
            return self._runtime.prepare(model, self._batches[0])
        except RuntimeUnavailableError as error:
            return error.reason


class Elsewhere:
    """A Station in a process of its own, with the environment and the cores of this one, on so many threads."""

    def __init__(self, runtime: str) -> None:
        self._remote = Remote(f"The runtime '{runtime}'", "sparsebert.measurement.station:opened")
        self._runtime = runtime

    def open(self, models: Mapping[str, Parcel], threads: int) -> None:
        """Before all else: load the models."""
        self._remote.make(self._runtime, models, threads)

    def prepare(self, batches: Sequence[Arrays]) -> dict[str, Described | str]:
        """As Station says."""
        return self._remote.call("prepare", batches)

    def warm_up(self, model: str, warmup_ms: float, min_sample_ms: float) -> int:
        """As Station says."""
        return self._remote.call("warm_up", model, warmup_ms, min_sample_ms)

    def sample(self, model: str, calls: int) -> tuple[int, int | None]:
        """As Station says."""
        return self._remote.call("sample", model, calls)

    def repeat(self, model: str, seconds: float) -> int:
        """As Station says."""
        return self._remote.call("repeat", model, seconds)

    def outputs(self, model: str) -> np.ndarray:
        """As Station says."""
        return self._remote.call("outputs", model)

    def close(self) -> None:
        """End the process."""
        self._remote.stop()


@contextmanager
def stations(
    models: Mapping[str, PreTrainedModel], runtimes: Sequence[str], threads: int
) -> Iterator[dict[str, Station]]:
    """A Station for each runtime: here where there is one only, else each in a process that ends with the block.

    Models reach the processes exactly as they are here, whatever they were loaded from (see `models/parcel.py`), by
    files that are deleted once all are loaded. Raises ProcessError as Remote does.
    """
    with ExitStack() as stack:
        if len(runtimes) == 1:
            yield {runtimes[0]: stack.enter_context(closing(Here(runtimes[0], models)))}
            return
        # They import what they need side by side, while the models are written.
        processes = {name: stack.enter_context(closing(Elsewhere(name))) for name in runtimes}
        with tempfile.TemporaryDirectory(prefix="sparsebert-") as home:
            parcels = {
                name: parcel(model, Path(home) / str(place)) for place, (name, model) in enumerate(models.items())
            }
            for process in processes.values():
                process.open(parcels, threads)
        yield dict(processes)


def variant_of(name: str, prepared: Prepared, inputs: ModelInputs, stack: ExitStack) -> Variant:
    """What is timed of a model; where its layers are called one by one, also the time in them, until `stack` closes."""
    call = _call(prepared, inputs)
    paths = [layer.path for layer in layout_of(prepared.module).layers] if prepared.module else []
    if prepared.module is None or not paths:
        return Variant(name, call)
    watch = stack.enter_context(encoder_timer(prepared.module, paths))
    return Variant(name, call, lambda: watch.total_ns)


def _call(prepared: Prepared, inputs: ModelInputs) -> Callable[[], None]:
    device = inputs["input_ids"].device

    def call() -> None:
        prepared.run(inputs)
        finish(device)

    return call


def opened(runtime: str, parcels: Mapping[str, Parcel], threads: int) -> Here:
    """The factory in the other process: the models with their tensors, in this runtime."""
    torch.set_num_threads(threads)
    return Here(runtime, {name: unpacked(sent) for name, sent in parcels.items()})

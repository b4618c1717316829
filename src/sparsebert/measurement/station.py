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
from sparsebert.timing import NS_PER_MS, Variant, encoder_timer, finish, undisturbed


@dataclass(frozen=True)
class Described:
    """What is said of a Prepared model elsewhere."""

    dtype: str
    attention: str
    predicts: bool


class Station(Protocol):
    """Some models in one runtime, ready for one setting at a time."""

    def prepare(self, batches: Mapping[str, Sequence[Arrays]], timed: int = 1) -> dict[str, Described | str]:
        """Make each model ready for its batches, of which a call runs the first `timed`, one after the other.

        For a model that the runtime cannot run so, the reason.
        """
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

    def batches_ms(self, model: str) -> np.ndarray:
        """Milliseconds of every single batch since the model was warmed up."""
        ...


class Here:
    """A Station in this process. Until `close`, or the next setting, there is no autograd and no garbage collection."""

    def __init__(self, runtime: str, models: Mapping[str, PreTrainedModel]) -> None:
        self._runtime, self._name, self._models = registry.get("runtime", runtime), runtime, models
        self._batches: dict[str, list[dict[str, Tensor]]] = {}
        self._ready: dict[str, Prepared] = {}
        self._calls: dict[str, Forward] = {}
        self._variants: dict[str, Variant] = {}
        self._stack = ExitStack()

    def prepare(self, batches: Mapping[str, Sequence[Arrays]], timed: int = 1) -> dict[str, Described | str]:
        """As Station says."""
        self.close()
        device = next(iter(self._models.values())).device
        self._batches = {
            model: [{name: torch.from_numpy(ids).to(device) for name, ids in batch.items()} for batch in own]
            for model, own in batches.items()
        }
        found = {name: self._prepared(name, timed) for name in self._models}
        self._ready = {name: one for name, one in found.items() if isinstance(one, Prepared)}
        self._calls = {name: Forward(one, self._batches[name][:timed]) for name, one in self._ready.items()}
        self._variants = {
            name: variant_of(name, prepared, self._calls[name], self._stack) for name, prepared in self._ready.items()
        }
        self._stack.enter_context(undisturbed())
        return {
            name: one if isinstance(one, str) else Described(one.dtype, one.attention, one.predicts)
            for name, one in found.items()
        }

    def warm_up(self, model: str, warmup_ms: float, min_sample_ms: float) -> int:
        """As Station says."""
        calls = self._variants[model].warm_up(warmup_ms, min_sample_ms, time.perf_counter_ns)
        self._calls[model].times_ns.clear()
        return calls

    def sample(self, model: str, calls: int) -> tuple[int, int | None]:
        """As Station says."""
        return self._variants[model].sample(calls, time.perf_counter_ns)

    def repeat(self, model: str, seconds: float) -> int:
        """As Station says."""
        return repeated(self._variants[model].call, seconds)

    def outputs(self, model: str) -> np.ndarray:
        """As Station says."""
        run, batches = self._ready[model].run, self._batches[model]
        first = run(batches[0])
        more = batches[1:] if first.dim() == 2 else []
        return torch.cat([output.float().cpu() for output in (first, *map(run, more))]).numpy()

    def batches_ms(self, model: str) -> np.ndarray:
        """As Station says."""
        return np.array(self._calls[model].times_ns) / NS_PER_MS

    def close(self) -> None:
        """Leave the models as they were."""
        self._stack.close()

    def _prepared(self, name: str, timed: int) -> Prepared | str:
        # A runtime may choose its kernels by what it is given first: texts of middling length stand for all.
        example = self._batches[name][timed // 2 if timed > 1 else 0]
        try:
            found = self._runtime.prepare(self._models[name], example)
        except RuntimeUnavailableError as error:
            return error.reason
        return found if found.any_shape or timed == 1 else "it runs inputs of one shape, and texts are of many"


class Elsewhere:
    """A Station in a process of its own, with the environment and the cores of this one, on so many threads."""

    def __init__(self, runtime: str) -> None:
        self._remote = Remote(f"The runtime '{runtime}'", "sparsebert.measurement.station:opened")
        self._runtime = runtime

    def open(self, models: Mapping[str, Parcel], threads: int) -> None:
        """Before all else: load the models."""
        self._remote.make(self._runtime, models, threads)

    def prepare(self, batches: Mapping[str, Sequence[Arrays]], timed: int = 1) -> dict[str, Described | str]:
        """As Station says."""
        return self._remote.call("prepare", batches, timed)

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

    def batches_ms(self, model: str) -> np.ndarray:
        """As Station says."""
        return self._remote.call("batches_ms", model)

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


class Forward:
    """A call of a model: its batches, one after the other, each until the device is done; their times are kept."""

    def __init__(self, prepared: Prepared, batches: Sequence[ModelInputs]) -> None:
        self._run, self._batches = prepared.run, batches
        self._device = batches[0]["input_ids"].device
        self.times_ns: list[int] = []

    def __call__(self) -> None:
        """Run them."""
        for batch in self._batches:
            start = time.perf_counter_ns()
            self._run(batch)
            finish(self._device)
            self.times_ns.append(time.perf_counter_ns() - start)


def variant_of(name: str, prepared: Prepared, call: Callable[[], object], stack: ExitStack) -> Variant:
    """What is timed of a model; where its layers are called one by one, also the time in them, until `stack` closes."""
    paths = [layer.path for layer in layout_of(prepared.module).layers] if prepared.module else []
    if prepared.module is None or not paths:
        return Variant(name, call)
    watch = stack.enter_context(encoder_timer(prepared.module, paths))
    return Variant(name, call, lambda: watch.total_ns)


def opened(runtime: str, parcels: Mapping[str, Parcel], threads: int) -> Here:
    """The factory in the other process: the models with their tensors, in this runtime."""
    torch.set_num_threads(threads)
    return Here(runtime, {name: unpacked(sent) for name, sent in parcels.items()})

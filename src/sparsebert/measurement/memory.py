"""Peak memory of one model in one runtime, measured in a process of its own."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, PreTrainedModel

from sparsebert import registry
from sparsebert.counts import example_inputs
from sparsebert.models.heads import AUTO, saved_head
from sparsebert.models.source import disk_bytes
from sparsebert.processes import Remote, status_mb
from sparsebert.runtimes.program import Arrays, RuntimeUnavailableError, open_program
from sparsebert.runtimes.pytorch import EAGER, Eager, Sparse
from sparsebert.runtimes.runtime import Runtime
from sparsebert.runtimes.whole import WholeProgram

# Writing 5 here sets the peak resident memory back to the present one (Linux, proc(5)).
RESET = Path("/proc/self/clear_refs")


def peak_memory(folder: Path, batch: int, length: int, runtime: str = "eager", threads: int = 1) -> float | None:
    """Peak megabytes (2**20 bytes) that a saved model and one forward pass in a runtime add to a fresh process.

    A runtime of torch loads the model there, in its own dtype, and makes it ready, which is counted. The program of one
    that runs files is made elsewhere, as for a deployment, and only opened there. The interpreter and the libraries,
    about the same for every model, are not counted, nor are parts of the weight file that are never read, such as the
    rows of unused tokens. None where the runtime cannot run the model. Linux only. Raises UserError if the folder has
    no weights, and as Remote does.
    """
    disk_bytes(folder)
    with _process() as own:
        if not isinstance(registry.get("runtime", runtime), WholeProgram):
            return own.call("of_model", folder, batch, length, runtime, threads)
        with tempfile.TemporaryDirectory(prefix="sparsebert-") as home:
            inputs = own.call("write", folder, batch, length, runtime, Path(home))
            if inputs is None:
                return None
            with _process() as other:
                return other.call("of_program", Path(home), inputs, runtime, threads)


@contextmanager
def _process() -> Iterator[Remote]:
    remote = Remote("The measurement of memory", "sparsebert.measurement.memory:Memory")
    try:
        remote.make()
        yield remote
    finally:
        remote.stop()


class Memory:
    """What happens in the other process, which is new for each model."""

    def of_model(self, folder: Path, batch: int, length: int, name: str, threads: int) -> float | None:
        """Megabytes of loading the model, making it ready and running it; None where the runtime cannot run it."""
        torch.set_num_threads(threads)

        def load_and_run(runtime: Runtime, batch: int, length: int) -> None:
            model = _load(folder, runtime)
            inputs = example_inputs([model], batch, length)
            with torch.inference_mode():
                runtime.prepare(model, inputs).run(inputs)

        # The first time imports most of the libraries, about 130 MB that no model is to blame for.
        load_and_run(EAGER, 1, 1)
        try:
            return _added(lambda: load_and_run(registry.get("runtime", name), batch, length))
        except RuntimeUnavailableError:
            # Whether sparse kernels gain is measured anew, and may come out otherwise.
            return None

    def write(self, folder: Path, batch: int, length: int, name: str, home: Path) -> dict[str, np.ndarray] | None:
        """Make the model's program, and give what it can be called with; None where that cannot be."""
        runtime = registry.get("runtime", name)
        model = _load(folder, runtime)
        inputs = example_inputs([model], batch, length)
        try:
            runtime.write(model, inputs, [inputs], _file(home, runtime))
        except RuntimeUnavailableError:
            return None
        return {name: ids.numpy() for name, ids in inputs.items()}

    def of_program(self, home: Path, inputs: Arrays, name: str, threads: int) -> float:
        """Megabytes of opening a program and running it."""
        runtime = registry.get("runtime", name)

        def open_and_run(given: Arrays) -> None:
            open_program(runtime.engine, _file(home, runtime), threads, runtime.precision).run(given)

        open_and_run({name: ids[:, :1] for name, ids in inputs.items()})
        return _added(lambda: open_and_run(inputs))


def _file(home: Path, runtime: WholeProgram) -> Path:
    return home / Path(runtime.file).name


def _load(folder: Path, runtime: Runtime) -> PreTrainedModel:
    """In the runtime's own dtype: a copy in another would be counted beside the model."""
    auto = AUTO[saved_head(AutoConfig.from_pretrained(folder, trust_remote_code=False))]
    dtype = runtime.dtype if isinstance(runtime, Eager | Sparse) else torch.float32
    return auto.from_pretrained(folder, dtype=dtype, trust_remote_code=False).eval()


def _added(work: Callable[[], None]) -> float:
    """Megabytes that the peak lies above what was there before."""
    gc.collect()
    before_mb = status_mb("VmRSS")
    RESET.write_text("5", encoding="ascii")
    work()
    return round(status_mb("VmHWM") - before_mb, 1)

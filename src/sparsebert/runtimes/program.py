"""A whole model as one program in a file, opened by ONNX Runtime or OpenVINO without torch: arrays in, an array out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sparsebert.errors import UserError

Arrays = Mapping[str, np.ndarray]
ProgramPrecision = Literal["fp32", "bf16", "int8"]
Engine = Literal["onnx", "openvino"]
RUN_PACKAGES: Mapping[Engine, str] = {"onnx": "onnxruntime", "openvino": "openvino"}
"""What each engine needs to run a program that is there."""
CALL_TOKENS, OPENVINO_CALL_TOKENS = 16, 64
# OpenVINO computes in bf16 of its own accord where the processor has units for it; int8 programs keep the rest exact.
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


@dataclass(frozen=True)
class Program:
    """A program that is loaded. `run` takes integer arrays [texts, tokens] by the names in `inputs`.

    `few_shapes`: the first call with each shape takes many times as long as the next ones. `call_tokens`: a call takes
    about as long as so many tokens more (`benchmarks/waiting.py`).
    """

    inputs: tuple[str, ...]
    run: Callable[[Arrays], np.ndarray]
    few_shapes: bool = False
    call_tokens: int = CALL_TOKENS


class RuntimeUnavailableError(UserError):
    """This runtime cannot run this model here; `reason` says why."""

    def __init__(self, runtime: str, reason: str) -> None:
        super().__init__(f"The runtime '{runtime}' is not available: {reason}")
        self.reason = reason


def not_installed(packages: Sequence[str], extra: str) -> str | None:
    """Which of `packages` are missing, and the line that adds them; none where all are there."""
    missing = [name for name in packages if find_spec(name) is None]
    return f"not installed: {', '.join(missing)} (pip install 'sparsebert[{extra}]')" if missing else None


@contextmanager
def no_telemetry() -> Iterator[None]:
    """Inside, neither OpenVINO, imported or converting, nor NNCF tells its maker of what it does.

    Each message is sent by a copy of this process, for which work waits up to three seconds where the network does not
    answer. They send none where the environment says that it is that of continuous integration.
    """
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before


def openvino_package() -> Any:
    """The package, whose import sends a message else."""
    with no_telemetry():
        import openvino
    return openvino


@cache
def openvino_core() -> Any:
    """The one `openvino.Core` of this process, with its plugin for the CPU.

    The plugin gives the thread that loads it another stack for signals, and takes it away again when the core goes.
    Where several cores go in any other order than the reverse of their coming, the thread is left with a stack that is
    not there, and the next signal ends the process.
    """
    core = openvino_package().Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")
    return core


def no_bf16() -> str | None:
    """Why OpenVINO computes nothing in bfloat16 here; none where it does."""
    units = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return None if "BF16" in units else "this processor has no units for bfloat16"


def cannot_run(engine: Engine, precision: ProgramPrecision) -> str | None:
    """Why no program of this engine and precision runs here; none where it may."""
    missing = not_installed([RUN_PACKAGES[engine]], engine)
    return no_bf16() if missing is None and precision == "bf16" else missing


def open_program(engine: Engine, file: Path, threads: int, precision: ProgramPrecision) -> Program:
    """Load the program in `file` to run on the CPU with so many threads, which do not spin while they wait."""
    return _open_onnx(file, threads) if engine == "onnx" else _open_openvino(file, threads, precision)


def _open_onnx(file: Path, threads: int) -> Program:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = tuple(value.name for value in session.get_inputs())

    def run(given: Arrays) -> np.ndarray:
        [output] = session.run(None, {name: np.ascontiguousarray(given[name]) for name in names})
        return np.asarray(output)

    return Program(names, run)


def _open_openvino(file: Path, threads: int, precision: ProgramPrecision) -> Program:
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        # As threads of other runtimes are, which may run on any core.
        "ENABLE_CPU_PINNING": False,
    }
    compiled = openvino_core().compile_model(file, "CPU", hints)
    names = tuple(value.any_name for value in compiled.inputs)
    request = compiled.create_infer_request()

    def run(given: Arrays) -> np.ndarray:
        request.infer({name: np.ascontiguousarray(given[name]) for name in names}, share_inputs=True)
        # The request writes its next output to the same place.
        return np.array(request.get_output_tensor(0).data)

    return Program(names, run, few_shapes=True, call_tokens=OPENVINO_CALL_TOKENS)

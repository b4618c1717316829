"""Will it help? What sparsity a model has, what this machine can do with it, and how fast that is, measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from sparsebert.counts import example_inputs
from sparsebert.energy import counters
from sparsebert.environment import cpu_fields, cpu_flags
from sparsebert.kernels import native, operators
from sparsebert.kernels.packed import WIDTH
from sparsebert.measurement.doctor_advice import about_trees, advice
from sparsebert.measurement.doctor_timing import matrix_trials, model_trials
from sparsebert.measurement.doctor_trial import Trial
from sparsebert.measurement.doctor_zeros import BLOCK, Zeros, zeros_of
from sparsebert.runtimes.runtime import obstacles, ready
from sparsebert.timing import torch_threads

BLOCKS = f"matrices with zero blocks ({BLOCK} or {BLOCK // 2} x {WIDTH})"
TREES = "fast feedforward layers"


@dataclass(frozen=True)
class Kernel:
    """A way to run a sparse product, whether it can run here, and why not."""

    name: str
    runs: bool
    why: str


@dataclass(frozen=True)
class Diagnosis:
    """What was found. `advice` is the verdict in plain words, the most important line first.

    `energy` says by what the energy of the processor and of the GPU can be measured here, or why it cannot; `runtimes`
    what keeps each from running here, none where nothing does.
    """

    cpu: str
    flags: tuple[str, ...]
    threads: int
    gpu: str | None
    kernels: tuple[Kernel, ...]
    zeros: Zeros
    trials: tuple[Trial, ...]
    advice: tuple[str, ...]
    energy: dict[str, str]
    runtimes: dict[str, str | None]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, each trial with what it is in words."""
        trials = [asdict(trial) | {"what": trial.what, "over": trial.over} for trial in self.trials]
        return asdict(self) | {"trials": trials}


def diagnose(
    model: PreTrainedModel,
    batch: int,
    length: int,
    rounds: int,
    threads: int | None,
    say: Callable[[str], None] = lambda text: None,
) -> Diagnosis:
    """Look at the model and the machine, and time one of its matrices and the whole model at several sparsities.

    Times are of the CPU, and of the model in float32. Raises UserError for a model with no weights in its encoder,
    and for an input that it cannot take.
    """
    cpu, model = cpu_fields(), ready(model, torch.float32)
    zeros = zeros_of(model)
    # What does not fit is said now, not after the matrices were timed.
    example_inputs([model], batch, length)
    with torch_threads(threads) as used:
        say("timing a matrix, dense and sparse")
        trials = matrix_trials(model, batch * length, rounds)
        say("timing the model with half of its heads and neurons, and as it is")
        trials += model_trials(model, batch, length, rounds)
    return Diagnosis(
        cpu=cpu.get("model name", "unknown"),
        flags=cpu_flags(cpu),
        threads=used,
        gpu=torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        kernels=kernels(),
        zeros=zeros,
        trials=tuple(trials),
        advice=(*advice(zeros, trials), *about_trees(model)),
        energy=_energy(),
        runtimes=obstacles(),
    )


def _energy() -> dict[str, str]:
    devices = {"processor": torch.device("cpu")}
    if torch.cuda.is_available():
        devices["GPU"] = torch.device("cuda", 0)
    return {name: counters(device).words for name, device in devices.items()}


def kernels() -> tuple[Kernel, ...]:
    """What could run a sparse product here."""
    gpu = torch.cuda.is_available()
    ampere = gpu and torch.cuda.get_device_capability(0) >= (8, 0)
    return (
        Kernel("smaller dense matrices (heads, neurons, layers cut out)", True, "plain PyTorch, any machine"),
        Kernel("compressed sparse rows (torch.sparse)", True, "any machine; rarely faster below 95 %"),
        Kernel(
            "2:4 sparse tensor cores",
            ampere,
            "this GPU has them" if ampere else "needs an NVIDIA GPU of Ampere or later",
        ),
        *_triton(gpu),
        *_native(),
    )


def _triton(gpu: bool) -> tuple[Kernel, ...]:
    if not gpu:
        why = "needs a GPU"
    else:
        why = "Triton kernel" if operators.has_triton() else "Triton is not installed; plain PyTorch runs instead"
    return tuple(Kernel(f"{name}, on a GPU", gpu and operators.has_triton(), why) for name in (BLOCKS, TREES))


def _native() -> tuple[Kernel, ...]:
    chosen = native.isa()
    if chosen is None:
        why = "not built: no C++ compiler at installation, or not x86-64; plain PyTorch runs instead"
    else:
        why = f"native kernel with {chosen} instructions"
    return tuple(Kernel(name, chosen is not None, why) for name in (f"{BLOCKS} or single zeros", TREES))

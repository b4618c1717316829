"""Will it help? What sparsity a model has, what this machine can do with it, and how fast that is, measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from sparsebert.clock import Variant, interleave, quartiles, ratios, torch_threads
from sparsebert.counts import example_inputs
from sparsebert.environment import cpu_fields, cpu_flags
from sparsebert.errors import UserError
from sparsebert.kernels import native
from sparsebert.models.layout import encoder_linear_names, layout_of
from sparsebert.surgeon import live_units, shrink

BLOCK = 32
TRIALS = (0.5, 0.8, 0.9, 0.95)
FASTER, SLOWER = 1.05, 0.95


@dataclass(frozen=True)
class Kernel:
    """A way to run a sparse product, whether it can run here, and why not."""

    name: str
    runs: bool
    why: str


@dataclass(frozen=True)
class Zeros:
    """Fractions of the encoder's linear weights that are zero: in all, in whole 32 x 32 blocks, in whole units.

    two_of_four: every four neighbours in a row hold at most two weights that are not zero. packed_bytes: an estimate,
    of the pruned matrices as bitmask and values, as a part of their dense fp32 bytes.
    """

    elements: float
    blocks: float
    units: float
    two_of_four: bool
    packed_bytes: float


@dataclass(frozen=True)
class Trial:
    """One measured micro-benchmark: how many times faster than dense, median and quartiles of paired rounds."""

    what: str
    sparsity: float
    speedup: float
    q25: float
    q75: float


@dataclass(frozen=True)
class Diagnosis:
    """What was found. `advice` is the verdict in plain words, the most important line first."""

    cpu: str
    flags: tuple[str, ...]
    threads: int
    gpu: str | None
    kernels: tuple[Kernel, ...]
    zeros: Zeros
    trials: tuple[Trial, ...]
    advice: tuple[str, ...]


def diagnose(
    model: PreTrainedModel,
    batch: int,
    length: int,
    rounds: int,
    threads: int | None,
    say: Callable[[str], None] = lambda text: None,
) -> Diagnosis:
    """Look at the model and the machine, and time a feedforward layer and the whole encoder at several sparsities."""
    cpu = cpu_fields()
    zeros = zeros_of(model)
    with torch_threads(threads) as used:
        say("timing a feedforward layer, dense and sparse")
        trials = unstructured_trials(model, batch * length, rounds)
        say("timing the encoder with half of its heads and neurons, and as it is")
        trials += structured_trials(model, batch, length, rounds)
    return Diagnosis(
        cpu=cpu.get("model name", "unknown"),
        flags=cpu_flags(cpu),
        threads=used,
        gpu=torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        kernels=kernels(),
        zeros=zeros,
        trials=tuple(trials),
        advice=advice(zeros, trials),
    )


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
        _native(),
    )


def _native() -> Kernel:
    what, chosen = "fast feedforward layers (native kernel)", native.isa()
    if chosen is None:
        return Kernel(
            what, False, "not built: no C++ compiler at installation, or not x86-64; plain PyTorch runs instead"
        )
    return Kernel(what, True, f"with {chosen} instructions")


@torch.no_grad()
def zeros_of(model: PreTrainedModel) -> Zeros:
    """Count zeros in the encoder's linear weights."""
    weights = [model.get_parameter(name).detach().flatten(0, -2) for name in encoder_linear_names(model)]
    if not weights:
        raise UserError("The model has no linear layers left in its encoder")
    total = sum(weight.numel() for weight in weights)
    zero = sum(int((weight == 0).sum()) for weight in weights)
    elements = zero / total
    return Zeros(
        elements=elements,
        blocks=sum(_zero_blocks(weight) for weight in weights) / total,
        units=_dead(model) / total,
        two_of_four=zero > 0 and all(_is_two_of_four(weight) for weight in weights),
        packed_bytes=min(1.0, 1 / 32 + 1 - elements),
    )


def unstructured_trials(model: PreTrainedModel, tokens: int, rounds: int) -> list[Trial]:
    """A feedforward matrix of this model with random zeros in compressed rows, against the dense one [tokens, in]."""
    name = next(group.output.tensor for group in layout_of(model).groups if group.kind == "neuron")
    dense = model.get_parameter(name).detach().float()
    inputs = torch.randn(dense.shape[1], tokens, generator=torch.Generator().manual_seed(0))
    variants = [Variant("dense", lambda: dense @ inputs)]
    for sparsity in TRIALS:
        keep = torch.rand(dense.shape, generator=torch.Generator().manual_seed(1)) >= sparsity
        rows = _compressed(dense * keep)
        variants.append(Variant(str(sparsity), lambda rows=rows: rows @ inputs))
    samples = interleave(variants, rounds)
    what = "feedforward matrix, single weights, compressed sparse rows"
    return [_trial(what, sparsity, samples[str(sparsity)], samples["dense"]) for sparsity in TRIALS]


def structured_trials(model: PreTrainedModel, batch: int, length: int, rounds: int) -> list[Trial]:
    """The whole model with half of its heads and neurons cut out, and with its dead units cut out, against itself."""
    inputs = example_inputs([model], batch, length)
    halved = {group.name: _first_half(group.units) for group in layout_of(model).groups}
    candidates = {"whole model, half of the heads and neurons cut out": halved}
    live = live_units(model)
    if not all(bool(mask.all()) for mask in live.values()):
        candidates["whole model, its own dead heads and neurons cut out"] = live
    variants = [Variant("dense", _forward(model, inputs))]
    variants += [Variant(what, _forward(shrink(model, keep).eval(), inputs)) for what, keep in candidates.items()]
    samples = interleave(variants, rounds)
    return [_trial(what, 1 - _kept(keep), samples[what], samples["dense"]) for what, keep in candidates.items()]


def advice(zeros: Zeros, trials: Sequence[Trial]) -> tuple[str, ...]:
    """The verdict in words, from what was measured."""
    single = [trial for trial in trials if "single weights" in trial.what]
    faster = [trial for trial in single if trial.q25 > FASTER]
    whole = next(trial for trial in trials if "half of the heads" in trial.what)
    lines = [
        f"Half of the heads and neurons cut out makes the whole model {whole.speedup:.2f}x faster here: "
        + ("this pays." if whole.q25 > FASTER else "this does not pay at this batch and length.")
    ]
    if faster:
        lines.append(
            f"Single zero weights pay from {faster[0].sparsity:.0%} on ({faster[0].speedup:.2f}x, compressed rows)."
        )
    else:
        best = max(single, key=lambda trial: trial.speedup)
        lines.append(
            f"Single zero weights are not faster here in any runtime found: {best.speedup:.2f}x at {best.sparsity:.0%}."
        )
    if zeros.elements > 0:
        lines.append(
            f"This model's encoder is {zeros.elements:.1%} zero ({zeros.units:.1%} in whole heads and neurons, "
            f"which can be cut out; {zeros.blocks:.1%} in whole {BLOCK} x {BLOCK} blocks). "
            f"Packed, its matrices take about {zeros.packed_bytes:.2f} of their dense fp32 bytes."
        )
    else:
        lines.append("This model's encoder has no zero weights: `sparsebert compress` can make it smaller.")
    return tuple(lines)


def _trial(what: str, sparsity: float, own: list[float], base: list[float]) -> Trial:
    q25, median, q75 = quartiles(ratios(own, base))
    return Trial(what, sparsity, median, q25, q75)


def _compressed(weight: torch.Tensor) -> torch.Tensor:
    # The layout is a beta feature and says so in a warning at every process's first use.
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return weight.to_sparse_csr()


def _forward(model: nn.Module, inputs: dict[str, torch.Tensor]) -> Callable[[], object]:
    return lambda: model(**inputs)


def _first_half(units: int) -> torch.Tensor:
    return torch.arange(units) < max(1, units // 2)


def _kept(keep: dict[str, torch.Tensor]) -> float:
    return sum(float(mask.float().mean()) for mask in keep.values()) / len(keep)


def _zero_blocks(weight: torch.Tensor) -> int:
    rows, columns = (size // BLOCK * BLOCK for size in weight.shape)
    tiles = weight[:rows, :columns].reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    return int((tiles == 0).all(dim=3).all(dim=1).sum()) * BLOCK * BLOCK


def _is_two_of_four(weight: torch.Tensor) -> bool:
    return weight.shape[1] % 4 == 0 and bool(((weight.reshape(-1, 4) != 0).sum(dim=1) <= 2).all())


def _dead(model: PreTrainedModel) -> int:
    live, dead = live_units(model), 0
    for group in layout_of(model).groups:
        gone = int((~live[group.name]).sum())
        for part in (*group.inputs, group.output):
            tensor = model.get_parameter(part.tensor)
            if tensor.dim() > 1:
                dead += gone * part.width * tensor.shape[1 - part.dim]
    return dead

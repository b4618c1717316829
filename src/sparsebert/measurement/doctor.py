"""Will it help? What sparsity a model has, what this machine can do with it, and how fast that is, measured."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from sparsebert.counts import example_inputs
from sparsebert.environment import cpu_fields, cpu_flags
from sparsebert.errors import UserError
from sparsebert.fast_feedforward.convert import trees_of
from sparsebert.kernels import dispatch, native, operators
from sparsebert.kernels.packed import SINGLE, WIDTH
from sparsebert.models.accelerate import accelerate, sparse_layers
from sparsebert.models.layout import encoder_linear_names, layout_of
from sparsebert.models.surgeon import live_units, shrink
from sparsebert.runtimes.runtime import ready
from sparsebert.timing import Variant, interleave, quartiles, ratios, torch_threads

BLOCK = 32
TRIALS = (0.5, 0.8, 0.9, 0.95)
# The largest matrices of BERT-base, as an output projection has them: what sparsity gains grows with the matrix.
TYPICAL = (768, 3072)
ROWS = "one matrix, single weights, compressed sparse rows"
VALUES = "one matrix, single weights, native kernel"
BLOCKS = f"one matrix, {BLOCK} x {WIDTH} blocks, native kernel"
WHOLE = "whole model, "
OWN = f"{WHOLE}its zeros left out by the sparse kernels"
OWN_BF16 = f"{OWN}, in bfloat16"
IN_BF16 = f"{WHOLE}dense, in bfloat16"
TREES = "fast feedforward layers"
FLOAT, BF16 = "dense float32", "dense bfloat16"
IN_WORDS = {FLOAT: "", BF16: " in bfloat16"}
FASTER = 1.05


@dataclass(frozen=True)
class Kernel:
    """A way to run a sparse product, whether it can run here, and why not."""

    name: str
    runs: bool
    why: str


@dataclass(frozen=True)
class Zeros:
    """Fractions of the encoder's linear weights: zeros, those of them in whole 32 x 32 blocks, and all of dead units.

    A unit is dead as soon as nothing reads it, so that not all of its weights need be zero. two_of_four: every four
    neighbours in a row hold at most two weights that are not zero. packed_bytes: an estimate, of the pruned matrices as
    bitmask and values, as a part of their dense fp32 bytes.
    """

    elements: float
    blocks: float
    units: float
    two_of_four: bool
    packed_bytes: float


@dataclass(frozen=True)
class Trial:
    """One measured micro-benchmark: how many times faster than `over`, median and quartiles of paired rounds.

    `shape` is that of the one matrix; None for the whole model.
    """

    what: str
    sparsity: float
    speedup: float
    q25: float
    q75: float
    over: str = FLOAT
    shape: tuple[int, int] | None = None


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
        trials += structured_trials(model, batch, length, rounds)
    return Diagnosis(
        cpu=cpu.get("model name", "unknown"),
        flags=cpu_flags(cpu),
        threads=used,
        gpu=torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        kernels=kernels(),
        zeros=zeros,
        trials=tuple(trials),
        advice=(*advice(zeros, trials), *_about_trees(model)),
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
        *_triton(gpu),
        *_native(),
    )


def _triton(gpu: bool) -> tuple[Kernel, ...]:
    if not gpu:
        why = "needs a GPU"
    else:
        why = "Triton kernel" if operators.has_triton() else "Triton is not installed; plain PyTorch runs instead"
    names = (f"matrices with zero blocks ({BLOCK} or {BLOCK // 2} x {WIDTH}), on a GPU", f"{TREES}, on a GPU")
    return tuple(Kernel(name, gpu and operators.has_triton(), why) for name in names)


def _native() -> tuple[Kernel, ...]:
    names = (
        f"matrices with zero blocks ({BLOCK} or {BLOCK // 2} x {WIDTH}) or single zeros",
        TREES,
    )
    chosen = native.isa()
    if chosen is None:
        why = "not built: no C++ compiler at installation, or not x86-64; plain PyTorch runs instead"
    else:
        why = f"native kernel with {chosen} instructions"
    return tuple(Kernel(name, chosen is not None, why) for name in names)


@torch.no_grad()
def zeros_of(model: PreTrainedModel) -> Zeros:
    """Count zeros in the encoder's linear weights."""
    weights = [model.get_parameter(name).detach().flatten(0, -2) for name in encoder_linear_names(model)]
    total = sum(weight.numel() for weight in weights)
    if total == 0:
        raise UserError("The model has no weights left in its encoder")
    zero = sum(int((weight == 0).sum()) for weight in weights)
    elements = zero / total
    return Zeros(
        elements=elements,
        blocks=sum(_zero_blocks(weight) for weight in weights) / total,
        units=_dead(model) / total,
        two_of_four=zero > 0 and all(_is_two_of_four(weight) for weight in weights),
        packed_bytes=min(1.0, 1 / 32 + 1 - elements),
    )


def matrix_trials(model: PreTrainedModel, tokens: int, rounds: int) -> list[Trial]:
    """Random values in the shape of one of its matrices, with random zeros, in every form that can run here.

    Against the dense product of the same type, in bfloat16 too where the kernels multiply it; not of the model's own
    values, of which many may be zero already. An output projection, of feedforward if there is one; no trials for a
    model of fast feedforward layers alone. Where that matrix is smaller than TYPICAL, one of that shape too: what is
    no gain in a small matrix may be one in a larger.
    """
    outputs = {group.kind: group.output.tensor for group in reversed(layout_of(model).groups)}
    if not outputs:
        return []
    rows, columns = model.get_parameter(outputs.get("neuron") or outputs["head"]).shape
    shapes = [(rows, columns)] + ([TYPICAL] if rows * columns < math.prod(TYPICAL) else [])
    return [trial for shape in shapes for trial in _trials_of(shape, tokens, rounds)]


def _trials_of(shape: tuple[int, int], tokens: int, rounds: int) -> list[Trial]:
    generator = torch.Generator().manual_seed(0)
    dense, x = torch.randn(shape, generator=generator), torch.randn(tokens, shape[1], generator=generator)
    runs, wanted = {}, []
    for over, dtype in _types().items():
        w, given = dense.to(dtype), x.to(dtype)
        runs[over] = lambda w=w, given=given: F.linear(given, w)
        for what, part in itertools.product(_forms(dtype), TRIALS):
            runs[f"{what} {part} {over}"] = _product(what, w, part, given)
            wanted.append((what, part, over))
    samples = interleave([Variant(name, run) for name, run in runs.items()], rounds)
    return [
        _trial(what, part, samples[f"{what} {part} {over}"], samples[over], over, shape) for what, part, over in wanted
    ]


def _types() -> dict[str, torch.dtype]:
    """In which a model may run here, by what is the dense one in it."""
    return {FLOAT: torch.float32} | ({BF16: torch.bfloat16} if native.has_tiles() else {})


def _forms(dtype: torch.dtype) -> tuple[str, ...]:
    if dtype == torch.bfloat16:
        return BLOCKS, VALUES
    return (ROWS,) if native.isa() is None else (BLOCKS, VALUES, ROWS)


def _product(what: str, dense: torch.Tensor, sparsity: float, x: torch.Tensor) -> Callable[[], object]:
    """The product of x with the matrix that is left of `dense`, in one of the forms."""
    generator = torch.Generator().manual_seed(1)
    if what == BLOCKS:
        rows, across = (-(-size // BLOCK) for size in dense.shape)
        kept = torch.rand(rows, across, generator=generator) >= sparsity
        keep = kept.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[: dense.shape[0], : dense.shape[1]]
    else:
        keep = torch.rand(dense.shape, generator=generator) >= sparsity
    if what == ROWS:
        rows, turned = _compressed(dense * keep), x.t().contiguous()
        return lambda: rows @ turned
    packed = dispatch.pack(dense * keep, BLOCK if what == BLOCKS else SINGLE)
    return lambda: dispatch.sparse_linear(x, packed, None, "none")


def structured_trials(model: PreTrainedModel, batch: int, length: int, rounds: int) -> list[Trial]:
    """The whole model with half of its heads and neurons cut out, against itself; no trials if it has neither.

    Where it has zeros, also with its dead units cut out, and with its zeros left out by the sparse kernels. In bfloat16
    too where the kernels multiply it: dense, and then with its zeros left out over that.
    """
    inputs = example_inputs([model], batch, length)
    groups = layout_of(model).groups
    if not groups:
        return []
    units = " and ".join(f"{kind}s" for kind in dict.fromkeys(group.kind for group in groups))
    candidates = {f"{WHOLE}half of the {units} cut out": {g.name: _first_half(g.units) for g in groups}}
    live = live_units(model)
    if not all(bool(mask.all()) for mask in live.values()):
        candidates[f"{WHOLE}its own dead heads and neurons cut out"] = live
    models = {what: shrink(model, keep).eval() for what, keep in candidates.items()}
    sparsities = {what: 1 - _kept(keep) for what, keep in candidates.items()}
    if native.has_tiles():
        models[IN_BF16], sparsities[IN_BF16] = ready(model, torch.bfloat16), 0.0
    for what, dense in ((OWN, model), (OWN_BF16, models.get(IN_BF16))):
        fast = None if dense is None else accelerate(dense, batch * length)
        if fast is not None and sparse_layers(fast):
            models[what], sparsities[what] = fast.eval(), zeros_of(model).elements
    variants = [Variant(what, _forward(made, inputs)) for what, made in ({FLOAT: model} | models).items()]
    samples = interleave(variants, rounds)
    found = []
    for what, part in sparsities.items():
        base, over = (IN_BF16, BF16) if what == OWN_BF16 else (FLOAT, FLOAT)
        found.append(_trial(what, part, samples[what], samples[base], over))
    return found


def advice(zeros: Zeros, trials: Sequence[Trial]) -> tuple[str, ...]:
    """The verdict in words, from what was measured."""
    halved = [trial for trial in trials if trial.what.startswith(f"{WHOLE}half")]
    lines = [
        f"{trial.what.removeprefix(WHOLE).capitalize()} makes the whole model {trial.speedup:.2f}x faster here: "
        + ("this pays." if trial.q25 > FASTER else "this does not pay at this batch and length.")
        for trial in halved
    ]
    lines += [
        f"In bfloat16 the dense model is {trial.speedup:.2f}x as fast here: this is what zeros have to beat."
        for trial in trials
        if trial.what == IN_BF16 and trial.q25 > FASTER
    ]
    for over, also in IN_WORDS.items():
        for what, forms in (("Single zero weights", (VALUES, ROWS)), (f"Zero blocks of {BLOCK} x {WIDTH}", (BLOCKS,))):
            found = [trial for trial in trials if trial.what in forms and trial.over == over]
            for shape in dict.fromkeys(trial.shape for trial in found):
                lines.append(_when_it_pays(what + also, _where(shape), [t for t in found if t.shape == shape]))
        own = [trial for trial in trials if trial.what in (OWN, OWN_BF16) and trial.over == over]
        lines += [f"With the sparse kernels this model is {t.speedup:.2f}x as fast as it is dense{also}." for t in own]
    if zeros.elements > 0:
        lines.append(
            f"This model's encoder is {zeros.elements:.1%} zero, {zeros.blocks:.1%} in whole {BLOCK} x {BLOCK} blocks, "
            f"and dead heads and neurons, which can be cut out, hold {zeros.units:.1%} of its weights. "
            f"Packed, its matrices take about {zeros.packed_bytes:.1%} of their dense fp32 bytes."
        )
    else:
        hint = ": `sparsebert compress` can make it smaller." if halved else "."
        lines.append(f"This model's encoder has no zero weights{hint}")
    return tuple(lines)


def _about_trees(model: PreTrainedModel) -> tuple[str, ...]:
    trees = trees_of(model).values()
    if not trees:
        return ()
    used, there = sum(t.trees * (t.depth + 1) for t in trees), sum(t.trees * t.nodes for t in trees)
    return (
        f"{len(trees)} of {len(layout_of(model).layers)} layers have {TREES}: a token uses {used:,} of their {there:,} "
        "neurons already, and no kernel leaves out zeros in them.",
    )


def _where(shape: tuple[int, int] | None) -> str:
    if shape is None:
        return ""
    size = f"{shape[0]} x {shape[1]}"
    return f" in BERT-base's matrices of {size}" if shape == TYPICAL else f" in this model's matrices of {size}"


def _when_it_pays(what: str, where: str, trials: Sequence[Trial]) -> str:
    faster = sorted((trial for trial in trials if trial.q25 > FASTER), key=lambda trial: trial.sparsity)
    best = max(trials, key=lambda trial: trial.speedup)
    at_best = f"{best.speedup:.2f}x at {best.sparsity:.0%}"
    if not faster:
        return f"{what}{where} are not faster here in any runtime found: {at_best}."
    first = max((t for t in faster if t.sparsity == faster[0].sparsity), key=lambda trial: trial.speedup)
    gain = f"{first.speedup:.2f}x the {first.over} product; {at_best}"
    return f"{what}{where} pay from {first.sparsity:.0%} on ({gain})."


def _trial(
    what: str,
    sparsity: float,
    own: list[float],
    base: list[float],
    over: str,
    shape: tuple[int, int] | None = None,
) -> Trial:
    q25, median, q75 = quartiles(ratios(own, base))
    return Trial(what, sparsity, median, q25, q75, over, shape)


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

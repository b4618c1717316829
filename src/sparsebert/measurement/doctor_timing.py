"""What `doctor` times: one of a model's matrices, and the whole model, dense and in every sparse form."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from sparsebert.counts import example_inputs
from sparsebert.kernels import dispatch, native
from sparsebert.kernels.packed import SINGLE
from sparsebert.measurement.doctor_trial import Form, Precision, Trial, TrialCandidate, time_candidates
from sparsebert.measurement.doctor_zeros import BLOCK, zeros_of
from sparsebert.models.accelerate import accelerate, sparse_layers
from sparsebert.models.layout import layout_of
from sparsebert.models.surgeon import live_units, shrink
from sparsebert.runtimes.runtime import ready

SPARSITIES = (0.5, 0.8, 0.9, 0.95)
# The largest matrices of BERT-base, as an output projection has them: what sparsity gains grows with the matrix.
TYPICAL = (768, 3072)


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
    return [trial for shape in shapes for trial in time_candidates(_products(shape, tokens), rounds, shape)]


def _products(shape: tuple[int, int], tokens: int) -> list[TrialCandidate]:
    generator = torch.Generator().manual_seed(0)
    dense, x = torch.randn(shape, generator=generator), torch.randn(tokens, shape[1], generator=generator)
    found = []
    for precision in _precisions():
        w, given = dense.to(precision.dtype), x.to(precision.dtype)
        found.append(TrialCandidate(Form.DENSE, precision, 0.0, lambda w=w, given=given: F.linear(given, w), None))
        found += [
            TrialCandidate(form, precision, part, _product(form, w, part, given), precision)
            for form, part in itertools.product(_matrix_forms(precision), SPARSITIES)
        ]
    return found


def _precisions() -> tuple[Precision, ...]:
    """In which a model may run here."""
    return tuple(Precision) if native.has_tiles() else (Precision.FLOAT32,)


def _matrix_forms(precision: Precision) -> tuple[Form, ...]:
    if precision is Precision.BFLOAT16:
        return Form.BLOCKS, Form.VALUES
    return (Form.ROWS,) if native.isa() is None else (Form.BLOCKS, Form.VALUES, Form.ROWS)


def _product(form: Form, dense: torch.Tensor, sparsity: float, x: torch.Tensor) -> Callable[[], object]:
    """The product of x with the matrix that is left of `dense`, in one of the forms."""
    generator = torch.Generator().manual_seed(1)
    if form is Form.BLOCKS:
        rows, across = (-(-size // BLOCK) for size in dense.shape)
        kept = torch.rand(rows, across, generator=generator) >= sparsity
        keep = kept.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[: dense.shape[0], : dense.shape[1]]
    else:
        keep = torch.rand(dense.shape, generator=generator) >= sparsity
    if form is Form.ROWS:
        rows, turned = _compressed(dense * keep), x.t().contiguous()
        return lambda: rows @ turned
    packed = dispatch.pack_weight(dense * keep, BLOCK if form is Form.BLOCKS else SINGLE)
    return lambda: dispatch.sparse_linear(x, packed, None, "none")


def model_trials(model: PreTrainedModel, batch: int, length: int, rounds: int) -> list[Trial]:
    """The whole model with half of its heads and neurons cut out, against itself; no trials if it has neither.

    Where it has zeros, also with its dead units cut out, and with its zeros left out by the sparse kernels. In bfloat16
    too where the kernels multiply it: dense, and then with its zeros left out over that.
    """
    inputs = example_inputs([model], batch, length)
    if not layout_of(model).groups:
        return []
    dense = {precision: ready(model, precision.dtype) for precision in _precisions()}
    found = _cut(model, inputs)
    for precision, one in dense.items():
        baseline = None if precision is Precision.FLOAT32 else Precision.FLOAT32
        found.append(TrialCandidate(Form.DENSE, precision, 0.0, _forward(one, inputs), baseline))
    for precision, one in dense.items():
        fast = accelerate(one, batch * length)
        if sparse_layers(fast):
            run = _forward(fast.eval(), inputs)
            found.append(TrialCandidate(Form.KERNELS, precision, zeros_of(model).elements, run, precision))
    return time_candidates(found, rounds)


def _cut(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> list[TrialCandidate]:
    """The model without half of its units, and, where it has dead ones, without these."""
    groups = layout_of(model).groups
    units = tuple(dict.fromkeys(group.kind for group in groups))
    keeps = [(Form.HALVED, units, {group.name: _first_half(group.units) for group in groups})]
    live = live_units(model)
    if not all(bool(mask.all()) for mask in live.values()):
        keeps.append((Form.LIVE, (), live))
    found = []
    for form, kinds, keep in keeps:
        run = _forward(shrink(model, keep).eval(), inputs)
        found.append(TrialCandidate(form, Precision.FLOAT32, 1 - _kept(keep), run, Precision.FLOAT32, kinds))
    return found


def _compressed(weight: torch.Tensor) -> torch.Tensor:
    # The layout is a beta feature and says so in a warning at every process's first use.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return weight.to_sparse_csr()


def _forward(model: nn.Module, inputs: dict[str, torch.Tensor]) -> Callable[[], object]:
    return lambda: model(**inputs)


def _first_half(units: int) -> torch.Tensor:
    return torch.arange(units) < max(1, units // 2)


def _kept(keep: dict[str, torch.Tensor]) -> float:
    return sum(float(mask.float().mean()) for mask in keep.values()) / len(keep)

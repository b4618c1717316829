"""The verdict of `doctor` in plain words, from what was counted and measured."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from sparsebert.fast_feedforward.convert import trees_of
from sparsebert.kernels.packed import WIDTH
from sparsebert.measurement.doctor_timing import TYPICAL
from sparsebert.measurement.doctor_trial import Form, Precision, Trial, units_text
from sparsebert.measurement.doctor_zeros import BLOCK, Zeros
from sparsebert.models.layout import layout_of

# What less than this is no gain: noise between two runs of one model reaches a few percent.
FASTER = 1.05
MATRICES = (
    ("Single zero weights", (Form.VALUES, Form.ROWS)),
    (f"Zero blocks of {BLOCK} x {WIDTH}", (Form.BLOCKS,)),
)


def advice(zeros: Zeros, trials: Sequence[Trial]) -> tuple[str, ...]:
    """The verdict in words, the most important line first."""
    halved = [trial for trial in trials if trial.form is Form.HALVED]
    lines = [
        f"Half of the {units_text(trial.units)} cut out makes the whole model {trial.speedup:.2f}x faster here: "
        + ("this pays." if trial.q25 > FASTER else "this does not pay at this batch and length.")
        for trial in halved
    ]
    lines += [
        f"In bfloat16 the dense model is {trial.speedup:.2f}x as fast here: this is what zeros have to beat."
        for trial in trials
        if trial.form is Form.DENSE and trial.q25 > FASTER
    ]
    for precision in Precision:
        lines += _about_sparse_products(precision, [trial for trial in trials if trial.baseline is precision])
    return (*lines, _about_zeros(zeros, bool(halved)))


def about_trees(model: PreTrainedModel) -> tuple[str, ...]:
    """How sparse its fast feedforward layers are by themselves; nothing for a model without any."""
    trees = trees_of(model).values()
    if not trees:
        return ()
    used, there = sum(t.trees * (t.depth + 1) for t in trees), sum(t.trees * t.nodes for t in trees)
    return (
        f"{len(trees)} of {len(layout_of(model).layers)} layers have fast feedforward layers: a token uses {used:,} of "
        f"their {there:,} neurons already, and no kernel leaves out zeros in them.",
    )


def _about_sparse_products(precision: Precision, trials: Sequence[Trial]) -> list[str]:
    """Of one matrix, and then of this model, against what is dense in this precision."""
    also = "" if precision is Precision.FLOAT32 else f" in {precision}"
    lines = []
    for what, forms in MATRICES:
        found = [trial for trial in trials if trial.form in forms]
        for shape in dict.fromkeys(trial.shape for trial in found):
            lines.append(_when_it_pays(what + also, _where(shape), [t for t in found if t.shape == shape]))
    return lines + [
        f"With the sparse kernels this model is {trial.speedup:.2f}x as fast as it is dense{also}."
        for trial in trials
        if trial.form is Form.KERNELS
    ]


def _about_zeros(zeros: Zeros, can_shrink: bool) -> str:
    if zeros.elements == 0:
        hint = ": `sparsebert compress` can make it smaller." if can_shrink else "."
        return f"This model's encoder has no zero weights{hint}"
    return (
        f"This model's encoder is {zeros.elements:.1%} zero, {zeros.blocks:.1%} in whole {BLOCK} x {BLOCK} blocks, "
        f"and dead heads and neurons, which can be cut out, hold {zeros.units:.1%} of its weights. "
        f"Packed, its matrices take about {zeros.packed_bytes:.1%} of their dense fp32 bytes."
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

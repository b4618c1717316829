"""The encoder's weights of a checkpoint as arrays, and what several studies do with them. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparsebert.errors import UserError
from sparsebert.reports.charts import HeatPanel, Number, NumberForm
from sparsebert.reports.training import matrix_words


@dataclass(frozen=True, order=True)
class MatrixName:
    """A matrix of the encoder: its layer in the dense model, from 0, and its place in the layer."""

    layer: int
    part: str

    @property
    def kind(self) -> str:
        """Which matrix of a layer, in words: `attention query`."""
        last, block = matrix_words(self.part)
        return f"{block} {last}".strip()

    @property
    def label(self) -> str:
        """In words, layers counted from 1 as people do."""
        return f"layer {self.layer + 1} {self.kind}"


@dataclass(frozen=True)
class EncoderWeights:
    """The linear weights of a checkpoint's encoder, in layer order.

    `kept_heads` holds for each layer of the dense model the numbers of the heads that are left, and `heads` how many
    there were in each; None where nobody wrote down which these are. `shrunk`: units or layers were cut away.
    """

    name: str
    family: str
    matrices: Mapping[MatrixName, np.ndarray]
    heads: int
    kept_heads: tuple[tuple[int, ...], ...] | None = None
    shrunk: bool = False


@dataclass(frozen=True)
class HeadBlock:
    """The weights of one kind by the head that they belong to, [heads, weights of a head].

    `matrix` is the tensor that holds them, and in some families others too.
    """

    layer: int
    kind: str
    values: np.ndarray
    matrix: str


def same_shapes(weights: Sequence[EncoderWeights]) -> bool:
    """Whether all have the same matrices of the same shapes."""
    return all(_differing(weights[0], other) is None for other in weights[1:])


def check_comparable(weights: Sequence[EncoderWeights]) -> None:
    """Raises UserError where a matrix of one checkpoint has none of the same shape in another."""
    first = weights[0]
    for other in weights[1:]:
        found = _differing(first, other)
        if found is not None:
            raise UserError(
                "Only checkpoints of one architecture are compared weight by weight",
                got=f"{found}: {_shape(first, found)} in {first.name}, {_shape(other, found)} in {other.name}",
            )


def _differing(first: EncoderWeights, other: EncoderWeights) -> str | None:
    if first.family != other.family:
        return "family"
    for name in {**first.matrices, **other.matrices}:
        shapes = [one.matrices[name].shape if name in one.matrices else None for one in (first, other)]
        if shapes[0] != shapes[1]:
            return name.label
    return None


def _shape(one: EncoderWeights, what: str) -> str:
    if what == "family":
        return one.family
    found = next((values.shape for name, values in one.matrices.items() if name.label == what), None)
    return "none" if found is None else "x".join(map(str, found))


def check_sparsities(weights: Sequence[EncoderWeights], sparsities: Sequence[float]) -> None:
    """Raises UserError where more of a matrix is zero than one of them: which zeros were the smallest is not known."""
    for one in weights:
        for name, values in one.matrices.items():
            check_zeros(one.name, name.label, values, sparsities)


def check_zeros(model: str, matrix: str, values: np.ndarray, sparsities: Sequence[float]) -> None:
    """As `check_sparsities`, of one matrix."""
    part = float(np.mean(values == 0)) if values.size else 0.0
    # Two weights of rounding: a model pruned to this sparsity may be looked at there.
    if any(part > wanted + 2 / values.size for wanted in sparsities):
        raise UserError(
            f"More of a matrix of {model} is zero than a sparsity that was asked for",
            got=f"{part:.1%} of {matrix}",
            fix="ask for a higher --sparsity, or leave it out to look at the zeros",
        )


def zeros(values: np.ndarray) -> np.ndarray:
    """True where a weight is exactly zero."""
    return values == 0


def smallest(values: np.ndarray, sparsity: float) -> np.ndarray:
    """True at the round(sparsity * n) smallest magnitudes, of equal ones at those that come first.

    What magnitude pruning of one matrix removes ("matrix-local", Gordon et al. 2020, arXiv:2002.08307, section 2.1).
    """
    sizes = np.abs(values).ravel()
    count = round(sparsity * sizes.size)
    if count == 0:
        return np.zeros(values.shape, dtype=bool)
    # Selection, not sorting: a large matrix takes a tenth of the time.
    threshold = np.partition(sizes, count - 1)[count - 1]
    found = sizes < threshold
    found[np.flatnonzero(sizes == threshold)[: count - int(found.sum())]] = True
    return found.reshape(values.shape)


def layer_panel(
    title: str,
    values: Mapping[MatrixName, Number],
    form: NumberForm,
    low: float | None = None,
    high: float | None = None,
) -> HeatPanel:
    """One number for each matrix: a row a layer, a column a matrix of a layer."""
    layers = sorted({name.layer for name in values})
    parts = list(dict.fromkeys(name.part for name in values))
    return HeatPanel(
        title,
        tuple(str(layer + 1) for layer in layers),
        tuple(MatrixName(0, part).kind for part in parts),
        tuple(tuple(values.get(MatrixName(layer, part)) for part in parts) for layer in layers),
        form,
        row_label="Layer",
        low=low,
        high=high,
    )

"""The end of an attention or feedforward block, with its residual and norm, as one call of a sparse kernel."""

from __future__ import annotations

import torch
from torch import nn

from sparsebert.kernels import dispatch
from sparsebert.kernels.native_linear import ResidualNorm, SparseLayer
from sparsebert.kernels.packed import SINGLE
from sparsebert.kernels.tiled import TiledMatrix
from sparsebert.models.sparse_linear import SparseLinear


class Postponed(nn.Module):
    """Stands where `dense` was and gives on what it gets: a SparseOutput computes both matrices at once."""

    def __init__(self, dense: SparseLinear) -> None:
        super().__init__()
        self.dense = dense

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The same tensor."""
        return hidden_states


class SparseOutput(nn.Module):
    """LayerNorm(dense(hidden) + residual), and `first` before `dense` where there is one.

    In evaluation without gradients on the CPU all of it is one kernel for blocks, whose values between the steps stay
    in a core's cache; for single values on tiles `dense` and all after it is one. Hooks on the parts do not run
    then. Else the parts run one after another. `first` is where its matrix belongs: that is not among the parameters
    here.
    """

    dense: nn.Linear
    LayerNorm: nn.LayerNorm

    def __init__(self, end: nn.Module, first: Postponed | None = None) -> None:
        super().__init__()
        for name in ("dense", "LayerNorm", "dropout"):
            self.add_module(name, end.get_submodule(name))
        # In a tuple, else it would be a second parameter of the same value.
        self._first = (first,) if first is not None else ()
        self.train(end.training)

    @property
    def matrices(self) -> tuple[nn.Module, ...]:
        """In the order in which they are applied."""
        return (*(first.dense for first in self._first), self.dense)

    def forward(self, hidden_states: torch.Tensor, input_tensor: torch.Tensor) -> torch.Tensor:
        """[..., inputs] and the residual [..., outputs] to [..., outputs]."""
        layers = self._layers(hidden_states)
        if layers is not None and input_tensor.dtype == hidden_states.dtype:
            flat = hidden_states.reshape(-1, layers[0].weight.inputs)
            return dispatch.sparse_chain(flat, layers, self._end(input_tensor), self._origins()).view_as(input_tensor)
        *before, last = self.matrices
        for matrix in before:
            hidden_states = matrix(hidden_states)
        if isinstance(last, SparseLinear) and self._is_half(last, hidden_states, input_tensor):
            weight, origin = last.packed(), (self._origins() or [None])[-1]
            if isinstance(weight, TiledMatrix):
                parts = (hidden_states.reshape(-1, weight.inputs), weight, last.bias, last.activation, origin)
                return dispatch.tiled_linear(*parts, self._end(input_tensor)).view_as(input_tensor)
        return self.LayerNorm(self.get_submodule("dropout")(last(hidden_states)) + input_tensor)

    def _end(self, residual: torch.Tensor) -> ResidualNorm:
        norm = self.LayerNorm
        return ResidualNorm(residual.reshape(-1, self.dense.out_features), norm.weight, norm.bias, norm.eps)

    def _origins(self) -> list[dispatch.Origin]:
        """Of all matrices, for a compiled graph only."""
        if not torch.compiler.is_compiling():
            return []
        return [matrix.origin for matrix in self.matrices if isinstance(matrix, SparseLinear)]

    def _is_half(self, last: SparseLinear, x: torch.Tensor, residual: torch.Tensor) -> bool:
        if self.training or torch.is_grad_enabled() or not x.is_cpu:
            return False
        return x.dtype == residual.dtype == torch.bfloat16 and last.runs(x)

    def _layers(self, x: torch.Tensor) -> list[SparseLayer] | None:
        """What the kernel reads, None where it does not run."""
        if self.training or torch.is_grad_enabled() or not x.is_cpu:
            return None
        layers = []
        for matrix in self.matrices:
            if not isinstance(matrix, SparseLinear) or matrix.height == SINGLE:
                return None
            if not matrix.runs(x):
                return None
            layers.append(SparseLayer(matrix.packed(), matrix.bias, matrix.activation))
        return layers

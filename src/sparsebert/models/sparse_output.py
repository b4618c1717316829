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

    In evaluation without gradients, in float32 on the CPU, all of it is one kernel whose values between the steps stay
    in a core's cache, and hooks on the parts do not run; else the parts run one after another. `first` is where its
    matrix belongs: that is not among the parameters here.
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
        if layers is None:
            for matrix in self.matrices:
                hidden_states = matrix(hidden_states)
            return self.LayerNorm(self.get_submodule("dropout")(hidden_states) + input_tensor)
        norm = self.LayerNorm
        residual = input_tensor.reshape(-1, self.dense.out_features)
        end = ResidualNorm(residual, norm.weight, norm.bias, norm.eps)
        compiled = torch.compiler.is_compiling()
        origins = [matrix.origin for matrix in self.matrices if compiled and isinstance(matrix, SparseLinear)]
        y = dispatch.sparse_chain(hidden_states.reshape(-1, layers[0].weight.inputs), layers, end, origins)
        return y.view_as(input_tensor)

    def _layers(self, x: torch.Tensor) -> list[SparseLayer] | None:
        """What the kernel reads, None where it does not run."""
        if self.training or torch.is_grad_enabled() or not x.is_cpu or x.dtype != torch.float32:
            return None
        layers = []
        for matrix in self.matrices:
            if not isinstance(matrix, SparseLinear) or matrix.height == SINGLE:
                return None
            if not dispatch.linear_runs(x, matrix.weight, matrix.height):
                return None
            weight = matrix.packed()
            if isinstance(weight, TiledMatrix):
                return None
            layers.append(SparseLayer(weight, matrix.bias, matrix.activation))
        return layers

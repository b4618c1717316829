"""A linear layer that leaves out the zeros of its weight."""

from __future__ import annotations

import torch
from torch import nn

from sparsebert.kernels import dispatch, reference
from sparsebert.kernels.packed import SINGLE, PackedMatrix, WeightVersions, stamp_of
from sparsebert.kernels.tiled import TiledMatrix

# A model that is unpickled must find the attention that `accelerate` gave it.
from sparsebert.models import attention as _attention  # noqa: F401


class SparseLinear(nn.Linear):
    """`linear` with the same parameters, computed in evaluation by a kernel that reads only what is not zero.

    The dense weight stays what is saved, loaded and trained; beside it lies a packed copy, in blocks of `height`
    outputs x 32 inputs (32 or 16), or as single values (0). It is packed anew when the weight has changed (see
    `repack`); a compiled graph cannot do that and runs dense until a call without it. An infinite or undefined input
    whose whole column is zero leaves no trace. In training,
    with gradients, on a CPU in half precision (but for single values of bfloat16, and for blocks of it with AVX-512
    BF16 or AMX) or without the native library, and on a GPU for single values or without Triton, the plain product
    runs, as `backend` says.
    activation: `gelu`, `relu` or `none`, applied to the output. gain: how many times faster than dense it was measured
    to be, if it was.
    """

    def __init__(self, linear: nn.Linear, height: int, activation: str = "none", gain: float | None = None) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.height, self.activation, self.gain = height, activation, gain
        for name in ("values", "starts", "columns", "masks", "begins"):
            self.register_buffer(name, None, persistent=False)
        self._tiled = False
        self._versions = WeightVersions()
        self.train(linear.training)
        self.packed()

    @property
    def pattern(self) -> str:
        """What is stored: `32x32`, `16x32` or `single`."""
        return "single" if self.height == SINGLE else f"{self.height}x32"

    @property
    def backend(self) -> str:
        """What computes the evaluation forward, see `linear_backend`."""
        return dispatch.linear_backend(self.weight, self.height)

    def packed(self) -> PackedMatrix | TiledMatrix:
        """The weight as the kernel reads it."""
        if not torch.compiler.is_compiling():
            self._pack_if_changed()
        assert self.values is not None and self.starts is not None and self.columns is not None
        parts = (self.out_features, self.in_features, self.height, self.values, self.starts, self.columns)
        return TiledMatrix(*parts, self.masks, self.begins) if self._tiled else PackedMatrix(*parts)

    @property
    def origin(self) -> dispatch.Origin:
        """What `packed` is of."""
        return dispatch.Origin(self.weight, self._stamp)

    def runs(self, input: torch.Tensor) -> bool:
        """Whether there is a kernel for this input."""
        return dispatch.linear_runs(input, self.weight, self.height, self._tiled)

    def repack(self) -> None:
        """After writes that torch does not count: by `weight.data.mul_(mask)`, or to weights made in inference mode."""
        self._versions.forget()
        self._pack_if_changed()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[..., in_features] to [..., out_features], under autocast in its type."""
        kind = input.device.type
        if torch.is_autocast_enabled(kind):
            return self._outputs(input.to(self.weight.dtype)).to(torch.get_autocast_dtype(kind))
        return self._outputs(input)

    def _outputs(self, input: torch.Tensor) -> torch.Tensor:
        if self.training or torch.is_grad_enabled() or not self.runs(input):
            return reference.linear(input, self.weight, self.bias, self.activation)
        flat = input.reshape(-1, self.in_features)
        origin = self.origin if torch.compiler.is_compiling() else None
        y = dispatch.sparse_linear(flat, self.packed(), self.bias, self.activation, origin)
        return y.view(*input.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """For print(model)."""
        gain = "" if self.gain is None else f", {self.gain:.1f}x"
        return f"{super().extra_repr()}, {self.pattern}, {self.activation}{gain}"

    def _pack_if_changed(self) -> None:
        weight = self.weight
        if dispatch.linear_is_tiled(weight, self.height) == self._tiled and self._versions.same(weight):
            return
        made = dispatch.pack_weight(weight, self.height)
        self._tiled = isinstance(made, TiledMatrix)
        self.masks, self.begins = (made.masks, made.begins) if isinstance(made, TiledMatrix) else (None, None)
        self.values, self.starts, self.columns = made.values, made.starts, made.columns
        self._versions.remember(weight)
        self._stamp = stamp_of(weight)

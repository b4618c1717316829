"""Calls of the kernels with plain tensors, and the same as custom operators for torch.compile."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import register_flop_formula

from sparsebert.kernels import native, native_attention, native_fff, native_linear, native_tile_linear, reference
from sparsebert.kernels.native_linear import ResidualNorm, SparseLayer
from sparsebert.kernels.packed import PackedMatrix, stamp_of, unpack_matrix
from sparsebert.kernels.tiled import TiledMatrix, untile_matrix


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed: it comes with torch's builds for GPUs."""
    return importlib.util.find_spec("triton") is not None


def native_isa(w_in: torch.Tensor) -> str | None:
    """The instruction set that the tree kernel would use with these weights."""
    return native.isa() if w_in.device.type == "cpu" and w_in.dtype in native_fff.WEIGHTS else None


def run_fff(
    x: torch.Tensor, w_in: torch.Tensor, b_in: torch.Tensor, w_out: torch.Tensor, activation: str
) -> torch.Tensor:
    """By Triton, the native library, or in plain torch; see `reference.fff`."""
    if w_in.is_cuda and has_triton():
        from sparsebert.kernels import triton_fff

        given = (x.to(w_in.dtype).contiguous(), w_in.contiguous(), b_in.contiguous(), w_out.contiguous())
        return triton_fff.fff(*given, activation).to(x.dtype)
    chosen = native_isa(w_in)
    if chosen is None:
        return reference.fff(x, w_in, b_in, w_out, activation)
    plain = (x.float().contiguous(), w_in.contiguous(), b_in.float().contiguous(), w_out.contiguous())
    return native_fff.fff(*plain, activation, None, chosen)[0].to(x.dtype)


fff_operator = torch.library.custom_op("sparsebert::fff", run_fff, mutates_args=())
fff_operator.register_fake(lambda x, *_: torch.empty_like(x, memory_format=torch.contiguous_format))


@register_flop_formula(torch.ops.sparsebert.fff)
def _fff_flops(x_shape: torch.Size, w_in_shape: torch.Size, *_: object, **__: object) -> int:
    """Of the neurons on the path only: a product with an input row and one with an output row a level."""
    (tokens, hidden), (trees, nodes, _hidden) = x_shape, w_in_shape
    return 4 * tokens * trees * reference.levels_of(nodes) * hidden


def run_linear(
    x: torch.Tensor,
    values: torch.Tensor,
    starts: torch.Tensor,
    columns: torch.Tensor,
    bias: torch.Tensor | None,
    outputs: int,
    height: int,
    activation: str,
    weight: torch.Tensor | None = None,
    stamp: torch.Tensor | None = None,
) -> torch.Tensor:
    """activation(x W^T + bias) by Triton, the native library, or in plain torch; dense if `weight` has changed."""
    if weight is not None and not _is_as_packed(weight, stamp):
        return reference.linear(x, weight, bias, activation)
    packed = PackedMatrix(outputs, x.shape[1], height, values, starts, columns)
    if x.is_cuda:
        from sparsebert.kernels import triton_linear

        return triton_linear.linear(x.contiguous(), packed, bias, activation)
    isa_name = native.isa()
    if isa_name is None:
        return reference.linear(x, unpack_matrix(packed).to(x.dtype), bias, activation)
    shift = None if bias is None else bias.float()
    return native_linear.linear(x.contiguous(), packed, shift, activation, isa_name)


def _is_as_packed(weight: torch.Tensor, stamp: torch.Tensor | None) -> bool:
    if stamp is not None and torch.equal(stamp_of(weight), stamp):
        return True
    warnings.warn(
        "A compiled graph runs dense: weights changed. Call the model once without torch.compile", stacklevel=2
    )
    return False


linear_operator = torch.library.custom_op("sparsebert::sparse_linear", run_linear, mutates_args=())
linear_operator.register_fake(lambda x, values, starts, columns, bias, outputs, *_: x.new_empty(len(x), outputs))


def run_tiled(
    x: torch.Tensor,
    values: torch.Tensor,
    starts: torch.Tensor,
    columns: torch.Tensor,
    masks: torch.Tensor | None,
    begins: torch.Tensor | None,
    bias: torch.Tensor | None,
    outputs: int,
    height: int,
    activation: str,
    weight: torch.Tensor | None = None,
    stamp: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    gamma: torch.Tensor | None = None,
    beta: torch.Tensor | None = None,
    epsilon: float = 0.0,
) -> torch.Tensor:
    """activation(x W^T + bias) by the native library, or in plain torch; dense if `weight` has changed.

    With a residual, then its layer norm with the residual.
    """
    norm = None
    if residual is not None and gamma is not None and beta is not None:
        norm = ResidualNorm(residual.contiguous(), gamma, beta, epsilon)
    packed = TiledMatrix(outputs, x.shape[1], height, values, starts, columns, masks, begins)
    if weight is not None and not _is_as_packed(weight, stamp):
        return _add_norm(reference.linear(x, weight, bias, activation), norm)
    isa_name = native.isa()
    if isa_name is None or not native.has_tiles():
        return _add_norm(reference.linear(x, untile_matrix(packed), bias, activation), norm)
    shift = None if bias is None else bias.float()
    return native_tile_linear.linear(x.contiguous(), packed, shift, activation, isa_name, _float_norm(norm))


def _float_norm(norm: ResidualNorm | None) -> ResidualNorm | None:
    return None if norm is None else replace(norm, gamma=norm.gamma.float(), beta=norm.beta.float())


def _add_norm(y: torch.Tensor, norm: ResidualNorm | None) -> torch.Tensor:
    if norm is None:
        return y
    return F.layer_norm(y + norm.residual, norm.gamma.shape, norm.gamma, norm.beta, norm.epsilon)


tiled_operator = torch.library.custom_op("sparsebert::tiled_linear", run_tiled, mutates_args=())
tiled_operator.register_fake(
    lambda x, values, starts, columns, masks, begins, bias, outputs, *_: x.new_empty(len(x), outputs)
)


@register_flop_formula([torch.ops.sparsebert.sparse_linear, torch.ops.sparsebert.tiled_linear])
def _linear_flops(x_shape: torch.Size, values_shape: torch.Size, *_: object, **__: object) -> int:
    """Of the values that are stored only."""
    return 2 * x_shape[0] * values_shape.numel()


def run_chain(
    x: torch.Tensor,
    tensors: list[torch.Tensor],
    numbers: list[int],
    residual: torch.Tensor,
    gamma: torch.Tensor,
    beta: torch.Tensor,
    epsilon: float,
) -> torch.Tensor:
    """Layers of blocks, the residual and the norm, by the native library or in plain torch."""
    layers, names, wide, half = [], list(native.ACTIVATIONS), x.shape[1], x.dtype == torch.bfloat16
    for i in range(len(tensors) // 4):
        values, starts, columns, bias = tensors[4 * i : 4 * i + 4]
        outputs, height, activation = numbers[3 * i : 3 * i + 3]
        weight = (TiledMatrix if half else PackedMatrix)(outputs, wide, height, values, starts, columns)
        layers.append(SparseLayer(weight, bias, names[activation]))
        wide = outputs
    isa_name, norm = native.isa(), ResidualNorm(residual.contiguous(), gamma, beta, epsilon)
    if isa_name is not None and (not half or isa_name in native.TILED):
        if half:
            layers = [replace(layer, bias=layer.bias.float()) for layer in layers]
            return native_tile_linear.chain(x.contiguous(), layers, _float_norm(norm), isa_name)
        return native_linear.chain(x.contiguous(), layers, norm, isa_name)
    for layer in layers:
        unpack = untile_matrix if half else unpack_matrix
        x = reference.linear(x, unpack(layer.weight), layer.bias, layer.activation)
    return _add_norm(x, norm)


def _chain_in_a_graph(
    x: torch.Tensor,
    tensors: list[torch.Tensor],
    numbers: list[int],
    residual: torch.Tensor,
    gamma: torch.Tensor,
    beta: torch.Tensor,
    epsilon: float,
    weights: list[torch.Tensor],
    stamps: list[torch.Tensor],
) -> torch.Tensor:
    if all(_is_as_packed(weight, stamp) for weight, stamp in zip(weights, stamps, strict=True)):
        return run_chain(x, tensors, numbers, residual, gamma, beta, epsilon)
    names = list(native.ACTIVATIONS)
    for i, weight in enumerate(weights):
        x = reference.linear(x, weight, tensors[4 * i + 3], names[numbers[3 * i + 2]])
    return _add_norm(x, ResidualNorm(residual, gamma, beta, epsilon))


chain_operator = torch.library.custom_op("sparsebert::sparse_chain", _chain_in_a_graph, mutates_args=())
chain_operator.register_fake(lambda x, tensors, numbers, residual, *_: torch.empty_like(residual))


@register_flop_formula(torch.ops.sparsebert.sparse_chain)
def _chain_flops(x_shape: torch.Size, tensor_shapes: Sequence[torch.Size], *_: object, **__: object) -> int:
    """Of the values that are stored only."""
    return 2 * x_shape[0] * sum(shape.numel() for shape in tensor_shapes[::4])


def run_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """See `native_attention.attention`."""
    isa_name = native.isa()
    if isa_name is None or not native_attention.supports(q.dtype, isa_name):
        return F.scaled_dot_product_attention(q, k, v, mask, scale=scale).transpose(1, 2).contiguous()
    q, k, v = (part if part.stride(3) == 1 else part.contiguous() for part in (q, k, v))
    return native_attention.attention(q, k, v, mask, scale, isa_name)


attention_operator = torch.library.custom_op("sparsebert::attention", run_attention, mutates_args=())
attention_operator.register_fake(lambda q, *_: q.new_empty(q.shape[0], q.shape[2], q.shape[1], q.shape[3]))


@register_flop_formula(torch.ops.sparsebert.attention)
def _attention_flops(q_shape: torch.Size, k_shape: torch.Size, *_: object, **__: object) -> int:
    """Of both products."""
    return 4 * q_shape.numel() * k_shape[2]

"""Which kernel runs: chosen by device, library and number of tokens; as custom operators for torch.compile."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torch.utils.flop_counter import register_flop_formula

from sparsebert.kernels import (
    native,
    native_attention,
    native_fff,
    native_linear,
    native_tile_fff,
    native_tile_linear,
    reference,
)
from sparsebert.kernels.native_linear import ResidualNorm, SparseLayer
from sparsebert.kernels.packed import SINGLE, PackedMatrix, Seen, unpack_matrix
from sparsebert.kernels.tiled import TiledMatrix, TiledTree, stages_of, tile_tree, untile_matrix

# Tokens that must enter a subtree of the last stage on average, so that going by stages beats walking: with one the
# arithmetic of all its nodes is for nothing. Not measured yet on a processor with AMX.
TOKENS_A_SUBTREE = 4


def fff_backend(w_in: torch.Tensor) -> str:
    """The name of what `fff` would run with these weights: `plain`, `triton`, or `native` and the instruction set."""
    if w_in.is_cuda and has_triton():
        return "triton"
    chosen = _native_isa(w_in)
    return "plain" if chosen is None else f"native {chosen}"


class FffForms:
    """What kernels keep of one layer's weights from call to call."""

    def __init__(self) -> None:
        self._calls: native_fff.FffCalls | None = None
        self._seen = Seen()
        self._tiles: TiledTree | None = None

    def __reduce__(self) -> tuple[type[FffForms], tuple[()]]:
        """Copies of the layer, in memory or in a file, have weights elsewhere."""
        return FffForms, ()

    def calls(
        self, w_in: torch.Tensor, b_in: torch.Tensor, w_out: torch.Tensor, activation: str, isa_name: str
    ) -> native_fff.FffCalls | None:
        """Of the native kernel with these weights as they lie, None if it does not take them."""
        known = self._calls
        if known is not None and known.serve(w_in, b_in, w_out, activation, isa_name):
            return known
        if not native_fff.takes(w_in, b_in, w_out):
            return None
        self._calls = made = native_fff.FffCalls(w_in, b_in, w_out, activation, isa_name)
        return made

    def tiles(self, w_in: torch.Tensor, w_out: torch.Tensor) -> TiledTree:
        """Packed anew when the weights have changed."""
        if self._tiles is None or not self._seen.same(w_in, w_out):
            self._tiles = tile_tree(w_in, w_out)
            self._seen.remember(w_in, w_out)
        return self._tiles


def fff(
    x: torch.Tensor,
    w_in: torch.Tensor,
    b_in: torch.Tensor,
    w_out: torch.Tensor,
    activation: str,
    forms: FffForms | None = None,
) -> torch.Tensor:
    """Outputs [tokens, hidden] of a fast feedforward layer, in x's type; see `reference.fff`. Has no gradient.

    `forms` are of the same weights and activation: calls that share them are faster, and many tokens go by stages on
    tiles where there are any. An exported graph gets the plain form, whose gathers every runtime knows.
    """
    if _is_exported():
        return reference.fff(x, w_in, b_in, w_out, activation)
    if _is_watched():
        return _operator(x, w_in, b_in, w_out, activation)
    isa_name = native.isa()
    if forms is None or isa_name is None:
        return _run(x, w_in, b_in, w_out, activation)
    if isa_name in native.TILED and _goes_by_stages(x, w_in):
        given = (x.contiguous(), forms.tiles(w_in, w_out), b_in.float().contiguous())
        return native_tile_fff.fff(*given, activation, isa_name)[0].to(x.dtype)
    calls = forms.calls(w_in, b_in, w_out, activation, isa_name)
    if calls is None:
        return _run(x, w_in, b_in, w_out, activation)
    if x.dtype == torch.float32:
        return calls.outputs(x.contiguous())
    return calls.outputs(x.float().contiguous()).to(x.dtype)


def _goes_by_stages(x: torch.Tensor, w_in: torch.Tensor) -> bool:
    if not x.is_cpu or x.dtype != torch.bfloat16 or w_in.dtype != torch.bfloat16:
        return False
    before = sum(stages_of(reference.levels_of(w_in.shape[1]))[:-1])
    return len(x) >= TOKENS_A_SUBTREE * 2**before


def linear_backend(weight: torch.Tensor, height: int) -> str:
    """What a sparse layer would run with this weight: `dense`, `triton`, or `native` and the instruction set."""
    if not linear_runs(weight, weight, height):
        return "dense"
    return "triton" if weight.is_cuda else f"native {native.isa()}"


def linear_runs(x: torch.Tensor, weight: torch.Tensor, height: int, tiled: bool = False) -> bool:
    """Whether `sparse_linear` has a kernel for these.

    A compiled graph asks only when it runs; `tiled` says in which form the weight is packed by then.
    """
    if x.device != weight.device or x.dtype != weight.dtype or _is_exported():
        return False
    if x.is_cuda:
        return height != SINGLE and has_triton()
    if torch.compiler.is_compiling():
        return x.device.type == "cpu" and x.dtype == (torch.bfloat16 if tiled else torch.float32)
    return linear_is_tiled(weight) or (x.device.type == "cpu" and x.dtype == torch.float32 and native.isa() is not None)


def linear_is_tiled(weight: torch.Tensor) -> bool:
    """Whether a weight must be packed as a TiledMatrix for `sparse_linear`, else as a PackedMatrix."""
    return weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and native.has_tiles()


def sparse_linear(
    x: torch.Tensor, weight: PackedMatrix | TiledMatrix, bias: torch.Tensor | None, activation: str
) -> torch.Tensor:
    """activation(x W^T + bias) [tokens, outputs] where `linear_runs`; see `native_linear` and `native_tile_linear`."""
    if isinstance(weight, TiledMatrix):
        tensors = (weight.values, weight.starts, weight.columns, weight.masks, weight.begins, bias)
        run = _tiled_operator if _is_watched() else _run_tiled
        return run(x, *tensors, weight.outputs, weight.height, activation)
    parts = (weight.values, weight.starts, weight.columns, bias, weight.outputs, weight.height, activation)
    return _linear_operator(x, *parts) if _is_watched() else _run_linear(x, *parts)


def sparse_chain(x: torch.Tensor, layers: Sequence[SparseLayer], norm: ResidualNorm) -> torch.Tensor:
    """What layers of blocks give one after another, and the norm [tokens, outputs], where `linear_runs` on a CPU.

    See `native_linear.chain`.
    """
    tensors, numbers = [], []
    for layer in layers:
        weight = layer.weight
        bias = x.new_zeros(weight.outputs) if layer.bias is None else layer.bias
        tensors += [weight.values, weight.starts, weight.columns, bias]
        numbers += [weight.outputs, weight.height, native.ACTIVATIONS[layer.activation]]
    parts = (x, tensors, numbers, norm.residual, norm.gamma, norm.beta, norm.epsilon)
    return _chain_operator(*parts) if _is_watched() else _run_chain(*parts)


def attention_runs(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> bool:
    """Whether `attention` has a kernel for these; see `native_attention.attention` for shapes."""
    if _is_exported() or any(not part.is_cpu or part.dtype != torch.float32 for part in (q, k, v)):
        return False
    if q.shape[1] != k.shape[1] or k.shape != v.shape:
        return False
    if k.shape[2] > native_attention.MOST_KEYS or (mask is not None and mask.dtype != torch.bool):
        return False
    return torch.compiler.is_compiling() or native.isa() is not None


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """softmax(scale q k^T) v [batch, queries, heads, size] where `attention_runs`; see `native_attention.attention`."""
    return _attention_operator(q, k, v, mask, scale) if _is_watched() else _run_attention(q, k, v, mask, scale)


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed: it comes with torch's builds for GPUs."""
    return importlib.util.find_spec("triton") is not None


def _is_exported() -> bool:
    """Whether a graph is made that must run without this package; a trace would not even see the kernels."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def _is_watched() -> bool:
    """Whether somebody wants to see operators: the compiler, or a counter of FLOPs. Else they only cost time."""
    return torch.compiler.is_compiling() or is_in_torch_dispatch_mode()


def _native_isa(w_in: torch.Tensor) -> str | None:
    return native.isa() if w_in.device.type == "cpu" and w_in.dtype in native_fff.WEIGHTS else None


def _run(x: torch.Tensor, w_in: torch.Tensor, b_in: torch.Tensor, w_out: torch.Tensor, activation: str) -> torch.Tensor:
    if w_in.is_cuda and has_triton():
        from sparsebert.kernels import triton_fff

        given = (x.to(w_in.dtype).contiguous(), w_in.contiguous(), b_in.contiguous(), w_out.contiguous())
        return triton_fff.fff(*given, activation).to(x.dtype)
    chosen = _native_isa(w_in)
    if chosen is None:
        return reference.fff(x, w_in, b_in, w_out, activation)
    plain = (x.float().contiguous(), w_in.contiguous(), b_in.float().contiguous(), w_out.contiguous())
    return native_fff.fff(*plain, activation, None, chosen)[0].to(x.dtype)


_operator = torch.library.custom_op("sparsebert::fff", _run, mutates_args=())
_operator.register_fake(lambda x, *_: torch.empty_like(x))


@register_flop_formula(torch.ops.sparsebert.fff)
def _fff_flops(x_shape: torch.Size, w_in_shape: torch.Size, *_: object, **__: object) -> int:
    """Of the neurons on the way only: a product with an input row and one with an output row a level."""
    (tokens, hidden), (trees, nodes, _hidden) = x_shape, w_in_shape
    return 4 * tokens * trees * reference.levels_of(nodes) * hidden


def _run_linear(
    x: torch.Tensor,
    values: torch.Tensor,
    starts: torch.Tensor,
    columns: torch.Tensor,
    bias: torch.Tensor | None,
    outputs: int,
    height: int,
    activation: str,
) -> torch.Tensor:
    weight = PackedMatrix(outputs, x.shape[1], height, values, starts, columns)
    if x.is_cuda:
        from sparsebert.kernels import triton_linear

        return triton_linear.linear(x.contiguous(), weight, bias, activation)
    isa_name = native.isa()
    if isa_name is None:
        return reference.linear(x, unpack_matrix(weight), bias, activation)
    return native_linear.linear(x.contiguous(), weight, bias, activation, isa_name)


_linear_operator = torch.library.custom_op("sparsebert::sparse_linear", _run_linear, mutates_args=())
_linear_operator.register_fake(lambda x, values, starts, columns, bias, outputs, *_: x.new_empty(len(x), outputs))


def _run_tiled(
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
) -> torch.Tensor:
    weight = TiledMatrix(outputs, x.shape[1], height, values, starts, columns, masks, begins)
    isa_name = native.isa()
    if isa_name is None or not native.has_tiles():
        return reference.linear(x, untile_matrix(weight), bias, activation)
    shift = None if bias is None else bias.float()
    return native_tile_linear.linear(x.contiguous(), weight, shift, activation, isa_name)


_tiled_operator = torch.library.custom_op("sparsebert::tiled_linear", _run_tiled, mutates_args=())
_tiled_operator.register_fake(
    lambda x, values, starts, columns, masks, begins, bias, outputs, *_: x.new_empty(len(x), outputs)
)


@register_flop_formula([torch.ops.sparsebert.sparse_linear, torch.ops.sparsebert.tiled_linear])
def _linear_flops(x_shape: torch.Size, values_shape: torch.Size, *_: object, **__: object) -> int:
    """Of the values that are stored only."""
    return 2 * x_shape[0] * values_shape.numel()


def _run_chain(
    x: torch.Tensor,
    tensors: list[torch.Tensor],
    numbers: list[int],
    residual: torch.Tensor,
    gamma: torch.Tensor,
    beta: torch.Tensor,
    epsilon: float,
) -> torch.Tensor:
    layers, names, wide = [], list(native.ACTIVATIONS), x.shape[1]
    for i in range(len(tensors) // 4):
        values, starts, columns, bias = tensors[4 * i : 4 * i + 4]
        outputs, height, activation = numbers[3 * i : 3 * i + 3]
        weight = PackedMatrix(outputs, wide, height, values, starts, columns)
        layers.append(SparseLayer(weight, bias, names[activation]))
        wide = outputs
    isa_name = native.isa()
    if isa_name is not None:
        norm = ResidualNorm(residual.contiguous(), gamma, beta, epsilon)
        return native_linear.chain(x.contiguous(), layers, norm, isa_name)
    for layer in layers:
        x = reference.linear(x, unpack_matrix(layer.weight), layer.bias, layer.activation)
    return F.layer_norm(x + residual, (wide,), gamma, beta, epsilon)


_chain_operator = torch.library.custom_op("sparsebert::sparse_chain", _run_chain, mutates_args=())
_chain_operator.register_fake(lambda x, tensors, numbers, residual, *_: torch.empty_like(residual))


@register_flop_formula(torch.ops.sparsebert.sparse_chain)
def _chain_flops(x_shape: torch.Size, tensor_shapes: Sequence[torch.Size], *_: object, **__: object) -> int:
    """Of the values that are stored only."""
    return 2 * x_shape[0] * sum(shape.numel() for shape in tensor_shapes[::4])


def _run_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    isa_name = native.isa()
    if isa_name is None:
        return F.scaled_dot_product_attention(q, k, v, mask, scale=scale).transpose(1, 2).contiguous()
    q, k, v = (part if part.stride(3) == 1 else part.contiguous() for part in (q, k, v))
    return native_attention.attention(q, k, v, mask, scale, isa_name)


_attention_operator = torch.library.custom_op("sparsebert::attention", _run_attention, mutates_args=())
_attention_operator.register_fake(lambda q, *_: q.new_empty(q.shape[0], q.shape[2], q.shape[1], q.shape[3]))


@register_flop_formula(torch.ops.sparsebert.attention)
def _attention_flops(q_shape: torch.Size, k_shape: torch.Size, *_: object, **__: object) -> int:
    """Of both products."""
    return 4 * q_shape.numel() * k_shape[2]

"""Which kernel runs: chosen by device, library and number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from sparsebert.kernels import native, native_attention, native_fff, native_tile_fff, operators, reference
from sparsebert.kernels.native_linear import FLOAT, INPUTS, ResidualNorm, SparseLayer
from sparsebert.kernels.packed import HEIGHTS, SINGLE, PackedMatrix, WeightVersions, pack_matrix
from sparsebert.kernels.tiled import TiledMatrix, TiledTree, stages_of, tile_matrix, tile_tree

# Tokens that must enter a subtree of the last stage on average, so that going by stages beats walking: with one the
# arithmetic of all its nodes is for nothing. Not measured yet on a processor with AMX.
TOKENS_A_SUBTREE = 4


def fff_backend(w_in: torch.Tensor) -> str:
    """The name of what `fff` would run with these weights: `plain`, `triton`, or `native` and the instruction set."""
    if w_in.is_cuda and operators.has_triton():
        return "triton"
    chosen = operators.native_isa(w_in)
    return "plain" if chosen is None else f"native {chosen}"


class FffCache:
    """What kernels keep of one layer's weights from call to call."""

    def __init__(self) -> None:
        self._calls: native_fff.FffCalls | None = None
        self._versions, self._bias_versions = WeightVersions(), WeightVersions()
        self._tiles: TiledTree | None = None
        self._bias: torch.Tensor | None = None

    def __reduce__(self) -> tuple[type[FffCache], tuple[()]]:
        """Copies of the layer, in memory or in a file, have weights elsewhere."""
        return FffCache, ()

    def calls(
        self, w_in: torch.Tensor, b_in: torch.Tensor, w_out: torch.Tensor, activation: str, isa_name: str
    ) -> native_fff.FffCalls | None:
        """Of the native kernel with these weights as they lie, None if it does not take them."""
        known = self._calls
        if known is not None and known.serve(w_in, b_in, w_out, activation, isa_name):
            return known
        if not native_fff.supports(w_in, b_in, w_out):
            return None
        self._calls = made = native_fff.FffCalls(w_in, b_in, w_out, activation, isa_name)
        return made

    def bias(self, b_in: torch.Tensor) -> torch.Tensor:
        """As the kernels read it: float32, contiguous."""
        if b_in.dtype == torch.float32 and b_in.is_contiguous():
            return b_in
        if self._bias is None or not self._bias_versions.same(b_in):
            self._bias = b_in.float().contiguous()
            self._bias_versions.remember(b_in)
        return self._bias

    def tiles(self, w_in: torch.Tensor, w_out: torch.Tensor) -> TiledTree:
        """Packed anew when the weights have changed."""
        if self._tiles is None or not self._versions.same(w_in, w_out):
            self._tiles = tile_tree(w_in, w_out)
            self._versions.remember(w_in, w_out)
        return self._tiles


def fff(
    x: torch.Tensor,
    w_in: torch.Tensor,
    b_in: torch.Tensor,
    w_out: torch.Tensor,
    activation: str,
    cache: FffCache | None = None,
) -> torch.Tensor:
    """Outputs [tokens, hidden] of a fast feedforward layer, in x's type; see `reference.fff`. Has no gradient.

    `cache` is of the same weights and activation: calls that share it are faster, and many tokens go by stages on
    AMX tiles where there are any. An exported graph gets the plain form, whose gathers every runtime knows.
    """
    if _is_exported():
        return reference.fff(x, w_in, b_in, w_out, activation)
    if _is_traced():
        return operators.fff_operator(x, w_in, b_in, w_out, activation)
    isa_name = native.isa()
    if cache is None or isa_name is None:
        return operators.run_fff(x, w_in, b_in, w_out, activation)
    if isa_name in native.SPREADING and _goes_by_stages(x, w_in):
        given = (x.contiguous(), cache.tiles(w_in, w_out), cache.bias(b_in))
        return native_tile_fff.fff(*given, activation, isa_name)[0].to(x.dtype)
    calls = cache.calls(w_in, cache.bias(b_in), w_out, activation, isa_name)
    if calls is None:
        return operators.run_fff(x, w_in, b_in, w_out, activation)
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
        return height != SINGLE and operators.has_triton()
    supported = x.device.type == "cpu" and x.dtype in (INPUTS if height == SINGLE else FLOAT)
    if torch.compiler.is_compiling():
        return x.device.type == "cpu" and x.dtype == torch.bfloat16 if tiled else supported
    return linear_is_tiled(weight, height) or (supported and native.isa() is not None)


def linear_heights(weight: torch.Tensor) -> list[int]:
    """The heights of blocks that `sparse_linear` has a kernel for with inputs of the same kind; 0 = single values."""
    return [height for height in (*HEIGHTS, SINGLE) if linear_runs(weight, weight, height)]


def linear_is_tiled(weight: torch.Tensor, height: int) -> bool:
    """Whether a weight must be packed as a TiledMatrix for `sparse_linear`, else as a PackedMatrix.

    Without AMX single values are faster one by one, in float32, than spread over tiles.
    """
    isas = native.SPREADING if height == SINGLE else native.TILED
    return weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and native.isa() in isas


def pack_weight(weight: torch.Tensor, height: int) -> PackedMatrix | TiledMatrix:
    """What is left of a weight [outputs, inputs], as `sparse_linear` reads it here; height 32, 16 or 0 = single."""
    if linear_is_tiled(weight, height):
        return tile_matrix(weight, height)
    packed = pack_matrix(weight, height)
    return replace(packed, values=packed.values.to(weight.dtype)) if weight.is_cuda else packed


@dataclass(frozen=True)
class Origin:
    """What a matrix was packed of: the weight [outputs, inputs], and its `stamp_of` then."""

    weight: torch.Tensor
    stamp: torch.Tensor


def sparse_linear(
    x: torch.Tensor,
    weight: PackedMatrix | TiledMatrix,
    bias: torch.Tensor | None,
    activation: str,
    origin: Origin | None = None,
) -> torch.Tensor:
    """activation(x W^T + bias) [tokens, outputs] where `linear_runs`; see `native_linear` and `native_tile_linear`.

    Nobody can pack inside a compiled graph: where the weight of `origin` has changed by the time it runs, the dense
    product runs.
    """
    if isinstance(weight, TiledMatrix):
        return tiled_linear(x, weight, bias, activation, origin)
    source = (None, None) if origin is None else (origin.weight, origin.stamp)
    parts = (weight.values, weight.starts, weight.columns, bias, weight.outputs, weight.height, activation)
    return operators.linear_operator(x, *parts, *source) if _is_traced() else operators.run_linear(x, *parts)


def tiled_linear(
    x: torch.Tensor,
    weight: TiledMatrix,
    bias: torch.Tensor | None,
    activation: str,
    origin: Origin | None = None,
    norm: ResidualNorm | None = None,
) -> torch.Tensor:
    """As `sparse_linear`, and then the norm, which may have bfloat16 weights here."""
    packed = (weight.values, weight.starts, weight.columns, weight.masks, weight.begins)
    parts = (x, *packed, bias, weight.outputs, weight.height, activation)
    of, stamp = (None, None) if origin is None else (origin.weight, origin.stamp)
    run = operators.tiled_operator if _is_traced() else operators.run_tiled
    if norm is None:
        return run(*parts, of, stamp)
    return run(*parts, of, stamp, norm.residual, norm.gamma, norm.beta, norm.epsilon)


def sparse_chain(
    x: torch.Tensor, layers: Sequence[SparseLayer], norm: ResidualNorm, origins: Sequence[Origin]
) -> torch.Tensor:
    """What layers of blocks give one after another, and the norm [tokens, outputs], where `linear_runs` on a CPU.

    See `native_linear.chain`, in bfloat16 `native_tile_linear.chain`, and `sparse_linear` for the origins: one a layer,
    or none.
    """
    tensors, numbers = [], []
    for layer in layers:
        weight = layer.weight
        bias = x.new_zeros(weight.outputs) if layer.bias is None else layer.bias
        tensors += [weight.values, weight.starts, weight.columns, bias]
        numbers += [weight.outputs, weight.height, native.ACTIVATIONS[layer.activation]]
    parts = (x, tensors, numbers, norm.residual, norm.gamma, norm.beta, norm.epsilon)
    if not _is_traced():
        return operators.run_chain(*parts)
    return operators.chain_operator(*parts, [origin.weight for origin in origins], [origin.stamp for origin in origins])


def attention_runs(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> bool:
    """Whether `attention` has a kernel for these; see `native_attention.attention` for shapes."""
    if _is_exported() or any(not part.is_cpu or part.dtype != q.dtype for part in (q, k, v)):
        return False
    if q.shape[1] != k.shape[1] or k.shape != v.shape:
        return False
    if k.shape[2] > native_attention.MOST_KEYS or (mask is not None and mask.dtype != torch.bool):
        return False
    if torch.compiler.is_compiling():
        return q.dtype in native_attention.TYPES
    return native_attention.supports(q.dtype, native.isa())


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """softmax(scale q k^T) v [batch, queries, heads, size] where `attention_runs`; see `native_attention.attention`."""
    return (
        operators.attention_operator(q, k, v, mask, scale)
        if _is_traced()
        else operators.run_attention(q, k, v, mask, scale)
    )


def _is_exported() -> bool:
    """Whether a graph is made that must run without this package; a trace would not even see the kernels."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def _is_traced() -> bool:
    """Whether somebody wants to see operators: the compiler, or a counter of FLOPs. Else they only cost time."""
    return torch.compiler.is_compiling() or is_in_torch_dispatch_mode()

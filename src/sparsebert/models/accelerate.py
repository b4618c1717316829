"""Sparse kernels for a model whose weights have zeros, wherever they were measured to be faster than dense ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.activations import GELUActivation

from sparsebert.errors import UserError
from sparsebert.kernels import dispatch
from sparsebert.kernels.packed import SINGLE, pack_matrix
from sparsebert.models.attention import NAME, STOCK
from sparsebert.models.families import FfnParts
from sparsebert.models.layout import layout_of, scope_names
from sparsebert.models.sparse_linear import SparseLinear
from sparsebert.models.sparse_output import Postponed, SparseOutput
from sparsebert.timing import Variant, finish, interleave, quartiles, ratios

WORTH_IT = 1.05
TRY_BELOW = 0.7
ROUNDS = 5
# What blocks gain besides, because what lies between them and their neighbours stays in the cache (SparseOutput).
IN_ONE_CALL = 1.2
LENGTH = 128
# Height of the blocks (none = no form has few enough values), and how many times faster than dense.
KernelChoice = tuple[int | None, float]
NOTHING: KernelChoice = None, 1.0


def accelerate(model: PreTrainedModel, tokens: int = 1024, worth: float = WORTH_IT) -> PreTrainedModel:
    """The same model, over the same weights, with a SparseLinear wherever one is faster here for so many tokens.

    Each distinct matrix of the encoder that has zeros is timed against the dense product on this machine, in blocks
    and as single values; the fastest takes its place if it is at least `worth` times as fast. Where blocks run in one
    call with what follows, they also do if single values are less than 1.2 times as fast. A gelu or relu that follows
    is computed along, and so are the residual and norm for blocks, and for all with AMX (SparseOutput). What was
    gained is in each layer's `gain`. Attention of short sequences is timed, and replaced, alike. Nothing changes in
    what is saved. There are kernels for float32, and single values of bfloat16, on a CPU with the native library, for
    blocks of bfloat16 on one with AVX-512 BF16 or AMX, and for blocks on a GPU with Triton; elsewhere nothing is
    replaced. Raises UserError for a model that was accelerated already, in a wrapper, or without plain weights.

    Whoever saves the whole model by `torch.save` must import `sparsebert.models.attention` before it runs again.
    """
    if sparse_layers(model):
        raise UserError("The model is accelerated already", fix="give the one that it was made of")
    scope_names(model)
    made = _around_the_same_weights(model)
    measured: dict[tuple[object, ...], KernelChoice] = {}
    for name, linear, joins in list(_linears(made)):
        height, gain = _best(linear, tokens, joins, worth, measured)
        if height is not None and gain >= worth:
            made.set_submodule(name, SparseLinear(linear, height, gain=gain))
    _fuse_activations(made)
    if model.device.type == "cpu":
        _fuse_ends(made)
        if made.config._attn_implementation == STOCK and _attention_gain(made, tokens) >= worth:
            made.set_attn_implementation(NAME)
    return made


def sparse_layers(model: nn.Module) -> dict[str, SparseLinear]:
    """By name, the layers that `accelerate` put in."""
    return {name: module for name, module in model.named_modules() if isinstance(module, SparseLinear)}


def _linears(model: PreTrainedModel) -> Iterator[tuple[str, nn.Linear, bool]]:
    """By name, and whether blocks of it can be computed in one call with what follows (`_fuse_ends`)."""
    layout = layout_of(model)
    attention, ffn = layout.family.attention, layout.family.ffn
    ends = {part.output for part in (attention, ffn) if part.end} | (set(ffn.inputs) if ffn.end else set())
    for layer in layout.layers:
        for name, module in model.get_submodule(layer.path).named_modules():
            if isinstance(module, nn.Linear) and module.weight.numel() > 0:
                yield f"{layer.path}.{name}", module, name in ends


def _best(
    linear: nn.Linear, tokens: int, joins: bool, worth_it: float, measured: dict[tuple[object, ...], KernelChoice]
) -> KernelChoice:
    """The best form of a matrix. Alike matrices are timed once."""
    weight = linear.weight.detach()
    if float((weight != 0).float().mean()) > TRY_BELOW:
        return NOTHING
    packed = {height: pack_matrix(weight, height) for height in dispatch.linear_heights(weight)}
    tried = [height for height, matrix in packed.items() if matrix.density <= TRY_BELOW]
    key = (weight.shape, linear.bias is None, joins, *(round(matrix.density, 1) for matrix in packed.values()))
    if key not in measured:
        gains = _timed({height: SparseLinear(linear, height).eval() for height in tried}, linear, tokens)
        measured[key] = _choice(gains, joins, worth_it)
    return measured[key]


def _timed(layers: dict[int, SparseLinear], linear: nn.Linear, tokens: int) -> dict[int, float]:
    if not layers:
        return {}
    x = torch.randn(tokens, linear.in_features, generator=torch.Generator().manual_seed(0)).to(linear.weight)
    runs: dict[str, Callable[[], object]] = {
        str(height): lambda layer=layer: _finished(layer(x)) for height, layer in layers.items()
    }
    gains = _gains(lambda: _finished(F.linear(x, linear.weight, linear.bias)), runs)
    return {height: gains[str(height)] for height in layers}


def _choice(gains: Mapping[int, float], joins: bool, worth_it: float) -> KernelChoice:
    """The fastest of those that are worth it; of a matrix that `joins` others blocks, unless others gain much more."""
    enough = {height: gain for height, gain in gains.items() if gain >= worth_it}
    if not enough:
        return NOTHING
    best = max(enough, key=lambda height: enough[height] * (IN_ONE_CALL if joins and height != SINGLE else 1))
    return best, enough[best]


def _gains(stock: Callable[[], object], runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """How many times faster than `stock` each of them is, by interleaved rounds."""
    variants = [Variant(name, run) for name, run in ({"stock": stock} | runs).items()]
    samples = interleave(variants, ROUNDS, warmup_ms=10, min_sample_ms=3)
    return {name: quartiles(ratios(samples[name], samples["stock"]))[1] for name in runs}


def _finished(y: torch.Tensor) -> torch.Tensor:
    finish(y.device)
    return y


def _attention_gain(model: PreTrainedModel, tokens: int) -> float:
    """How many times faster than torch's the native attention is, in sequences of LENGTH."""
    layout = layout_of(model)
    heads = max((layer.units["head"] for layer in layout.layers), default=0)
    if heads == 0:
        return 0.0
    length = min(tokens, LENGTH)
    shape = (max(1, tokens // length), length, heads, layout.head_size)
    drawn = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    q, k, v = drawn.to(model.dtype).transpose(2, 3)
    with torch.inference_mode():
        if not dispatch.attention_runs(q, k, v, None):
            return 0.0
        return _gains(
            lambda: F.scaled_dot_product_attention(q, k, v).transpose(1, 2).contiguous(),
            {"native": lambda: dispatch.attention(q, k, v, None, layout.head_size**-0.5)},
        )["native"]


def _fuse_activations(model: PreTrainedModel) -> None:
    """An activation after a feedforward block's only up projection is computed by it."""
    layout = layout_of(model)
    ffn = layout.family.ffn
    for layer in layout.layers:
        block = model.get_submodule(layer.path)
        present = dict(block.named_modules())
        ups = [present[name] for name in ffn.inputs if name in present]
        if len(ups) != 1 or not isinstance(up := ups[0], SparseLinear):
            continue
        activation = present[ffn.activation]
        name = "gelu" if _is_exact_gelu(activation) else "relu" if isinstance(activation, nn.ReLU) else None
        if name is not None:
            up.activation = name
            block.set_submodule(ffn.activation, nn.Identity())


def _fuse_ends(model: PreTrainedModel) -> None:
    """Residual and norm are computed by the matrix before them, and both matrices of a feedforward block in one go."""
    layout = layout_of(model)
    attention, ffn = layout.family.attention, layout.family.ffn
    for layer in layout.layers:
        block = model.get_submodule(layer.path)
        for part in (attention, ffn):
            if part.end and _with_norm(block, part.output) is not None:
                first = _postponed(block, ffn) if part is ffn else None
                block.set_submodule(part.end, SparseOutput(block.get_submodule(part.end), first))


def _postponed(block: nn.Module, ffn: FfnParts) -> Postponed | None:
    """The first matrix of a feedforward block, no longer computed in its place if nothing but it is there."""
    first = _with_norm(block, ffn.inputs[0])
    if first is None or not isinstance(block.get_submodule(ffn.activation), nn.Identity):
        return None
    postponed = Postponed(first)
    block.set_submodule(ffn.inputs[0].rpartition(".")[0], postponed)
    return postponed


def _with_norm(block: nn.Module, name: str) -> SparseLinear | None:
    """The layer of that name, if its kernel takes a norm along: of blocks, and of single values on tiles."""
    found = dict(block.named_modules()).get(name)
    if not isinstance(found, SparseLinear):
        return None
    return found if found.height != SINGLE or dispatch.linear_is_tiled(found.weight, SINGLE) else None


def _is_exact_gelu(module: nn.Module) -> bool:
    if isinstance(module, GELUActivation):
        return True
    return isinstance(module, nn.GELU) and module.approximate == "none"


def _around_the_same_weights(model: PreTrainedModel) -> PreTrainedModel:
    shared = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in shared})

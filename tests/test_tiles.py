"""Kernels on bf16 tiles: packing by hand, and everything against fp64, emulated where the processor has no tiles."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertOutput

from sparsebert.errors import UserError
from sparsebert.kernels import (
    native,
    native_fff,
    native_linear,
    native_tile_linear,
    operators,
)
from sparsebert.kernels.native_linear import ResidualNorm
from sparsebert.kernels.packed import SINGLE, PackedMatrix, pack_matrix
from sparsebert.kernels.tiled import tile_matrix, untile_matrix
from sparsebert.models.accelerate import accelerate, sparse_layers
from sparsebert.models.sparse_linear import SparseLinear
from sparsebert.models.sparse_output import SparseOutput
from test_accelerate import zeroed
from test_fff import HAVE, needs_native, tensors, worst
from test_sparse_linear import ACTIVATIONS, FORMS, SHAPES, matrix
from tiny import tiny_batch

TILED = (native.EMULATED, *(isa for isa in HAVE if isa in native.TILED))


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything runs on emulated tiles."""
    monkeypatch.setenv(native.FORCE, native.EMULATED)


def half_matrix(outputs: int, inputs: int, density: float, seed: int = 0) -> torch.Tensor:
    return matrix(outputs, inputs, density, seed).bfloat16()


def test_tiles_by_hand():
    weight = torch.zeros(40, 64)
    weight[1, 2], weight[39, 63], weight[20, 1] = 5.0, 7.0, 3.0
    blocks = tile_matrix(weight, 32)
    assert blocks.values.shape == (2, 2, 16, 16, 2) and blocks.values.count_nonzero() == 3
    assert blocks.starts.tolist() == [0, 1, 2] and blocks.columns.tolist() == [0, 1]
    # Tile, pair of inputs, output, which of the pair.
    assert blocks.values[0, 0, 1, 1, 0] == 5 and blocks.values[0, 1, 0, 4, 1] == 3
    assert blocks.values[1, 0, 15, 7, 1] == 7
    single = tile_matrix(weight, SINGLE)
    assert single.values.tolist() == [5.0, 3.0, 7.0] and single.columns.tolist() == [0, 1]
    assert single.begins is not None and single.begins.tolist() == [0, 2]
    assert single.masks is not None and single.masks.count_nonzero() == 3
    assert single.masks[0, 0, 1] == 1 << 2 and single.masks[0, 1, 0] == 1 << 9 and single.masks[1, 0, 15] == 1 << 15


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.floats(0, 1), st.sampled_from(FORMS))
def test_packing_loses_nothing(outputs: int, inputs: int, density: float, height: int):
    weight = half_matrix(outputs, inputs, density, seed=outputs)
    assert torch.equal(untile_matrix(tile_matrix(weight, height)), weight)


@needs_native
@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("height", FORMS)
@pytest.mark.parametrize("isa", TILED)
@pytest.mark.parametrize("shape", [*SHAPES, (70, 64, 33)])
def test_tiles_are_as_exact_as_torch(shape: tuple[int, int, int], isa: str, height: int, density: float):
    # Memory that nobody has written is NaN in this mode of torch.
    assert torch.are_deterministic_algorithms_enabled()
    tokens, inputs, outputs = shape
    torch.manual_seed(0)
    weight, x, shift = half_matrix(outputs, inputs, density), torch.randn(tokens, inputs), torch.randn(outputs)
    shift = shift.bfloat16().float()
    tiled, half = tile_matrix(weight, height), x.bfloat16()
    for bias in (shift, None):
        for name, activation in ACTIVATIONS.items():
            wide = None if bias is None else bias.double()
            expected = activation(F.linear(half.double(), weight.double(), wide))
            scale = max(1.0, float(expected.abs().max())) if tokens else 1.0
            found = native_tile_linear.linear(x, tiled, bias, name, isa)
            plain = activation(F.linear(half.float(), weight.float(), bias))
            assert found.shape == plain.shape and found.dtype == torch.float32
            assert worst(found, expected) <= 2 * worst(plain, expected) + 4e-7 * scale
            rounded = native_tile_linear.linear(half, tiled, bias, name, isa)
            assert rounded.dtype == torch.bfloat16 and torch.equal(rounded, found.bfloat16())
            plain = activation(F.linear(half, weight, None if bias is None else bias.bfloat16()))
            assert worst(rounded, expected) <= 2 * worst(plain, expected) + 4e-7 * scale


def norm_of(tokens: int, outputs: int, dtype: torch.dtype) -> ResidualNorm:
    """Drawn from torch's generator; gamma and beta are bf16 already."""
    gamma, beta = (torch.randn(outputs).bfloat16().float() for _ in range(2))
    return ResidualNorm(torch.randn(tokens, outputs).to(dtype), gamma, beta, 1e-6)


def normed(y: torch.Tensor, norm: ResidualNorm) -> torch.Tensor:
    residual, gamma, beta = (tensor.to(y.dtype) for tensor in (norm.residual, norm.gamma, norm.beta))
    return F.layer_norm(y + residual, gamma.shape, gamma, beta, norm.epsilon)


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("height", FORMS)
@pytest.mark.parametrize("isa", TILED)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_norm_on_tiles_is_as_exact_as_torch(shape: tuple[int, int, int], isa: str, height: int, dtype: torch.dtype):
    tokens, inputs, outputs = shape
    torch.manual_seed(0)
    weight, x, bias = half_matrix(outputs, inputs, 0.4), torch.randn(tokens, inputs).to(dtype), torch.randn(outputs)
    norm, tiled = norm_of(tokens, outputs, dtype), tile_matrix(weight, height)
    found = native_tile_linear.linear(x, tiled, bias, "none", isa, norm)
    # The same product, then the norm in float64: what a norm of its own would be given.
    product = native_tile_linear.linear(x, tiled, bias, "none", isa)
    expected = normed(product.double(), norm)
    scale = max(1.0, float(expected.abs().max())) if tokens else 1.0
    assert found.dtype == dtype and found.shape == (tokens, outputs)
    assert worst(found, expected) <= 2 * worst(normed(product, norm), expected) + 4e-7 * scale


@settings(max_examples=30, deadline=None)
@given(
    *[st.integers(0, 150), st.integers(1, 70), st.integers(1, 70), st.integers(2, 4)],
    *[st.sampled_from(FORMS), st.booleans()],
)
@needs_native
def test_threads_change_nothing(tokens: int, inputs: int, outputs: int, threads: int, height: int, ends: bool):
    tiled, x = tile_matrix(half_matrix(outputs, inputs, 0.4), height), torch.randn(tokens, inputs).bfloat16()
    parts = (x, tiled, None, "gelu", TILED[-1], norm_of(tokens, outputs, x.dtype) if ends else None)
    before, one = torch.get_num_threads(), native_tile_linear.linear(*parts)
    try:
        torch.set_num_threads(threads)
        assert torch.equal(native_tile_linear.linear(*parts), one)
    finally:
        torch.set_num_threads(before)


@needs_native
@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, 0x7F800001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("inputs", [64, 63])
@pytest.mark.parametrize("height", FORMS)
def test_what_is_not_a_number_stays_so(height: int, inputs: int, dtype: torch.dtype, bits: int):
    x = torch.ones(20, inputs)
    # At the beginning of a row, where it is next to the end of the row before.
    x[3, 0], x[17, 0] = torch.tensor([bits], dtype=torch.int32).view(torch.float32)[0], torch.inf
    x = x.to(dtype)
    y = native_tile_linear.linear(x, tile_matrix(torch.ones(32, inputs), height), None, "gelu", TILED[-1])
    assert y.isnan().all(dim=1).nonzero().flatten().tolist() == [3]
    assert y.isinf().all(dim=1).nonzero().flatten().tolist() == [17]


@needs_native
def test_a_large_batch_goes_in_chunks():
    torch.manual_seed(0)
    x, weight = torch.randn(1100, 32).bfloat16(), half_matrix(20, 32, 0.5)
    for height in FORMS:
        found = native_tile_linear.linear(x, tile_matrix(weight, height), None, "none", native.EMULATED)
        torch.testing.assert_close(found, F.linear(x, weight), rtol=0.02, atol=0.01)


@needs_native
def test_tensors_that_do_not_fit_are_refused():
    blocks, single = (tile_matrix(torch.ones(64, 64), height) for height in (32, SINGLE))
    x = torch.ones(4, 64)
    bad = {
        r"must be \[tokens, 64\], got \(4, 32\)": (x[:, :32].contiguous(), blocks, None),
        r"bias must be \[64\], got \(3,\)": (x, blocks, torch.ones(3)),
        "bias must be float32": (x, blocks, torch.ones(64).bfloat16()),
        "input of .* got torch.bfloat16 and torch.float64": (x.double(), blocks, None),
        "bfloat16 weights .* got torch.float32": (x, replace(blocks, values=blocks.values.float()), None),
        "contiguous and on the CPU": (torch.ones(64, 4).t(), blocks, None),
        "32 or 16 outputs, got 8": (x, replace(blocks, height=8), None),
        "do not fit together": (x, replace(blocks, starts=blocks.starts[:2]), None),
        r"\(4096,\) and 3 starts do not fit": (x, replace(single, masks=None), None),
        "must be int32": (x, replace(single, begins=single.begins.long()), None),
    }
    for said, arguments in bad.items():
        with pytest.raises(ValueError, match=said):
            native_tile_linear.linear(*arguments, "none", native.EMULATED)


@needs_native
def test_tiles_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch):
    x, weight = torch.ones(2, 32), torch.ones(32, 32)
    for isa in (isa for isa in native.ISAS if isa not in TILED):
        with pytest.raises(RuntimeError, match=f"refused the instruction set {isa}"):
            native_tile_linear.linear(x, tile_matrix(weight, 32), None, "none", isa)
    assert native.isa() != native.EMULATED
    if native.AMX not in HAVE:
        with pytest.raises(RuntimeError, match="refused the instruction set amx"):
            native_linear.linear(x, pack_matrix(weight, 32), None, "none", native.AMX)
        monkeypatch.setenv(native.FORCE, native.AMX)
        with pytest.raises(UserError, match="SPARSEBERT_ISA asks for; got amx"):
            native.isa()


@needs_native
@pytest.mark.parametrize("isa", TILED)
def test_kernels_without_tiles_run_beside_them(isa: str):
    torch.manual_seed(0)
    x, like = torch.randn(5, 40), "portable" if isa == native.EMULATED else "avx512"
    packed, tree = pack_matrix(matrix(20, 40, 0.5), 32), tensors(9, 40, 1, 3)
    found, expected = (native_linear.linear(x, packed, None, "gelu", name) for name in (isa, like))
    assert torch.equal(found, expected)
    found, expected = (native_fff.fff(*tree, "gelu", 0, name)[0] for name in (isa, like))
    assert torch.equal(found, expected)


@needs_native
@pytest.mark.parametrize("height", FORMS)
def test_a_layer_in_bf16(height: int, tiles: None, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    dense, x = nn.Linear(70, 40).bfloat16(), torch.randn(2, 9, 70).bfloat16()
    with torch.no_grad():
        dense.weight.copy_(half_matrix(40, 70, 0.3))
    layer = SparseLinear(dense, height).eval()
    assert list(layer.state_dict()) == ["weight", "bias"] and layer.backend == "native emulated"
    near = {"rtol": 0.02, "atol": 0.02}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        torch.testing.assert_close(layer(x), dense(x), **near)
        assert counter.get_total_flops() == 2 * 18 * (layer.packed().values.numel() + 70 * 40)
    with torch.no_grad():
        dense.weight.mul_(2)
        torch.testing.assert_close(layer(x), dense(x), **near)
        monkeypatch.setenv(native.FORCE, "portable")
        if height == SINGLE:
            assert layer.backend == "native portable"
            torch.testing.assert_close(layer(x), dense(x), **near)
        else:
            assert layer.backend == "dense" and torch.equal(layer(x), dense(x))
        dense.weight.mul_(2)
        assert isinstance(layer.packed(), PackedMatrix)
        monkeypatch.setenv(native.FORCE, native.EMULATED)
        torch.testing.assert_close(layer(x), dense(x), **near)
        monkeypatch.setenv(native.FORCE, "portable")
        assert layer.float().backend == "native portable"
        torch.testing.assert_close(layer(x.float()), dense(x.float()), rtol=1e-4, atol=1e-5)


@needs_native
@pytest.mark.parametrize("height", FORMS)
def test_a_layer_in_bf16_compiles_to_one_graph(height: int, tiles: None, monkeypatch: pytest.MonkeyPatch):
    layer, x = SparseLinear(nn.Linear(32, 40).bfloat16(), height, "gelu").eval(), torch.randn(3, 32).bfloat16()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        expected = layer(x)
        assert torch.equal(compiled(x), expected)
        monkeypatch.setenv(native.FORCE, native.NONE)
        torch.testing.assert_close(compiled(x), expected, rtol=0.02, atol=0.02)
    made = tile_matrix(layer.weight, height)
    arguments = (
        x,
        made.values,
        made.starts,
        made.columns,
        made.masks,
        made.begins,
        layer.bias,
        40,
        height,
        "relu",
        None,
        None,
    )
    for test in ("test_schema", "test_faketensor"):
        torch.library.opcheck(operators.tiled_operator, arguments, test_utils=test)


@needs_native
def test_a_model_in_bf16_is_accelerated_where_there_are_tiles(tiles: None):
    model, batch = zeroed("bert").bfloat16(), tiny_batch()
    fast = accelerate(model, tokens=36, worth=0)
    layers = sparse_layers(fast)
    assert {layer.backend for layer in layers.values()} == {"native emulated"}
    assert {layer.activation for layer in layers.values()} == {"none", "gelu"}
    with torch.no_grad():
        torch.testing.assert_close(fast(**batch).logits, model(**batch).logits, rtol=0.05, atol=0.02)


@needs_native
@pytest.mark.parametrize("height", FORMS)
def test_an_end_in_bf16_is_one_call(height: int, tiles: None, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    end = BertOutput(BertConfig(hidden_size=48, intermediate_size=70)).bfloat16().eval()
    with torch.no_grad():
        end.dense.weight.copy_(half_matrix(48, 70, 0.3))
        end.LayerNorm.weight.uniform_()
    x, residual = torch.randn(2, 9, 70).bfloat16(), torch.randn(2, 9, 48).bfloat16()
    expected = end(x, residual)
    made = copy.deepcopy(end)
    made.dense = SparseLinear(made.dense, height).eval()
    fused = SparseOutput(made)
    compiled = torch.compile(fused, backend="aot_eager", fullgraph=True)
    norms = []
    fused.LayerNorm.register_forward_hook(lambda *_: norms.append(1))
    with torch.no_grad():
        found = fused(x, residual)
        assert not norms
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
        assert torch.equal(compiled(x, residual), found) and not norms
        for weight in (made.dense.weight, end.dense.weight):
            weight.mul_(2)
        with pytest.warns(UserWarning, match="runs dense"):
            torch.testing.assert_close(compiled(x, residual), end(x, residual), rtol=0.02, atol=0.02)
        assert torch.equal(fused(x, residual), compiled(x, residual))
        monkeypatch.setenv(native.FORCE, native.NONE)
        torch.testing.assert_close(compiled(x, residual), end(x, residual), rtol=0.02, atol=0.02)
        torch.testing.assert_close(fused(x, residual), end(x, residual), rtol=0.02, atol=0.02)
        assert norms
    torch.testing.assert_close(fused(x, residual), end(x, residual), rtol=0.02, atol=0.02)

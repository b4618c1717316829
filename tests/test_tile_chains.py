"""Chains of layers on bf16 tiles: the same as one call each, for every instruction set, and inside a block's end."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertOutput

from sparsebert.kernels import native, native_linear, native_tile_linear, operators
from sparsebert.kernels.native_linear import SparseLayer
from sparsebert.kernels.packed import HEIGHTS, pack_matrix
from sparsebert.kernels.tiled import tile_matrix
from sparsebert.models.accelerate import _choice
from sparsebert.models.sparse_linear import SparseLinear
from sparsebert.models.sparse_output import Postponed, SparseOutput
from test_fff import needs_native
from test_sparse_linear import CHAINS, FORMS
from test_tiles import TILED, half_matrix, norm_of

NEAR = {"rtol": 0.02, "atol": 0.02}


def layers_of(sizes: tuple[int, int, int], height: int, density: float) -> list[SparseLayer]:
    inputs, between, outputs = sizes
    first, last = half_matrix(between, inputs, density), half_matrix(outputs, between, density, seed=1)
    return [
        SparseLayer(tile_matrix(first, height), torch.randn(between), "gelu"),
        SparseLayer(tile_matrix(last, height), torch.randn(outputs), "relu"),
    ]


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("density", [0.0, 0.3])
@pytest.mark.parametrize("height", FORMS)
@pytest.mark.parametrize("isa", TILED)
@pytest.mark.parametrize("sizes", CHAINS)
def test_a_chain_is_its_layers(
    sizes: tuple[int, int, int, int], isa: str, height: int, density: float, dtype: torch.dtype
):
    tokens, *wide = sizes
    torch.manual_seed(0)
    layers, x = layers_of((wide[0], wide[1], wide[2]), height, density), torch.randn(tokens, wide[0]).to(dtype)
    norm = norm_of(tokens, wide[2], dtype)
    found = native_tile_linear.chain(x, layers, norm, isa)
    between = native_tile_linear.chain(x, layers[:1], None, isa)
    assert found.dtype == dtype and torch.equal(found, native_tile_linear.chain(between, layers[1:], norm, isa))


@settings(max_examples=30, deadline=None)
@given(*[st.integers(1, 150) for _ in range(4)], st.integers(2, 4), st.sampled_from(FORMS), st.sampled_from(TILED))
@needs_native
def test_threads_change_nothing(
    tokens: int, inputs: int, between: int, outputs: int, threads: int, height: int, isa: str
):
    layers, x = layers_of((inputs, between, outputs), height, 0.3), torch.randn(tokens, inputs).bfloat16()
    norm = norm_of(tokens, outputs, x.dtype)
    before, one = torch.get_num_threads(), native_tile_linear.chain(x, layers, norm, isa)
    try:
        torch.set_num_threads(threads)
        assert torch.equal(native_tile_linear.chain(x, layers, norm, isa), one)
    finally:
        torch.set_num_threads(before)


@needs_native
def test_layers_that_do_not_fit_are_refused():
    x, weight = torch.ones(4, 64), torch.ones(32, 64)
    tiled, packed = SparseLayer(tile_matrix(weight, 32), None), SparseLayer(pack_matrix(weight, 32), None)
    with pytest.raises(ValueError, match=r"must be \[tokens, 64\], got \(0, 32\)"):
        native_tile_linear.chain(x, [tiled, tiled], None, native.EMULATED)
    with pytest.raises(ValueError, match="must be a TiledMatrix, got a PackedMatrix"):
        native_tile_linear.chain(x, [packed], None, native.EMULATED)
    with pytest.raises(ValueError, match="must be a PackedMatrix, got a TiledMatrix"):
        native_linear.chain(x, [tiled], None, "portable")


@needs_native
@pytest.mark.parametrize("isa", TILED)
@pytest.mark.parametrize("height", HEIGHTS)
def test_a_feedforward_block_is_one_call(height: int, isa: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(native.FORCE, isa)
    torch.manual_seed(0)
    up = nn.Linear(48, 70).bfloat16()
    end = BertOutput(BertConfig(hidden_size=48, intermediate_size=70)).bfloat16().eval()
    with torch.no_grad():
        up.weight.copy_(half_matrix(70, 48, 0.3))
        end.dense.weight.copy_(half_matrix(48, 70, 0.3))
    x, residual = torch.randn(2, 9, 48).bfloat16(), torch.randn(2, 9, 48).bfloat16()

    def expected() -> torch.Tensor:
        return end(F.gelu(up(x)), residual)

    first, calls = Postponed(SparseLinear(up, height, "gelu")).eval(), []
    last = SparseLinear(end.dense, height)
    joined = SparseOutput(_with(end, last), first).eval()
    last.register_forward_hook(lambda *_: calls.append(1))
    compiled = torch.compile(joined, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        found = joined(first(x), residual)
        assert not calls
        torch.testing.assert_close(found, expected(), **NEAR)
        assert torch.equal(compiled(x, residual), found)
        monkeypatch.setenv(native.FORCE, native.NONE)
        torch.testing.assert_close(compiled(x, residual), found, **NEAR)
        torch.testing.assert_close(joined(first(x), residual), expected(), **NEAR)
        assert calls
        monkeypatch.setenv(native.FORCE, isa)
        up.weight.mul_(-2)
        with pytest.warns(UserWarning, match="runs dense"):
            torch.testing.assert_close(compiled(x, residual), expected(), **NEAR)
        torch.testing.assert_close(joined(first(x), residual), expected(), **NEAR)
        # As for plain modules.
        with pytest.raises(RuntimeError, match="mixed dtype"):
            joined(first(x), residual.float())


def _with(end: nn.Module, dense: SparseLinear) -> nn.Module:
    made = BertOutput(BertConfig(hidden_size=48, intermediate_size=70)).bfloat16()
    made.LayerNorm, made.dense = end.LayerNorm, dense
    return made


@needs_native
def test_the_operator_takes_tiles():
    torch.manual_seed(0)
    x, residual, beta = torch.randn(3, 64).bfloat16(), torch.randn(3, 32).bfloat16(), torch.zeros(32).bfloat16()
    tiled = tile_matrix(half_matrix(32, 64, 0.5), 32)
    tensors = [tiled.values, tiled.starts, tiled.columns, torch.zeros(32).bfloat16()]
    arguments = (x, tensors, [32, 32, 2], residual, beta + 1, beta, 1e-12, [], [])
    for test in ("test_schema", "test_faketensor"):
        torch.library.opcheck(operators.chain_operator, arguments, test_utils=test)


def test_blocks_are_chosen_where_single_values_gain_as_much():
    assert _choice({32: 3.0, 16: 2.0, 0: 3.5}, True, 1.05) == (32, 3.0)
    assert _choice({32: 3.0, 16: 2.0, 0: 3.7}, True, 1.05) == (0, 3.7)
    # A query's matrix has no such neighbour; and blocks must be worth it themselves.
    assert _choice({32: 3.0, 16: 2.0, 0: 3.5}, False, 1.05) == (0, 3.5)
    assert _choice({32: 1.0, 16: 0.9, 0: 1.1}, True, 1.05) == (0, 1.1)
    assert _choice({32: 1.0, 16: 0.9}, True, 1.05) == (None, 1.0) == _choice({}, True, 1.05)

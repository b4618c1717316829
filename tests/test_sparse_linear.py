"""Sparse linear layers: packing by hand, the kernels against fp64, and models that use them."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertOutput

from sparsebert.kernels import native, native_linear, operators
from sparsebert.kernels.native_linear import ResidualNorm, SparseLayer
from sparsebert.kernels.packed import HEIGHTS, SINGLE, pack_matrix, unpack_matrix
from sparsebert.models.sparse_linear import SparseLinear
from sparsebert.models.sparse_output import Postponed, SparseOutput
from test_fff import BUILT, HAVE, needs_native, worst

FORMS = (*HEIGHTS, SINGLE)
# Tokens, inputs, outputs: one token, none, sizes that no block or register divides, several panels.
SHAPES = ((1, 64, 32), (0, 32, 32), (7, 33, 5), (13, 100, 77), (130, 96, 160), (64, 1, 1), (29, 70, 48))
ACTIVATIONS = {"none": lambda x: x, "gelu": F.gelu, "relu": F.relu}


def matrix(outputs: int, inputs: int, density: float, seed: int = 0) -> torch.Tensor:
    """Random values, of which whole 16 x 16 tiles and single ones are zero."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    tiles = torch.rand(-(-outputs // 16), -(-inputs // 16), generator=generator) < density
    single = torch.rand(outputs, inputs, generator=generator) < max(density, 0.5 * density + 0.3)
    return weight * single * tiles.repeat_interleave(16, 0).repeat_interleave(16, 1)[:outputs, :inputs]


def test_packing_by_hand():
    weight = torch.zeros(40, 64)
    weight[1, 2], weight[39, 63] = 5.0, 7.0
    blocks = pack_matrix(weight, 32)
    assert blocks.starts.tolist() == [0, 1, 2] and blocks.columns.tolist() == [0, 1]
    assert blocks.values[0, 2, 1] == 5 and blocks.values[1, 31, 7] == 7 and blocks.values.count_nonzero() == 2
    assert blocks.density == 2 * 1024 / 2560
    single = pack_matrix(weight, SINGLE)
    assert single.values.tolist() == [5.0, 7.0] and single.columns.tolist() == [2, 63]
    assert single.starts.tolist() == [0, 0, *[1] * 38, 2]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.floats(0, 1), st.sampled_from(FORMS))
def test_packing_loses_nothing(outputs: int, inputs: int, density: float, height: int):
    weight = matrix(outputs, inputs, density, seed=outputs)
    assert torch.equal(unpack_matrix(pack_matrix(weight, height)), weight)


@needs_native
@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("height", FORMS)
@pytest.mark.parametrize("isa", HAVE)
@pytest.mark.parametrize("shape", SHAPES)
def test_native_is_as_exact_as_torch(shape: tuple[int, int, int], isa: str, height: int, density: float):
    # Memory that nobody has written is NaN in this mode of torch.
    assert torch.are_deterministic_algorithms_enabled()
    tokens, inputs, outputs = shape
    torch.manual_seed(0)
    weight, x, shift = matrix(outputs, inputs, density), torch.randn(tokens, inputs), torch.randn(outputs)
    for bias in (shift, None):
        for name, activation in ACTIVATIONS.items():
            wide = None if bias is None else bias.double()
            expected = activation(F.linear(x.double(), weight.double(), wide))
            plain = activation(F.linear(x, weight, bias))
            found = native_linear.linear(x, pack_matrix(weight, height), bias, name, isa)
            scale = max(1.0, float(expected.abs().max())) if tokens else 1.0
            assert found.shape == plain.shape
            assert worst(found, expected) <= 2 * worst(plain, expected) + 4e-7 * scale
            if height == SINGLE:
                rounded = x.bfloat16()
                half = native_linear.linear(rounded, pack_matrix(weight, height), bias, name, isa)
                whole = native_linear.linear(rounded.float(), pack_matrix(weight, height), bias, name, isa)
                assert half.dtype == torch.bfloat16 and torch.equal(half, whole.bfloat16())


# Tokens, inputs, values between, outputs; the last is the size of the residual.
CHAINS = ((1, 64, 96, 64), (0, 32, 32, 32), (7, 33, 70, 5), (61, 100, 48, 100), (30, 32, 1024, 77), (13, 1024, 16, 64))


@needs_native
@pytest.mark.parametrize("density", [0.0, 0.3])
@pytest.mark.parametrize("height", HEIGHTS)
@pytest.mark.parametrize("isa", HAVE)
@pytest.mark.parametrize("sizes", CHAINS)
def test_a_chain_is_as_exact_as_torch(sizes: tuple[int, int, int, int], isa: str, height: int, density: float):
    tokens, inputs, between, outputs = sizes
    torch.manual_seed(0)
    weights = matrix(between, inputs, density), matrix(outputs, between, density, seed=1)
    x, residual, shift = torch.randn(tokens, inputs), torch.randn(tokens, outputs), torch.randn(between)
    gamma, beta = torch.randn(outputs), torch.randn(outputs)

    def plain(kind: torch.dtype) -> torch.Tensor:
        given = [tensor.to(kind) for tensor in (x, *weights, shift, residual, gamma, beta)]
        h = F.gelu(F.linear(given[0], given[1], given[3]))
        return F.layer_norm(F.linear(h, given[2]) + given[4], (outputs,), given[5], given[6], 1e-12)

    layers = [
        SparseLayer(pack_matrix(weights[0], height), shift, "gelu"),
        SparseLayer(pack_matrix(weights[1], height), None),
    ]
    found = native_linear.chain(x, layers, ResidualNorm(residual, gamma, beta, 1e-12), isa)
    assert found.shape == residual.shape
    expected = plain(torch.float64)
    scale = max(1.0, float(expected.abs().max())) if tokens else 1.0
    assert worst(found, expected) <= 2 * worst(plain(torch.float32), expected) + 4e-7 * scale
    without = native_linear.chain(x, layers, None, isa)
    torch.testing.assert_close(
        F.layer_norm(without + residual, (outputs,), gamma, beta, 1e-12), found, rtol=1e-4, atol=1e-5
    )


@needs_native
def test_a_chain_that_does_not_fit_is_refused():
    x, blocks, narrow = torch.ones(4, 64), pack_matrix(torch.ones(64, 64), 32), pack_matrix(torch.ones(32, 64), 32)
    norm = ResidualNorm(torch.ones(4, 64), torch.ones(64), torch.ones(64), 1e-5)
    bad = {
        r"must be \[tokens, 64\], got \(0, 32\)": ([narrow, blocks], norm),
        "not of single values": ([pack_matrix(torch.ones(64, 64), SINGLE)], norm),
        r"the residual must be \[4, 64\]": ([blocks], replace(norm, residual=torch.ones(3, 64))),
        r"gamma and beta \[64\]": ([blocks], replace(norm, beta=torch.ones(3))),
        "everything must be float32": ([blocks], replace(norm, gamma=torch.ones(64).double())),
        "contiguous": ([blocks], replace(norm, residual=torch.ones(64, 4).t())),
    }
    for said, (weights, end) in bad.items():
        with pytest.raises(ValueError, match=said):
            native_linear.chain(x, [SparseLayer(weight, None) for weight in weights], end, HAVE[-1])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 150), st.integers(1, 70), st.integers(1, 70), st.integers(2, 4), st.sampled_from(FORMS))
@needs_native
def test_threads_change_nothing(tokens: int, inputs: int, outputs: int, threads: int, height: int):
    torch.manual_seed(0)
    packed, x = pack_matrix(matrix(outputs, inputs, 0.4), height), torch.randn(tokens, inputs)
    norm = ResidualNorm(torch.randn(tokens, outputs), torch.randn(outputs), torch.randn(outputs), 1e-5)

    def computed() -> list[torch.Tensor]:
        found = [native_linear.linear(x, packed, None, "gelu", HAVE[-1])]
        if height != SINGLE:
            found.append(native_linear.chain(x, [SparseLayer(packed, None)], norm, HAVE[-1]))
        return found

    before, alone = torch.get_num_threads(), computed()
    try:
        torch.set_num_threads(threads)
        assert all(torch.equal(found, one) for found, one in zip(computed(), alone, strict=True))
    finally:
        torch.set_num_threads(before)


@needs_native
@pytest.mark.parametrize("height", FORMS)
def test_what_is_not_a_number_stays_so(height: int):
    x = torch.ones(20, 64)
    x[3, 40] = torch.nan
    y = native_linear.linear(x, pack_matrix(torch.ones(32, 64), height), None, "gelu", HAVE[-1])
    assert y.isnan().all(dim=1).nonzero().flatten().tolist() == [3]


@needs_native
def test_tensors_that_do_not_fit_are_refused():
    packed, x = pack_matrix(torch.ones(64, 64), 32), torch.ones(4, 64)
    bad = {
        r"must be \[tokens, 64\], got \(4, 32\)": (x[:, :32].contiguous(), packed, None),
        r"bias must be \[64\], got \(3,\)": (x, packed, torch.ones(3)),
        "everything must be float32": (x.double(), packed, None),
        "contiguous and on the CPU": (torch.ones(64, 4).t(), packed, None),
        "32 or 16 outputs, got 8": (x, replace(packed, height=8), None),
        "do not fit together": (x, replace(packed, starts=packed.starts[:2]), None),
        "must be int32": (x, replace(packed, columns=packed.columns.long()), None),
        "must be float32 or bfloat16, got torch.float16": (x.half(), pack_matrix(torch.ones(64, 64), SINGLE), None),
        "must be float32, got torch.bfloat16": (x.bfloat16(), packed, None),
    }
    for said, arguments in bad.items():
        with pytest.raises(ValueError, match=said):
            native_linear.linear(*arguments, "none", HAVE[-1])


@pytest.mark.parametrize("height", FORMS)
def test_a_layer_gives_what_the_dense_one_does(height: int):
    torch.manual_seed(0)
    dense, x = nn.Linear(70, 40), torch.randn(2, 9, 70)
    with torch.no_grad():
        dense.weight.copy_(matrix(40, 70, 0.3))
    layer = SparseLinear(dense, height).eval()
    assert layer.weight is dense.weight and list(layer.state_dict()) == ["weight", "bias"]
    assert layer.backend == (f"native {HAVE[-1]}" if BUILT else "dense")
    with torch.no_grad():
        torch.testing.assert_close(layer(x), dense(x))
        dense.weight.mul_(2)
        torch.testing.assert_close(layer(x), dense(x))
        layer.load_state_dict(nn.Linear(70, 40).state_dict())
        torch.testing.assert_close(layer(x), dense(x))
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    half = copy.deepcopy(layer).to(torch.bfloat16)
    takes = BUILT and (height == SINGLE or HAVE[-1] in native.TILED)
    assert half.backend == (f"native {HAVE[-1]}" if takes else "dense")
    with torch.no_grad():
        torch.testing.assert_close(half(x.bfloat16()).float(), dense(x), rtol=0.05, atol=0.05)


def test_a_layer_notices_every_other_weight(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    dense, x = nn.Linear(64, 64), torch.randn(3, 64)
    layer = SparseLinear(dense, 32).eval()
    with torch.no_grad():
        for _ in range(3):
            # Two in a row: the second may lie where the packed one was.
            layer.weight.data = torch.randn(64, 64)
            layer.weight.data = torch.randn(64, 64)
            torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-4, atol=1e-4)
        layer.weight.data = torch.randn(64, 64)
        monkeypatch.setattr("sparsebert.kernels.dispatch.pack_matrix", lambda *_: 1 / 0)
        if BUILT:
            with pytest.raises(ZeroDivisionError):
                layer(x)
        monkeypatch.undo()
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-4, atol=1e-4)
        parametrize.register_parametrization(layer, "weight", Times())
        for factor in (2.0, 3.0):
            layer.parametrizations.weight[0].factor = factor
            torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-4, atol=1e-4)


@needs_native
@pytest.mark.parametrize("height", FORMS)
def test_a_compiled_layer_notices_that_weights_changed(height: int):
    layer, x = SparseLinear(nn.Linear(32, 40), height, "gelu").eval(), torch.randn(3, 32)
    other = SparseLinear(nn.Linear(32, 40), height, "gelu").eval()
    other.load_state_dict(layer.state_dict())
    for module in (layer, other):
        compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
        with torch.no_grad(), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.testing.assert_close(compiled(x), F.gelu(F.linear(x, module.weight, module.bias)))
            assert bool(said) == (module is other)
            module.weight.mul_(-2)
            torch.testing.assert_close(compiled(x), F.gelu(F.linear(x, module.weight, module.bias)))
            assert "A compiled graph runs dense: weights changed" in str(said[-1].message)
            said.clear()
            module(x)
            torch.testing.assert_close(compiled(x), F.gelu(F.linear(x, module.weight, module.bias)))
            assert not said


@needs_native
@pytest.mark.filterwarnings("ignore:A compiled graph runs dense")
def test_a_compiled_chain_notices_that_weights_changed():
    end = BertOutput(BertConfig(hidden_size=32, intermediate_size=64)).eval()
    end.dense = SparseLinear(end.dense, 32)
    first = Postponed(SparseLinear(nn.Linear(32, 64), 32, "gelu")).eval()
    joined, x, residual = SparseOutput(end, first).eval(), torch.randn(3, 32), torch.randn(3, 32)
    compiled = torch.compile(joined, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, residual), joined(x, residual))
        before = joined(x, residual)
        first.dense.weight.mul_(-2)
        found = compiled(x, residual)
        assert not torch.allclose(found, before)
        torch.testing.assert_close(found, joined(x, residual))


@needs_native
@pytest.mark.parametrize("height", FORMS)
def test_writes_that_torch_does_not_count_need_repacking(height: int):
    layer, x = SparseLinear(nn.Linear(32, 40), height).eval(), torch.randn(3, 32)
    with torch.no_grad():
        layer.weight.data.mul_(2)
        layer.repack()
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


class Times(nn.Module):
    """A parametrization."""

    factor = 1.0

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.factor


def test_a_layer_compiles_to_one_graph():
    layer, x = SparseLinear(nn.Linear(32, 32), 32, "gelu").eval(), torch.randn(3, 32)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layer(x))
    if BUILT:
        single = SparseLinear(nn.Linear(32, 32).bfloat16(), SINGLE).eval()
        half = torch.compile(single, backend="aot_eager", fullgraph=True)
        with torch.no_grad():
            assert torch.equal(half(x.bfloat16()), single(x.bfloat16()))
        packed = layer.packed()
        arguments = (x, packed.values, packed.starts, packed.columns, None, 32, 32, "relu", None, None)
        for test in ("test_schema", "test_faketensor"):
            torch.library.opcheck(operators.linear_operator, arguments, test_utils=test)


@needs_native
def test_flops_are_of_what_is_stored():
    dense = nn.Linear(64, 64)
    with torch.no_grad():
        dense.weight[32:] = 0
    layer = SparseLinear(dense, 32).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer(torch.ones(3, 64))
    assert counter.get_total_flops() == 2 * 3 * 2 * 32 * 32


@needs_native
def test_a_chain_compiles_to_one_graph_and_counts_what_is_stored():
    end = BertOutput(BertConfig(hidden_size=32, intermediate_size=64)).eval()
    end.dense = SparseLinear(end.dense, 32)
    first = Postponed(SparseLinear(nn.Linear(32, 64), 32, "gelu"))
    joined, x, residual = SparseOutput(end, first).eval(), torch.randn(3, 32), torch.randn(3, 32)
    first.eval()
    compiled = torch.compile(joined, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, residual), joined(x, residual))
        with FlopCounterMode(display=False) as counter:
            joined(x, residual)
    assert counter.get_total_flops() == 2 * 3 * 2 * 32 * 64
    packed = joined.dense.packed()
    tensors, norm = [packed.values, packed.starts, packed.columns, torch.zeros(32)], joined.LayerNorm
    arguments = (
        torch.randn(3, 64),
        tensors,
        [32, 32, 2],
        residual,
        norm.weight.detach(),
        norm.bias.detach(),
        1e-12,
        [],
        [],
    )
    for test in ("test_schema", "test_faketensor"):
        torch.library.opcheck(operators.chain_operator, arguments, test_utils=test)

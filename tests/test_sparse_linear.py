"""Sparse linear layers: packing by hand, the kernels against fp64, and models that use them."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from sparsebert.kernels import dispatch, native, native_linear
from sparsebert.kernels.packed import HEIGHTS, SINGLE, pack_matrix, unpack_matrix
from sparsebert.models.accelerate import accelerate, sparse_layers
from sparsebert.models.layout import layout_of
from sparsebert.models.sparse_linear import SparseLinear
from test_fff import BUILT, HAVE, needs_native, worst
from tiny import FAMILIES, LAYERS, tiny_batch, tiny_model

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


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 150), st.integers(1, 70), st.integers(1, 70), st.integers(2, 4), st.sampled_from(FORMS))
@needs_native
def test_threads_change_nothing(tokens: int, inputs: int, outputs: int, threads: int, height: int):
    packed, x = pack_matrix(matrix(outputs, inputs, 0.4), height), torch.ones(tokens, inputs)
    before, one = torch.get_num_threads(), native_linear.linear(x, packed, None, "gelu", HAVE[-1])
    try:
        torch.set_num_threads(threads)
        assert torch.equal(native_linear.linear(x, packed, None, "gelu", HAVE[-1]), one)
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
    with torch.no_grad():
        torch.testing.assert_close(half(x.bfloat16()).float(), dense(x), rtol=0.05, atol=0.05)


def test_a_layer_compiles_to_one_graph():
    layer, x = SparseLinear(nn.Linear(32, 32), 32, "gelu").eval(), torch.randn(3, 32)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layer(x))
    if BUILT:
        packed = layer.packed()
        arguments = (x, packed.values, packed.starts, packed.columns, None, 32, 32, "relu")
        for test in ("test_schema", "test_faketensor"):
            torch.library.opcheck(dispatch._linear_operator, arguments, test_utils=test)


@needs_native
def test_flops_are_of_what_is_stored():
    dense = nn.Linear(64, 64)
    with torch.no_grad():
        dense.weight[32:] = 0
    layer = SparseLinear(dense, 32).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer(torch.ones(3, 64))
    assert counter.get_total_flops() == 2 * 3 * 2 * 32 * 32


def zeroed(family: str) -> PreTrainedModel:
    """A tiny model whose encoder matrices have many zeros."""
    model = tiny_model(family)
    with torch.no_grad():
        for layer in layout_of(model).layers:
            for linear in (m for m in model.get_submodule(layer.path).modules() if isinstance(m, nn.Linear)):
                linear.weight.mul_(torch.rand(linear.weight.shape) < 0.4)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_an_accelerated_model_gives_the_same_and_saves_the_same(family: str, tmp_path: Path):
    model, batch = zeroed(family), tiny_batch()
    fast = accelerate(model, tokens=36, worth=0)
    layers = sparse_layers(fast)
    if not BUILT:
        assert not layers
        return
    assert len(layers) >= 4 * LAYERS and all(layer.pattern == "single" and layer.gain for layer in layers.values())
    assert not sparse_layers(model)
    assert next(fast.parameters()) is next(model.parameters())
    with torch.no_grad():
        torch.testing.assert_close(fast(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-5)
    fused = [layer for layer in layers.values() if layer.activation == "gelu"]
    assert len(fused) == (0 if family == "modernbert" else LAYERS)
    assert fast.state_dict().keys() == model.state_dict().keys()
    fast.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model(**batch).logits)


def test_only_what_gains_is_replaced():
    model = zeroed("bert")
    assert not sparse_layers(accelerate(model, tokens=4, worth=1e6))
    assert not sparse_layers(accelerate(tiny_model("bert"), tokens=4, worth=0))
    assert not sparse_layers(accelerate(model.to(torch.bfloat16), tokens=4, worth=0))


@needs_native
def test_without_the_kernels_a_model_stays_as_it_is(monkeypatch: pytest.MonkeyPatch):
    model, batch = zeroed("bert"), tiny_batch()
    fast = accelerate(model, tokens=4, worth=0)
    monkeypatch.setenv(native.FORCE, native.NONE)
    assert not sparse_layers(accelerate(model, tokens=4, worth=0))
    assert {layer.backend for layer in sparse_layers(fast).values()} == {"dense"}
    with torch.no_grad():
        torch.testing.assert_close(fast(**batch).logits, model(**batch).logits)

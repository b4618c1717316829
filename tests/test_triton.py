"""The GPU kernels, run by Triton's interpreter (see conftest.py): what they compute, not how fast."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sparsebert.kernels import reference
from sparsebert.kernels.packed import HEIGHTS, SINGLE, pack_matrix
from test_fff import exact, tensors, worst
from test_sparse_linear import ACTIVATIONS, matrix

pytest.importorskip("triton", reason="Triton is installed only on x86-64 Linux")
triton_fff = pytest.importorskip("sparsebert.kernels.triton_fff")
triton_linear = pytest.importorskip("sparsebert.kernels.triton_linear")

# Tokens, hidden, trees, depth: walking below 64 tokens, else one stage, two, and a last one of a single level.
SHAPES = (
    (0, 32, 1, 3),
    (1, 20, 2, 3),
    (5, 33, 1, 7),
    (130, 48, 2, 3),
    (200, 70, 1, 6),
    (90, 16, 1, 11),
    (70, 33, 1, 0),
)


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("shape", SHAPES)
def test_fff_is_as_exact_as_torch(shape: tuple[int, ...], activation: str):
    x, w_in, b_in, w_out = tensors(*shape)
    visited, _ = reference.fff_route(x, w_in, b_in)
    expected = exact(x, w_in, b_in, w_out, activation, visited)
    plain = reference.fff(x, w_in, b_in, w_out, activation)
    found = triton_fff.fff(x, w_in, b_in, w_out, activation)
    scale = float(expected.abs().max()) if len(x) else 1.0
    assert found.shape == x.shape
    assert worst(found, expected) <= 2 * worst(plain, expected) + 4e-7 * scale


@pytest.mark.parametrize("tokens", [5, 100])
def test_fff_in_half_precision(tokens: int):
    # The interpreter cannot multiply bfloat16.
    x, w_in, b_in, w_out = tensors(tokens, 32, 1, 6)
    half = [tensor.half() for tensor in (x, w_in, b_in, w_out)]
    visited, logits = reference.fff_route(half[0].float(), half[1].float(), half[2].float())
    found = triton_fff.fff(*half, "gelu")
    assert found.dtype == torch.float16
    expected = exact(*half, "gelu", visited)
    sure = (logits.abs() > 1e-3).all(dim=-1)[0]
    torch.testing.assert_close(found[sure].double(), expected[sure], rtol=0.01, atol=0.02)


@pytest.mark.parametrize("tokens", [3, 80])
def test_tensors_that_do_not_fit_are_refused(tokens: int):
    x, w_in, b_in, w_out = tensors(tokens, 16, 1, 2)
    bad = {
        "input must be \\[tokens, 16\\]": (torch.randn(tokens, 64), w_in, b_in, w_out),
        "2\\^\\(depth": (x, w_in[:, :6].contiguous(), b_in[:, :6].contiguous(), w_out[:, :6].contiguous()),
        "shapes do not fit": (x, w_in, b_in[:, :3].contiguous(), w_out),
        "of one type": (x.half(), w_in, b_in, w_out),
        "contiguous": (x.t().contiguous().t(), w_in, b_in, w_out),
    }
    for said, given in bad.items():
        with pytest.raises(ValueError, match=said):
            triton_fff.fff(*given, "gelu")
    packed = pack_matrix(matrix(32, 64, 0.5), 32)
    for said, x in {
        "\\[tokens, 64\\]": torch.randn(tokens, 32),
        "float32, got": torch.randn(tokens, 64).half(),
    }.items():
        with pytest.raises(ValueError, match=said):
            triton_linear.linear(x, packed, None, "none")
    with pytest.raises(ValueError, match="the bias must be"):
        triton_linear.linear(torch.randn(tokens, 64), packed, torch.zeros(3), "none")
    with pytest.raises(ValueError, match="contiguous"):
        triton_linear.linear(torch.randn(64, tokens).t(), packed, None, "none")


@pytest.mark.parametrize("tokens", [3, 80])
def test_what_is_not_a_number_stays_with_its_token(tokens: int):
    x, w_in, b_in, w_out = tensors(tokens, 16, 1, 4)
    x[1, 3] = torch.nan
    found = triton_fff.fff(x, w_in, b_in, w_out, "gelu")
    assert found.isnan().all(dim=1).nonzero().flatten().tolist() == [1]


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("height", HEIGHTS)
@pytest.mark.parametrize("shape", [(0, 32, 32), (1, 64, 48), (70, 33, 5), (130, 100, 77)])
def test_blocks_are_as_exact_as_torch(shape: tuple[int, int, int], height: int, density: float):
    tokens, inputs, outputs = shape
    torch.manual_seed(0)
    weight, x, shift = matrix(outputs, inputs, density), torch.randn(tokens, inputs), torch.randn(outputs)
    for name, activation in ACTIVATIONS.items():
        for bias in (shift, None):
            wide = None if bias is None else bias.double()
            expected = activation(F.linear(x.double(), weight.double(), wide))
            plain = activation(F.linear(x, weight, bias))
            found = triton_linear.linear(x, pack_matrix(weight, height), bias, name)
            scale = max(1.0, float(expected.abs().max())) if tokens else 1.0
            assert worst(found, expected) <= 2 * worst(plain, expected) + 4e-7 * scale


def test_single_values_are_refused():
    with pytest.raises(ValueError, match="no kernel for single values"):
        triton_linear.linear(torch.ones(1, 4), pack_matrix(torch.ones(4, 4), SINGLE), None, "none")

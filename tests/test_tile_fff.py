"""Trees on bf16 tiles: packing by hand, and everything against fp64, emulated where the processor has no tiles."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsebert.fast_feedforward.layer import FastFeedForward
from sparsebert.kernels import (
    dispatch,
    native,
    native_tile_fff,
    reference,
)
from sparsebert.kernels.tiled import _subtrees, stages_of, tile_tree
from test_fff import HAVE, exact, needs_native, tensors, worst

STAGED = (native.EMULATED, *(isa for isa in HAVE if isa in native.SPREADING))


def test_a_tree_by_hand():
    # Thirteen levels go 5, 4, 4: subtree 3 of the second stage begins at node 31 + 3, and has 69 and 70 below it.
    assert stages_of(13) == [5, 4, 4] and stages_of(12) == [6, 6] and stages_of(1) == [1]
    rows = torch.arange(2**13 - 1.0).view(1, -1, 1)
    into, out = (_subtrees(weight) for weight in (rows, rows))
    assert [part.shape for part in into] == [(1, 1, 31, 1), (1, 32, 15, 1), (1, 512, 15, 1)]
    assert into[1][0, 3, :4, 0].tolist() == [34, 69, 70, 139] and torch.equal(into[2], out[2])
    made = tile_tree(rows[:, :7].bfloat16(), -rows[:, :7].bfloat16())
    assert made.w_in.shape == made.w_out.shape == (1, 1024)
    # Of the one input: first of a pair. Of the one output: pairs of nodes.
    assert made.w_in.view(2, 16, 16, 2)[0, 0, :8, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 0]
    assert made.w_out.view(2, 16, 16, 2)[0, :4, 0].flatten().tolist() == [0, -1, -2, -3, -4, -5, -6, 0]


TREES = ((0, 32, 1, 3), (1, 40, 1, 11), (1, 1, 1, 0), (7, 33, 3, 4), (64, 7, 2, 0), (300, 48, 2, 6), (77, 130, 3, 2))


@needs_native
@pytest.mark.parametrize("isa", STAGED)
@pytest.mark.parametrize("shape", [*TREES, (500, 64, 1, 11), (200, 16, 1, 12)])
def test_stages_are_as_exact_as_torch(shape: tuple[int, ...], isa: str):
    x, w_in, b_in, w_out = (tensor.bfloat16() for tensor in tensors(*shape))
    tiles = tile_tree(w_in, w_out)
    for activation in reference.ACTIVATIONS:
        y, visited, logits = native_tile_fff.fff(x, tiles, b_in.float(), activation, isa)
        for tree in range(len(w_in)):
            node = visited[tree].long()
            exact_logits = (x.double()[:, None] * w_in[tree].double()[node]).sum(-1) + b_in[tree].double()[node]
            torch.testing.assert_close(logits[tree].double(), exact_logits, rtol=1e-5, atol=1e-6)
        assert not visited[..., 0].any()
        assert torch.equal(visited[..., 1:], (2 * visited + 1 + (logits > 0))[..., :-1])
        expected = exact(x, w_in, b_in, w_out, activation, visited)
        plain = along(x, w_in, b_in, w_out, activation, visited)
        assert worst(y, expected) <= 2 * worst(plain, expected) + 4e-7
        scale = float(expected.abs().max()) if len(x) else 1.0
        assert worst(y, expected) <= 0.01 * scale


def along(x, w_in, b_in, w_out, activation, visited) -> torch.Tensor:
    """In torch, in the type of the tensors, along given paths."""
    y = torch.zeros_like(x)
    for tree in range(len(w_in)):
        for level in range(visited.shape[-1]):
            node = visited[tree, :, level].long()
            logits = torch.einsum("th,th->t", x, w_in[tree][node]) + b_in[tree][node]
            y += reference.ACTIVATIONS[activation](logits)[:, None] * w_out[tree][node]
    return y


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 90), st.integers(1, 70), st.integers(1, 3), st.integers(0, 8), st.integers(2, 4))
@needs_native
def test_threads_do_not_change_stages(tokens: int, hidden: int, trees: int, depth: int, threads: int):
    x, w_in, b_in, w_out = tensors(tokens, hidden, trees, depth, seed=tokens)
    given_tensors = (x.bfloat16(), tile_tree(w_in.bfloat16(), w_out.bfloat16()), b_in, "gelu", STAGED[-1])
    before, one = torch.get_num_threads(), native_tile_fff.fff(*given_tensors)
    try:
        torch.set_num_threads(threads)
        several = native_tile_fff.fff(*given_tensors)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(one, several, strict=True))


@needs_native
def test_a_tree_in_bf16_goes_by_stages_for_many_tokens(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(native.FORCE, native.EMULATED)
    torch.manual_seed(0)
    layer, x = FastFeedForward(24, 7).bfloat16().eval(), torch.randn(2, 40, 24).bfloat16()
    assert layer.backend == "native emulated"
    flat = x.flatten(0, 1)
    assert [dispatch._goes_by_stages(flat[:count], layer.w_in) for count in (63, 64)] == [False, True]
    assert not dispatch._goes_by_stages(flat.float(), layer.w_in)
    with torch.no_grad():
        found, packed = layer(x), layer._cache._tiles
        assert packed is not None
        monkeypatch.setattr(dispatch, "_goes_by_stages", lambda *_: False)
        near = {"rtol": 0.02, "atol": 0.02}
        torch.testing.assert_close(found, layer(x), **near)
        monkeypatch.undo()
        monkeypatch.setenv(native.FORCE, native.EMULATED)
        assert torch.equal(layer(x), found) and layer._cache._tiles is packed
        layer.w_out.mul_(2)
        torch.testing.assert_close(layer(x), 2 * found, **near)
        layer.w_out.data.mul_(2)
        layer.repack()
        torch.testing.assert_close(layer(x), 4 * found, **near)
        x[1, 3, 5] = torch.nan
        assert layer(x).isnan().all(dim=-1).nonzero().tolist() == [[1, 3]]
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), layer(x), **near, equal_nan=True)


@needs_native
def test_trees_that_do_not_fit_are_refused():
    x, w_in, b_in, w_out = tensors(4, 8, 1, 2)
    tree, half = tile_tree(w_in.bfloat16(), w_out.bfloat16()), x.bfloat16()
    bad = {
        r"must be \[tokens, 8\], got \(4, 4\)": (half[:, :4].contiguous(), tree, b_in),
        r"bias must be \[1, 7\], got \(1, 3\)": (half, tree, b_in[:, :3].contiguous()),
        "inputs and weights must be bfloat16": (x, tree, b_in),
        "bias must be float32": (half, tree, b_in.bfloat16()),
        "contiguous": (half.t().contiguous().t(), tree, b_in),
    }
    for said, arguments in bad.items():
        with pytest.raises(ValueError, match=said):
            native_tile_fff.fff(*arguments, "gelu", native.EMULATED)
    with pytest.raises(RuntimeError, match="refused the instruction set avx512"):
        native_tile_fff.fff(half, tree, b_in, "gelu", "avx512")

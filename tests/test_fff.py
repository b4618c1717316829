"""Fast feedforward layers: by hand, training against evaluation, and every kernel against fp64."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsebert.errors import UserError
from sparsebert.fast_feedforward.layer import FastFeedForward, Routing
from sparsebert.kernels import native, native_fff, operators, reference

ROOT = Path(__file__).parents[1]
BUILT = native.isa() is not None
HAVE = native.ISAS[: native.ISAS.index(native.isa() or "portable") + 1] if BUILT else ()
needs_native = pytest.mark.skipif(not BUILT, reason="the native library was not built: no C++ compiler, or not x86-64")
SHAPES = ((0, 32, 1, 3), (1, 768, 1, 11), (1, 1, 1, 0), (7, 33, 3, 4), (64, 7, 2, 0), (300, 48, 2, 6), (77, 130, 5, 2))


def tensors(tokens: int, hidden: int, trees: int, depth: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    nodes = 2 ** (depth + 1) - 1
    shapes = ((tokens, hidden), (trees, nodes, hidden), (trees, nodes), (trees, nodes, hidden))
    x, w_in, b_in, w_out = (torch.randn(shape, generator=generator) for shape in shapes)
    return x, w_in / hidden**0.5, b_in / 10, w_out


def exact(x, w_in, b_in, w_out, activation, visited) -> torch.Tensor:
    """In fp64, along given paths [trees, tokens, levels]."""
    x, w_in, b_in, w_out = (one.double() for one in (x, w_in, b_in, w_out))
    y = torch.zeros_like(x)
    for tree in range(len(w_in)):
        for level in range(visited.shape[-1]):
            node = visited[tree, :, level].long()
            active = reference.ACTIVATIONS[activation]((x * w_in[tree][node]).sum(-1) + b_in[tree][node])
            y += active[:, None] * w_out[tree][node]
    return y


def worst(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).abs().max()) if len(found) else 0.0


def test_a_tree_by_hand():
    # Node 0 asks whether x > 1; its children give -1 and +1 times what they see, and node 0 gives 10 times.
    layer = FastFeedForward(hidden=1, depth=1, activation="relu").eval()
    with torch.no_grad():
        layer.w_in.copy_(torch.tensor([[[1.0], [-1.0], [2.0]]]))
        layer.b_in.copy_(torch.tensor([[-1.0, 5.0, 0.0]]))
        layer.w_out.copy_(torch.tensor([[[10.0], [-1.0], [1.0]]]))
        # x = 3: node 0 says 2, right: 2 * 3 = 6; y = 20 + 6. x = 1 says 0: not positive, so left: 4; y = 0 - 4.
        assert layer(torch.tensor([[3.0], [1.0], [0.0]])).flatten().tolist() == [26.0, -4.0, -5.0]
    assert layer.paths(torch.tensor([[3.0], [1.0]])).tolist() == [[[0, 2], [0, 1]]]
    assert (layer.name, layer.nodes) == ("1x1", 3)


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("shape", SHAPES)
def test_reference_is_the_formula(shape: tuple[int, ...], activation: str):
    x, w_in, b_in, w_out = tensors(*shape)
    visited, _ = reference.fff_route(x, w_in, b_in)
    found = reference.fff(x, w_in, b_in, w_out, activation)
    torch.testing.assert_close(found.double(), exact(x, w_in, b_in, w_out, activation, visited), rtol=1e-4, atol=1e-5)


@needs_native
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("isa", HAVE)
@pytest.mark.parametrize("shape", SHAPES)
def test_native_is_as_exact_as_torch(shape: tuple[int, ...], isa: str, weights: torch.dtype):
    # Memory that nobody has written is NaN in this mode of torch.
    assert torch.are_deterministic_algorithms_enabled()
    x, w_in, b_in, w_out = tensors(*shape)
    w_in, w_out = w_in.to(weights), w_out.to(weights)
    for activation in reference.ACTIVATIONS:
        for sort_level in (0, shape[3] // 2, shape[3]):
            y, paths = native_fff.fff(x, w_in, b_in, w_out, activation, sort_level, isa)
            visited, logits = native_fff.fff_paths(paths, len(w_in), len(x), shape[3] + 1)
            expected = exact(x, w_in, b_in, w_out, activation, visited)
            plain = reference.fff(x, w_in, b_in, w_out, activation)
            scale = float(expected.abs().max()) if len(x) else 1.0
            assert worst(y, expected) <= 2 * worst(plain, expected) + 4e-7 * scale
            routed, torch_logits = reference.fff_route(x, w_in, b_in)
            assert torch.equal(visited.long(), routed)
            torch.testing.assert_close(logits, torch_logits, rtol=1e-4, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 40), st.integers(1, 70), st.integers(1, 3), st.integers(0, 6), st.integers(0, 6), st.integers(1, 4)
)
@needs_native
def test_sorting_and_threads_change_nothing(tokens, hidden, trees, depth, sort_level, threads):
    case = tensors(tokens, hidden, trees, depth, seed=tokens)
    before = torch.get_num_threads()
    plain = native_fff.fff(*case, "gelu", 0, HAVE[-1])
    try:
        torch.set_num_threads(threads)
        sorted_way = native_fff.fff(*case, "gelu", min(sort_level, depth), HAVE[-1])
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(sorted_way[0], plain[0], rtol=1e-5, atol=1e-5)
    steps = trees * tokens * (depth + 1)
    assert torch.equal(sorted_way[1][:steps], plain[1][:steps])


@pytest.mark.parametrize(("trees", "depth"), [(1, 0), (1, 5), (3, 3), (2, 1)])
def test_training_and_evaluation_give_the_same(trees: int, depth: int):
    torch.manual_seed(0)
    layer, x = FastFeedForward(20, depth, trees), torch.randn(4, 9, 20)
    trained = layer.train()(x)
    with torch.no_grad():
        torch.testing.assert_close(layer.eval()(x), trained, rtol=1e-5, atol=1e-6)
    assert layer.backend == ("dense" if depth < 2 else f"native {HAVE[-1]}" if BUILT else "plain")


@needs_native
def test_calls_notice_weights_that_moved(tmp_path: Path):
    torch.manual_seed(0)
    layer, x = FastFeedForward(16, 4).eval(), torch.randn(5, 16)

    def exact_of(module: FastFeedForward) -> torch.Tensor:
        return reference.fff(x, module.w_in, module.b_in, module.w_out, module.activation)

    with torch.no_grad():
        torch.testing.assert_close(layer(x), exact_of(layer))
        first = layer._cache._calls
        layer.w_out.mul_(2)
        torch.testing.assert_close(layer(x), exact_of(layer))
        assert layer._cache._calls is first
        duplicate = copy.deepcopy(layer)
        duplicate.w_in.data = torch.randn(1, 31, 16)
        torch.save(duplicate, tmp_path / "layer.pt")
        loaded = torch.load(tmp_path / "layer.pt", weights_only=False)
        for module in (layer, duplicate, loaded):
            torch.testing.assert_close(module(x), exact_of(module))
        layer.activation = "relu"
        torch.testing.assert_close(layer(x), exact_of(layer))
        layer.w_in.data = torch.randn(1, 16, 31).transpose(1, 2)
        torch.testing.assert_close(layer(x), exact_of(layer))
        for tokens in range(1, 2 * native_fff.PLANS):
            layer(x[:1].expand(tokens, -1))
        torch.testing.assert_close(layer(x), exact_of(layer))


@needs_native
def test_calls_serve_only_the_weights_that_they_were_made_for():
    w_in, b_in, w_out = tensors(1, 4, 1, 2)[1:]
    made_for = (w_in, b_in, w_out, "gelu", "avx2")
    calls = native_fff.FffCalls(*made_for)
    assert calls.serve(*made_for)
    others = [
        (w_in.clone(), b_in, w_out, "gelu", "avx2"),
        (w_in, b_in.clone(), w_out, "gelu", "avx2"),
        (w_in, b_in, w_out.clone(), "gelu", "avx2"),
        (w_in.view(torch.int32), b_in, w_out, "gelu", "avx2"),
        (w_in, b_in, w_out.view(torch.int32), "gelu", "avx2"),
        (w_in, b_in.view(torch.int32), w_out, "gelu", "avx2"),
        (w_in[:, :3], b_in, w_out, "gelu", "avx2"),
        (w_in.view(1, 4, 7).transpose(1, 2), b_in, w_out, "gelu", "avx2"),
        (w_in, b_in, w_out.view(1, 4, 7).transpose(1, 2), "gelu", "avx2"),
        (w_in, b_in, w_out, "relu", "avx2"),
        (w_in, b_in, w_out, "gelu", "portable"),
    ]
    assert not any(calls.serve(*other) for other in others)


def test_only_the_nodes_on_the_path_learn():
    torch.manual_seed(0)
    layer = FastFeedForward(6, 3, trees=2)
    x = torch.randn(5, 6)
    layer(x).square().sum().backward()
    visited = layer.paths(x)
    for tree in range(2):
        on_way = set(visited[tree].flatten().tolist())
        assert layer.w_out.grad is not None and layer.w_in.grad is not None
        assert set(layer.w_out.grad[tree].abs().sum(-1).nonzero().flatten().tolist()) == on_way
        assert set(layer.w_in.grad[tree].abs().sum(-1).nonzero().flatten().tolist()) == on_way


def test_soft_paths_become_hard_ones():
    torch.manual_seed(0)
    hard, x = FastFeedForward(8, 3, activation="relu"), torch.randn(30, 8)
    soft = FastFeedForward(8, 3, activation="relu", routing=Routing(soft=True))
    soft.load_state_dict(hard.state_dict())
    assert not torch.allclose(soft(x), hard(x), rtol=1e-2)
    with torch.no_grad():
        for layer in (soft, hard):
            layer.w_in.mul_(1e4), layer.b_in.mul_(1e4)
    torch.testing.assert_close(soft(x), hard(x), rtol=1e-3, atol=1e-2)


def test_penalties_by_hand():
    layer = FastFeedForward(1, 1, routing=Routing(hardening=2.0, balance=3.0))
    with torch.no_grad():
        layer.w_in.copy_(torch.tensor([[[1.0], [1.0], [1.0]]])), layer.b_in.zero_()
    # Both inner shares are sigmoid(+-1): p = 0.731 right for one token, 0.269 for the other.
    layer(torch.tensor([[1.0], [-1.0]]))
    p = torch.sigmoid(torch.tensor(1.0))
    entropy = -(p * p.log() + (1 - p) * (1 - p).log())
    # Each child is visited by half of the tokens and has a mean share of a half: 2 * (1/4 + 1/4) = 1.
    assert layer.penalty is not None
    assert layer.penalty.item() == pytest.approx(2.0 * float(entropy) + 3.0)
    layer(torch.tensor([[1.0], [1.0]]))
    # All go right: 2 * (1 * p).
    assert layer.penalty.item() == pytest.approx(2.0 * float(entropy) + 3.0 * 2 * float(p))
    # The last two tokens are padding: as if they were not there.
    layer.counted = torch.tensor([[1, 1], [0, 0]])
    layer(torch.tensor([[[1.0], [-1.0]], [[5.0], [5.0]]]))
    assert layer.penalty.item() == pytest.approx(2.0 * float(entropy) + 3.0)
    FastFeedForward(1, 1)(torch.ones(1, 1))


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
def test_weights_of_routing_are_finite_and_not_negative(bad: float):
    for name in ("hardening", "balance"):
        with pytest.raises(UserError, match=f"tree's {name} must be a finite number; got {bad}; allowed: 0 or more"):
            Routing(**{name: bad})


def test_nothing_is_not_a_number_unless_the_input_is():
    torch.manual_seed(0)
    layer, x = FastFeedForward(16, 4).eval(), torch.randn(9, 16)
    x[3, 5] = torch.nan
    with torch.no_grad():
        bad = layer(x).isnan().all(dim=1)
    assert bad.nonzero().flatten().tolist() == [3]


@needs_native
@pytest.mark.parametrize("isa", [*HAVE, native.NONE])
def test_the_instruction_set_can_be_forced(isa: str, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    layer, x = FastFeedForward(24, 5).eval(), torch.randn(20, 24)
    with torch.no_grad():
        expected = layer(x)
        monkeypatch.setenv(native.FORCE, isa)
        assert layer.backend == ("plain" if isa == native.NONE else f"native {isa}")
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_layers(dtype: torch.dtype):
    torch.manual_seed(0)
    layer, x = FastFeedForward(32, 4).eval(), torch.randn(2, 5, 32)
    half = copy.deepcopy(layer).to(dtype)
    with torch.no_grad():
        found = half(x.to(dtype))
        assert found.dtype == dtype and found.isfinite().all()
        expected = exact(
            x.to(dtype).flatten(0, 1), half.w_in, half.b_in, half.w_out, "gelu", half.paths(x.to(dtype))
        ).view_as(x)
    torch.testing.assert_close(found.double(), expected, rtol=0.05, atol=0.05)


def test_it_compiles_to_one_graph():
    torch.manual_seed(0)
    layer, x = FastFeedForward(16, 4).eval(), torch.randn(3, 7, 16)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layer(x))
    torch.library.opcheck(operators.fff_operator, (*tensors(6, 8, 2, 3), "gelu"), test_utils="test_schema")
    torch.library.opcheck(operators.fff_operator, (*tensors(6, 8, 2, 3), "gelu"), test_utils="test_faketensor")
    x, *tree = tensors(6, 8, 2, 3)
    turned = (x.t().contiguous().t(), *tree, "gelu")
    torch.library.opcheck(operators.fff_operator, turned, test_utils="test_faketensor")


@pytest.mark.parametrize("training", [True, False])
def test_inputs_of_another_width_or_kind_are_refused(training: bool):
    layer = FastFeedForward(16, 3).train(training)
    with torch.set_grad_enabled(training):
        with pytest.raises(ValueError, match=r"must be \[..., 16\] of floats, got \(2, 3, 32\) of torch.float32"):
            layer(torch.randn(2, 3, 32))
        with pytest.raises(ValueError, match=r"got \(2, 16\) of torch.int64"):
            layer(torch.ones(2, 16, dtype=torch.long))


def test_a_layer_can_be_copied_in_the_middle_of_training():
    layer = FastFeedForward(8, 2, routing=Routing(balance=1.0)).train()
    layer(torch.randn(3, 8)).sum().backward()
    assert layer.penalty is not None and copy.deepcopy(layer).penalty is None
    layer.eval()
    assert layer.penalty is None


@needs_native
def test_a_layer_in_half_precision_is_looked_at_once(monkeypatch: pytest.MonkeyPatch):
    # Without tiles, where many tokens take another path.
    monkeypatch.setenv(native.FORCE, "portable")
    layer, x = FastFeedForward(16, 4).bfloat16().eval(), torch.randn(5, 16).bfloat16()
    with torch.no_grad():
        layer(x)
        calls = layer._cache._calls
        expected = reference.fff(x.float(), layer.w_in, layer.b_in.float(), layer.w_out, "gelu")
        torch.testing.assert_close(layer(x).float(), expected, rtol=0.02, atol=0.02)
        assert calls is not None and layer._cache._calls is calls
        layer.b_in.add_(1)
        expected = reference.fff(x.float(), layer.w_in, layer.b_in.float(), layer.w_out, "gelu")
        torch.testing.assert_close(layer(x).float(), expected, rtol=0.02, atol=0.02)


BAD_LAYERS = {
    "depth; got -1; allowed: 0 to 20": {"depth": -1},
    "one tree and one hidden unit": {"depth": 2, "trees": 0},
    "Unknown activation": {"depth": 2, "activation": "gelo"},
}


@pytest.mark.parametrize("said", BAD_LAYERS)
def test_layers_that_cannot_be(said: str):
    with pytest.raises(UserError, match=said):
        FastFeedForward(4, **BAD_LAYERS[said])


@needs_native
def test_tensors_that_do_not_fit_are_refused():
    x, w_in, b_in, w_out = tensors(4, 8, 1, 2)
    bad = {
        "shapes do not fit": (x[:, :4].contiguous(), w_in, b_in, w_out),
        "2\\^\\(depth": (x, w_in[:, :4].contiguous(), b_in[:, :4].contiguous(), w_out[:, :4].contiguous()),
        "contiguous": (x.t().contiguous().t(), w_in, b_in, w_out),
        "float32, contiguous": (x.double(), w_in, b_in, w_out),
        "float32 or bfloat16": (x, w_in.half(), b_in, w_out.half()),
    }
    for said, given_tensors in bad.items():
        with pytest.raises(ValueError, match=said):
            native_fff.fff(*given_tensors, "gelu", 0, HAVE[-1])

"""Native attention: against fp64 for every instruction set, and inside models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from sparsebert.kernels import dispatch, native, native_attention, operators
from sparsebert.models.accelerate import accelerate
from sparsebert.models.attention import NAME, attention_forward
from sparsebert.models.layout import encoder_linear_names
from test_fff import BUILT, HAVE, needs_native, worst
from tiny import FAMILIES, WITH_SDPA, tiny_batch, tiny_model

# Sequences, heads, queries, keys, head size: one token, no sequence, sizes that nothing divides, several blocks.
SHAPES = (
    (1, 1, 1, 1, 64),
    (0, 2, 4, 4, 8),
    (2, 3, 7, 7, 5),
    (2, 2, 33, 65, 24),
    (1, 2, 100, 40, 64),
    (3, 1, 12, 32, 32),
)
KINDS = (
    *((isa, torch.float32) for isa in HAVE),
    *((isa, torch.bfloat16) for isa in (*HAVE, native.EMULATED) if isa in native.TILED),
)
# The last place of a result of size 1, and half of one: where two that round it once may differ.
LAST_PLACE = {torch.float32: 4e-7, torch.bfloat16: 2.0**-8}


def heads(batch: int, count: int, tokens: int, size: int, seed: int) -> torch.Tensor:
    """[batch, heads, tokens, size] as a linear layer's output is viewed."""
    plain = torch.randn(batch, tokens, count * size, generator=torch.Generator().manual_seed(seed))
    return plain.view(batch, tokens, count, size).transpose(1, 2)


def masks(batch: int, count: int, queries: int, keys: int) -> dict[str, torch.Tensor | None]:
    """Of padding, of every query, of every head; each query sees something."""
    generator = torch.Generator().manual_seed(3)

    def seen(*shape: int) -> torch.Tensor:
        drawn = torch.rand(*shape, generator=generator) < 0.6
        drawn[..., 0] = True
        return drawn

    padding = seen(batch, 1, 1, keys)
    wide = padding.expand(batch, 1, queries, keys)
    window = (torch.arange(queries)[:, None] - torch.arange(keys)).abs() < 6
    window[:, 0] = True
    apart = seen(batch, 1, queries, 2 * keys)[..., ::2]
    same = {"padding": padding, "wide": wide, "window": window.expand(batch, 1, -1, -1), "apart": apart}
    return {"none": None, "heads": seen(batch, count, queries, keys)} | same


@needs_native
@pytest.mark.parametrize(("isa", "dtype"), KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_native_is_as_exact_as_torch(shape: tuple[int, int, int, int, int], isa: str, dtype: torch.dtype):
    # Memory that nobody has written is NaN in this mode of torch.
    assert torch.are_deterministic_algorithms_enabled()
    batch, count, queries, keys, size = shape
    q, k, v = (
        (3.0 if seed == 0 else 1.0) * heads(batch, count, tokens, size, seed).to(dtype)
        for seed, tokens in enumerate((queries, keys, keys))
    )
    for mask in masks(batch, count, queries, keys).values():
        wide = (part.double() for part in (q, k, v))
        expected = F.scaled_dot_product_attention(*wide, attn_mask=mask, scale=0.3).transpose(1, 2)
        plain = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3).transpose(1, 2)
        found = native_attention.attention(q, k, v, mask, 0.3, isa)
        assert found.is_contiguous() and found.shape == (batch, queries, count, size) and found.dtype == dtype
        slack = LAST_PLACE[dtype] * (float(v.abs().max()) if batch else 0)
        assert worst(found, expected) <= 2 * worst(plain, expected) + slack


@needs_native
@pytest.mark.parametrize(("isa", "dtype"), KINDS)
def test_by_hand(isa: str, dtype: torch.dtype):
    # Scores 0 and ln 3: shares of a quarter and three quarters. The third key is not seen.
    q, k = torch.tensor([[[[1.0]]]]), torch.tensor([0.0, 3.0, 100.0]).log().clamp_min(0).view(1, 1, 3, 1)
    v, mask = torch.tensor([4.0, 8.0, 1e6]).view(1, 1, 3, 1), torch.tensor([True, True, False])
    q, k, v = (part.to(dtype) for part in (q, k, v))
    near = pytest.approx(7.0, rel=1e-6 if dtype == torch.float32 else 0.01)
    assert native_attention.attention(q, k, v, mask, 1.0, isa).item() == near
    assert native_attention.attention(q, k, v, torch.zeros(3, dtype=torch.bool), 1.0, isa).item() == 0.0


@needs_native
@pytest.mark.parametrize(("isa", "dtype"), KINDS)
def test_large_and_missing_numbers(isa: str, dtype: torch.dtype):
    q, k, v = (heads(1, 1, 20, 16, seed=seed).to(dtype) for seed in range(3))
    sharp = native_attention.attention(1e4 * q, k, v, None, 1.0, isa)[0, :, 0]
    torch.testing.assert_close(sharp, v[0, 0][(q[0, 0] @ k[0, 0].t()).argmax(dim=1)], rtol=1e-5, atol=1e-5)
    q[0, 0, 3] = torch.nan
    found = native_attention.attention(q, k, v, None, 1.0, isa)
    assert found[0].isnan().flatten(1).all(dim=1).nonzero().flatten().tolist() == [3]


@settings(max_examples=25, deadline=None)
@given(
    *[st.integers(1, 3), st.integers(1, 5), st.integers(1, 70), st.integers(1, 40), st.integers(2, 4)],
    st.sampled_from(KINDS),
)
@needs_native
def test_threads_change_nothing(
    batch: int, count: int, tokens: int, size: int, threads: int, kind: tuple[str, torch.dtype]
):
    isa, dtype = kind
    q, k, v = (heads(batch, count, tokens, size, seed=seed).to(dtype) for seed in range(3))
    before, one = torch.get_num_threads(), native_attention.attention(q, k, v, None, 0.5, isa)
    try:
        torch.set_num_threads(threads)
        assert torch.equal(native_attention.attention(q, k, v, None, 0.5, isa), one)
    finally:
        torch.set_num_threads(before)


@needs_native
def test_tensors_that_do_not_fit_are_refused():
    q, mask = torch.ones(1, 2, 4, 8), torch.ones(4, dtype=torch.bool)
    bad = {
        "do not fit together": (q, q[:, :1], q[:, :1], mask),
        "must be of one of .*float32, .* got torch.float64": (q.double(), q.double(), q.double(), mask),
        "got torch.bfloat16 and torch.float32": (q.bfloat16(), q, q.bfloat16(), mask),
        "side by side": (q, q.transpose(2, 3).contiguous().transpose(2, 3), q, mask),
        "mask must be bool": (q, q, q, mask.float()),
    }
    for said, arguments in bad.items():
        with pytest.raises(ValueError, match=said):
            native_attention.attention(*arguments, 1.0, HAVE[-1])
    with pytest.raises(RuntimeError, match="expand"):
        native_attention.attention(q, q, q, torch.ones(3, dtype=torch.bool), 1.0, HAVE[-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_models_give_the_same(family: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sparsebert.models.accelerate._attention_gain", lambda *_: 2.0)
    model, batch = tiny_model(family), tiny_batch()
    assert not batch["attention_mask"].all()
    fast = accelerate(model, worth=1.5)
    replaced = BUILT and model.config._attn_implementation == "sdpa"
    assert replaced == (BUILT and family in WITH_SDPA)
    assert fast.config._attn_implementation == (NAME if replaced else model.config._attn_implementation)
    with torch.no_grad():
        torch.testing.assert_close(fast(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fast(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-5)
    assert NAME not in fast.config.to_json_string()


@needs_native
def test_it_is_timed_like_the_rest():
    model = tiny_model("bert")
    assert accelerate(model, tokens=64, worth=0).config._attn_implementation == NAME
    assert accelerate(model, tokens=64, worth=1e6).config._attn_implementation == "sdpa"


def test_what_the_kernel_cannot_do_runs_in_torch(monkeypatch: pytest.MonkeyPatch):
    q, k, v = (heads(1, 2, 6, 8, seed=seed) for seed in range(3))
    module = tiny_model("bert").get_submodule("bert.encoder.layer.0.attention.self")
    shift = torch.randn(1, 1, 6, 6)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=shift).transpose(1, 2)
    with torch.no_grad():
        assert not dispatch.attention_runs(q, k, v, shift)
        assert not dispatch.attention_runs(q, k, v[..., :4], None)
        torch.testing.assert_close(attention_forward(module, q, k, v, shift)[0], expected)
        monkeypatch.setattr(native_attention, "MOST_KEYS", 5)
        assert not dispatch.attention_runs(q, k, v, None)
        monkeypatch.setattr(native_attention, "MOST_KEYS", 6)
        monkeypatch.setenv(native.FORCE, native.NONE)
        assert not dispatch.attention_runs(q, k, v, None)
        torch.testing.assert_close(
            dispatch.attention(q, k, v, None, 1.0), F.scaled_dot_product_attention(q, k, v, scale=1.0).transpose(1, 2)
        )


@pytest.mark.parametrize("more", ["is_causal", "module", "position_bias", "scaling"])
def test_what_is_not_plain_attention_runs_in_torch(more: str):
    q, k, v = (heads(1, 2, 6, 8, seed=seed) for seed in range(3))
    module = tiny_model("bert").get_submodule("bert.encoder.layer.0.attention.self")
    given: dict[str, object] = {"is_causal": {"is_causal": True}, "scaling": {"scaling": -0.5}}.get(more, {})
    if more == "module":
        module.is_causal = True
    if more == "position_bias":
        given = {"position_bias": torch.randn(1, 2, 6, 6)}
    with torch.no_grad():
        found = attention_forward(module, q, k, v, None, **given)[0]
        stock = sdpa_attention_forward(module, q, k, v, None, **given)[0]
        plain = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    torch.testing.assert_close(found, stock)
    assert not torch.allclose(found, plain, atol=1e-2)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_a_trace_sees_every_operator():
    class Module(torch.nn.Module):
        def forward(self, q: torch.Tensor) -> torch.Tensor:
            return attention_forward(self, q, q, q, None, is_causal=False)[0]

    first, other = heads(1, 2, 6, 8, seed=0), heads(1, 2, 6, 8, seed=1)
    with torch.no_grad():
        module = Module().eval()
        torch.testing.assert_close(torch.jit.trace(module, (first,))(other), module(other))


def test_a_model_saved_whole_runs_in_a_new_process(tmp_path: Path):
    model = tiny_model("distilbert")
    with torch.no_grad():
        for name in encoder_linear_names(model):
            model.get_parameter(name)[:, ::2] = 0
    fast = accelerate(model, tokens=64, worth=0)
    torch.save(fast, tmp_path / "model.pt")
    script = "import sys, torch; model = torch.load(sys.argv[1], weights_only=False); "
    script += "print(tuple(model(torch.ones(1, 4, dtype=torch.long)).logits.shape))"
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "model.pt"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("(1, "), done.stderr


def test_it_compiles_to_one_graph():
    q, k, v = (heads(1, 2, 6, 8, seed=seed) for seed in range(3))
    compiled = torch.compile(dispatch.attention, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(q, k, v, None, 0.5), dispatch.attention(q, k, v, None, 0.5))
    for test in ("test_schema", "test_faketensor"):
        torch.library.opcheck(operators.attention_operator, (q, k, v, None, 0.5), test_utils=test)

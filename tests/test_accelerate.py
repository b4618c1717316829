"""Whole models with sparse kernels in place of dense products."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.kernels import native
from sparsebert.models.accelerate import accelerate, sparse_layers
from sparsebert.models.layout import layout_of
from sparsebert.models.sparse_output import SparseOutput
from test_fff import BUILT, needs_native
from tiny import ARCHITECTURES, LAYERS, tiny_batch, tiny_model


def zeroed(family: str, block: int = 1) -> PreTrainedModel:
    """A tiny model whose encoder matrices have many zeros, in square blocks."""
    model = tiny_model(family)
    with torch.no_grad():
        for layer in layout_of(model).layers:
            for linear in (m for m in model.get_submodule(layer.path).modules() if isinstance(m, nn.Linear)):
                rows, columns = linear.weight.shape
                kept = torch.rand(-(-rows // block), -(-columns // block)) < 0.4
                linear.weight.mul_(kept.repeat_interleave(block, 0).repeat_interleave(block, 1)[:rows, :columns])
    return model


GATED = ("modernbert", "gte", "eurobert")


@pytest.mark.parametrize("family", ARCHITECTURES)
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
    assert len(fused) == (0 if family in GATED else LAYERS)
    assert fast.state_dict().keys() == model.state_dict().keys()
    fast.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_under_autocast_it_gives_the_types_that_autocast_does(family: str):
    model, batch = zeroed(family), tiny_batch()
    fast = accelerate(model, tokens=36, worth=0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected, found = model(**batch).logits, fast(**batch).logits
        for layer in sparse_layers(fast).values():
            assert layer(torch.ones(1, layer.in_features)).dtype == torch.bfloat16
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


@needs_native
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_blocks_take_residual_and_norm_along(family: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sparsebert.models.accelerate._best", lambda *_: (32, 1.0))
    model, batch = zeroed(family, block=32), tiny_batch()
    fast = accelerate(model, worth=0)
    ends = [module for module in fast.modules() if isinstance(module, SparseOutput)]
    both = [end for end in ends if len(end.matrices) == 2]
    joined = family not in ("distilbert", "crammed-bert", *GATED)
    # MPNet's attention adds the residual outside the module that has the output projection.
    assert (len(ends), len(both)) == (((1 if family == "mpnet" else 2) * LAYERS, LAYERS) if joined else (0, 0))
    assert fast.state_dict().keys() == model.state_dict().keys()
    assert len(list(fast.parameters())) == len(list(model.parameters()))
    with torch.no_grad():
        expected = model(**batch).logits
        torch.testing.assert_close(fast(**batch).logits, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(copy.deepcopy(fast)(**batch).logits, expected, rtol=1e-4, atol=1e-5)
        for layer in sparse_layers(fast).values():
            layer.weight.mul_(2)
        torch.testing.assert_close(fast(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fast(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="accelerated already"):
        accelerate(fast)
    for name in {"intermediate.dense", "output.dense"} if joined else ():
        block, other = (made.get_submodule(layout_of(made).layers[0].path) for made in (fast, model))
        replaced = nn.Linear(block.get_submodule(name).in_features, block.get_submodule(name).out_features)
        for made in (block, other):
            made.set_submodule(name, copy.deepcopy(replaced))
        if name == "intermediate.dense":
            block.set_submodule(name, nn.Sequential(replaced, nn.GELU()))
        with torch.no_grad():
            torch.testing.assert_close(fast(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-5)
    monkeypatch.setenv(native.FORCE, native.NONE)
    with torch.no_grad():
        torch.testing.assert_close(fast(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-5)


def test_only_what_gains_is_replaced():
    model = zeroed("bert")
    assert not sparse_layers(accelerate(model, tokens=4, worth=1e6))
    assert not sparse_layers(accelerate(tiny_model("bert"), tokens=4, worth=0))
    halved = sparse_layers(accelerate(model.to(torch.bfloat16), tokens=4, worth=0))
    assert bool(halved) is BUILT
    assert native.has_tiles() or {layer.pattern for layer in halved.values()} <= {"single"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_on_a_gpu_runs_by_triton():
    model, batch = zeroed("bert", block=32).cuda(), {name: given.cuda() for name, given in tiny_batch().items()}
    fast = accelerate(model, tokens=36, worth=0)
    assert {layer.backend for layer in sparse_layers(fast).values()} == {"triton"}
    with torch.no_grad():
        torch.testing.assert_close(fast(**batch).logits, model(**batch).logits, rtol=1e-3, atol=1e-4)


@needs_native
def test_without_the_kernels_a_model_stays_as_it_is(monkeypatch: pytest.MonkeyPatch):
    model, batch = zeroed("bert"), tiny_batch()
    fast = accelerate(model, tokens=4, worth=0)
    monkeypatch.setenv(native.FORCE, native.NONE)
    assert not sparse_layers(accelerate(model, tokens=4, worth=0))
    assert {layer.backend for layer in sparse_layers(fast).values()} == {"dense"}
    with torch.no_grad():
        torch.testing.assert_close(fast(**batch).logits, model(**batch).logits)

"""Models with fast feedforward layers: planted, saved, loaded, cut further and trained, in every family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from sparsebert.errors import UserError
from sparsebert.models.fff import FastFeedForward
from sparsebert.models.layout import encoder_linear_names, layout_of, scope_names
from sparsebert.surgeon import plant, shrink
from tiny import FAMILIES, HIDDEN, LAYERS, tiny_batch, tiny_model


def trees_of(model: torch.nn.Module) -> list[FastFeedForward]:
    return [module for module in model.modules() if isinstance(module, FastFeedForward)]


def planted(family: str, **options):
    torch.manual_seed(0)
    return plant(tiny_model(family), **({"depth": 3, "trees": 2} | options))


@pytest.mark.parametrize("family", FAMILIES)
def test_planted_models_are_saved_and_loaded_exactly(family: str, tmp_path: Path):
    model, batch = planted(family), tiny_batch()
    assert [tree.name for tree in trees_of(model)] == ["2x3"] * LAYERS
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model(**batch).logits)
    assert (again.config.layer_neurons, again.config.layer_fff) == ([0] * LAYERS, [[2, 3]] * LAYERS)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tree_stands_where_the_block_was(family: str):
    dense, batch = tiny_model(family), tiny_batch()
    model = planted(family, layers=[1])
    [tree] = trees_of(model)
    assert [layer.ffn is None for layer in layout_of(model).layers] == [False, True, False]
    with torch.no_grad():
        tree.w_out.zero_()
        # An empty tree is the model without that block.
        block = layout_of(dense).layers[1].ffn
        assert block is not None
        dense.get_parameter(block.output.tensor).zero_()
        bias = block.output.tensor.removesuffix("weight") + "bias"
        if bias in dict(dense.named_parameters()):
            dense.get_parameter(bias).zero_()
        torch.testing.assert_close(model(**batch).logits, dense(**batch).logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_and_evaluation_agree_in_the_model(family: str):
    model, batch = planted(family, depth=4, trees=1), tiny_batch()
    with torch.no_grad():
        found = model(**batch).logits
    # With gradients the masked dense form runs, without them the kernel or the plain walk.
    torch.testing.assert_close(model(**batch).logits.detach(), found, rtol=1e-4, atol=1e-5)
    model(**batch, labels=torch.tensor([0, 1, 0])).loss.backward()
    assert all(tree.w_out.grad is not None and bool(tree.w_out.grad.any()) for tree in trees_of(model))


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_heads_and_layers_can_still_go(family: str):
    model, batch = planted(family), tiny_batch()
    small = shrink(model, {"layer.1.heads": torch.tensor([True, False, True, True])}, [2])
    assert small.config.layer_fff == [[2, 3], [2, 3]] and len(trees_of(small)) == 2
    assert small.config.layer_heads == [4, 3]
    with torch.no_grad():
        assert small(**batch).logits.isfinite().all()
    with pytest.raises(UserError, match="feedforward width"):
        shrink(model, {}, even=True)


def test_weights_of_trees_are_counted_and_not_pruned():
    model = planted("bert")
    names = encoder_linear_names(model)
    trees = [name for name in names if name.endswith(("w_in", "w_out"))]
    assert len(trees) == 2 * LAYERS and len(names) == 6 * LAYERS
    assert model.get_parameter(trees[0]).shape == (2, 15, HIDDEN)
    assert scope_names(model)["ffn"] == ()


def test_what_cannot_be_planted_is_refused():
    for said, options in {
        "no such layer; got .*7": {"depth": 2, "layers": [7]},
        "depth": {"depth": 99},
        "activation": {"depth": 2, "activation": "selu"},
    }.items():
        with pytest.raises(UserError, match=said):
            plant(tiny_model("bert"), **options)

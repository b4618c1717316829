"""Models with fast feedforward layers: converted, saved, loaded, cut further and trained, in every family."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from sparsebert.errors import UserError
from sparsebert.fast_feedforward.layer import FastFeedForward, Routing
from sparsebert.models.layout import encoder_linear_names, layout_of, scope_names
from sparsebert.models.load import load_model, save_model
from sparsebert.models.storage import Packing
from sparsebert.models.surgeon import convert_ffn, mask_model, set_routing, shrink
from tiny import FAMILIES, HIDDEN, LAYERS, tiny_batch, tiny_model


def trees_of(model: torch.nn.Module) -> list[FastFeedForward]:
    return [module for module in model.modules() if isinstance(module, FastFeedForward)]


def converted(family: str, **options):
    torch.manual_seed(0)
    return convert_ffn(tiny_model(family), **({"depth": 3, "trees": 2} | options))


@pytest.mark.parametrize("family", FAMILIES)
def test_converted_models_are_saved_and_loaded_exactly(family: str, tmp_path: Path):
    model, batch = converted(family), tiny_batch()
    assert [tree.name for tree in trees_of(model)] == ["2x3"] * LAYERS
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model(**batch).logits)
    assert (again.config.layer_neurons, again.config.layer_fff) == ([0] * LAYERS, [[2, 3]] * LAYERS)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tree_stands_where_the_block_was(family: str):
    dense, batch = tiny_model(family), tiny_batch()
    model = converted(family, layers=[1])
    [tree] = trees_of(model)
    assert ["neuron" not in layer.groups for layer in layout_of(model).layers] == [False, True, False]
    with torch.no_grad():
        tree.w_out.zero_()
        # An empty tree is the model without that block.
        block = layout_of(dense).layers[1].groups["neuron"]
        dense.get_parameter(block.output.tensor).zero_()
        bias = block.output.tensor.removesuffix("weight") + "bias"
        if bias in dict(dense.named_parameters()):
            dense.get_parameter(bias).zero_()
        torch.testing.assert_close(model(**batch).logits, dense(**batch).logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_and_evaluation_agree_in_the_model(family: str):
    model, batch = converted(family, depth=4, trees=1), tiny_batch()
    with torch.no_grad():
        found = model(**batch).logits
    # With gradients the masked dense form runs, without them the kernel or the plain walk.
    torch.testing.assert_close(model(**batch).logits.detach(), found, rtol=1e-4, atol=1e-5)
    model(**batch, labels=torch.tensor([0, 1, 0])).loss.backward()
    assert all(tree.w_out.grad is not None and bool(tree.w_out.grad.any()) for tree in trees_of(model))


ROUTED = Routing(soft=True, hardening=0.1 + 0.2, balance=3)


def routings(model: torch.nn.Module) -> set[Routing]:
    return {tree.routing for tree in trees_of(model)}


@pytest.mark.parametrize("family", FAMILIES)
def test_routing_is_saved_with_the_model(family: str, tmp_path: Path):
    model = converted(family)
    assert routings(model) == {Routing()}
    set_routing(model, ROUTED)
    for name, packing in {"plain": None, "packed": Packing()}.items():
        save_model(model, None, tmp_path / name, packing)
        assert routings(load_model(tmp_path / name)) == {ROUTED}
    save_model(load_model(tmp_path / "plain"), None, tmp_path / "again")
    values = json.loads((tmp_path / "again" / "config.json").read_text("utf-8"))
    assert [values[name] for name in ("fff_soft", "fff_hardening", "fff_balance")] == [True, 0.1 + 0.2, 3.0]


def test_a_folder_that_says_nothing_of_routing_has_hard_paths(tmp_path: Path):
    model = converted("bert")
    set_routing(model, ROUTED)
    model.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    values = json.loads(file.read_text("utf-8"))
    older = {key: value for key, value in values.items() if key not in ("fff_soft", "fff_hardening", "fff_balance")}
    assert len(older) == len(values) - 3
    file.write_text(json.dumps(older), encoding="utf-8")
    assert routings(load_model(tmp_path)) == {Routing()}
    for bad in (-1.0, float("nan"), float("inf")):
        file.write_text(json.dumps(values | {"fff_balance": bad}), encoding="utf-8")
        with pytest.raises(UserError, match=f"tree's balance must be a finite number; got {bad}; allowed: 0 or more"):
            load_model(tmp_path)


def test_what_was_trained_softly_is_evaluated_on_the_hard_path(tmp_path: Path):
    hard, batch = converted("bert"), tiny_batch()
    soft = copy.deepcopy(hard)
    set_routing(soft, Routing(soft=True))
    soft.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, hard(**batch).logits)
    for tree in (*trees_of(again), *trees_of(hard)):
        tree.train()
    apart = (again(**batch).logits - hard(**batch).logits).abs().max()
    assert apart > 1e-4


def test_routing_stays_when_a_model_is_cut_copied_or_converted_again():
    model = converted("bert", layers=[0, 1])
    set_routing(model, ROUTED)
    assert routings(copy.deepcopy(model)) == {ROUTED}
    small = shrink(model, {"layer.1.heads": torch.tensor([True, False, True, True])}, [2])
    assert routings(small) == {ROUTED} and (small.config.fff_soft, small.config.fff_balance) == (True, 3.0)
    more = convert_ffn(model, depth=1, layers=[2])
    assert [tree.name for tree in trees_of(more)] == ["2x3", "2x3", "1x1"] and routings(more) == {ROUTED}
    with pytest.raises(
        UserError, match="no fast feedforward layers; got BertForSequenceClassification; call convert_ffn"
    ):
        set_routing(tiny_model("bert"), ROUTED)


def test_trees_of_two_activations_do_not_fit_one_model():
    model, batch = converted("bert", layers=[0], activation="relu"), tiny_batch()
    with pytest.raises(UserError, match="one activation; got gelu; allowed: relu"):
        convert_ffn(model, depth=1, layers=[1])
    assert [tree.activation for tree in trees_of(convert_ffn(model, depth=1, layers=[0]))] == ["gelu"]
    with torch.no_grad():
        assert convert_ffn(model, depth=1, layers=[1], activation="relu")(**batch).logits.isfinite().all()


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_heads_and_layers_can_still_go(family: str):
    model, batch = converted(family), tiny_batch()
    small = shrink(model, {"layer.1.heads": torch.tensor([True, False, True, True])}, [2])
    assert small.config.layer_fff == [[2, 3], [2, 3]] and len(trees_of(small)) == 2
    assert small.config.layer_heads == [4, 3]
    with torch.no_grad():
        assert small(**batch).logits.isfinite().all()
    with pytest.raises(UserError, match="feedforward width"):
        shrink(model, {}, even=True)


def test_weights_of_trees_are_counted_and_not_pruned():
    model = converted("bert")
    names = encoder_linear_names(model)
    trees = [name for name in names if name.endswith(("w_in", "w_out"))]
    assert len(trees) == 2 * LAYERS and len(names) == 6 * LAYERS
    assert model.get_parameter(trees[0]).shape == (2, 15, HIDDEN)
    assert scope_names(model)["ffn"] == ()


def test_what_cannot_be_converted_is_refused():
    for said, options in {
        "no such layer; got .*7": {"depth": 2, "layers": [7]},
        "depth": {"depth": 99},
        "activation": {"depth": 2, "activation": "selu"},
    }.items():
        with pytest.raises(UserError, match=said):
            convert_ffn(tiny_model("bert"), **options)
    silenced = tiny_model("bert")
    mask_model(silenced, {}, [1])
    with pytest.raises(UserError, match=r"must be cut out first; got \[1\]; shrink it"):
        convert_ffn(silenced, depth=2)

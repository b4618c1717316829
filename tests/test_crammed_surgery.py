"""Crammed BERT cut, masked, converted, packed: what its forms add to what every family is tested for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sparsebert.errors import UserError
from sparsebert.fast_feedforward.convert import trees_of
from sparsebert.fast_feedforward.layer import FastFeedForward, Routing
from sparsebert.models.layout import encoder_linear_names, layout_of, scope_names
from sparsebert.models.limits import token_limits
from sparsebert.models.load import load_model, save_model
from sparsebert.models.storage import Packing
from sparsebert.models.surgeon import convert_ffn, mask_model, set_routing, shrink
from tiny import HEADS, LAYERS, NEURONS, VOCAB, tiny_batch, tiny_model

LAYER = "crammed_bert.layers.1"


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**tiny_batch()).logits


def same_after_saving(model: Any, folder: Path, packing: Packing | None = None) -> Any:
    save_model(model, None, folder, packing)
    again = load_model(folder)
    assert type(again) is type(model) and again.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(logits(again), logits(model))
    return again


def test_a_gate_belongs_to_its_neuron(tmp_path: Path):
    model = tiny_model("crammed-bert", gated=True)
    neurons = layout_of(model).group("layer.1.neurons")
    assert [part.tensor for part in neurons.inputs] == [f"{LAYER}.ffn.up.weight", f"{LAYER}.ffn.gate.weight"]
    keep = {"layer.1.neurons": torch.arange(NEURONS) % 3 == 0, "layer.0.neurons": torch.zeros(NEURONS) > 0}
    small = shrink(model, keep, drop_layers=[2])
    mask_model(model, keep, drop_layers=[2])
    torch.testing.assert_close(logits(small), logits(model), rtol=1e-5, atol=1e-5)
    again = same_after_saving(small, tmp_path, Packing())
    assert again.get_parameter(f"{LAYER}.ffn.gate.weight").shape == (NEURONS // 3, 32)
    assert again.get_parameter("crammed_bert.layers.0.ffn.gate.weight").shape == (0, 32)


def test_without_a_gate_no_slice_names_one():
    model = tiny_model("crammed-bert")
    neurons = layout_of(model).group("layer.1.neurons")
    assert [part.tensor for part in neurons.inputs] == [f"{LAYER}.ffn.up.weight"] and neurons.constant == ()
    names = scope_names(model)
    assert names["ffn"][:2] == ("crammed_bert.layers.0.ffn.up.weight", "crammed_bert.layers.0.ffn.down.weight")
    assert names["embeddings"] == ("crammed_bert.embeddings.word_embeddings.weight",)
    assert token_limits(model.config) == (64, VOCAB, 0)


@pytest.mark.parametrize("form", [{"fff": "4x2"}, {"intermediate_size": 0}], ids=["trees", "no block"])
def test_heads_and_layers_are_cut_where_no_block_is_dense(form: dict[str, Any], tmp_path: Path):
    model = tiny_model("crammed-bert", **form)
    assert [group.kind for group in layout_of(model).groups] == ["head"] * LAYERS
    keep = {"layer.0.heads": torch.arange(HEADS) < 1, "layer.2.heads": torch.zeros(HEADS) > 0}
    small = shrink(model, keep, drop_layers=[1])
    mask_model(model, keep, drop_layers=[1])
    torch.testing.assert_close(logits(small), logits(model), rtol=1e-5, atol=1e-5)
    again = same_after_saving(small, tmp_path)
    assert again.config.layer_fff == ([[4, 2], [4, 2]] if "fff" in form else [[], []])
    assert [layer.units["head"] for layer in layout_of(shrink(again, {})).layers] == [1, 0]


def test_trees_of_the_configuration_are_found_and_their_routing_is_saved(tmp_path: Path):
    model = tiny_model("crammed-bert", fff="4x2", fff_activation="relu")
    assert list(trees_of(model)) == [0, 1, 2]
    assert [name.split(".", 3)[-1] for name in encoder_linear_names(model)][4:6] == ["ffn.w_in", "ffn.w_out"]
    set_routing(model, Routing(soft=True, hardening=0.5, balance=0.25))
    for kept in (model, shrink(model, {}, drop_layers=[0])):
        again = same_after_saving(kept, tmp_path)
        found = [one for one in again.modules() if isinstance(one, FastFeedForward)]
        assert len(found) == len(layout_of(kept).layers)
        assert {(one.name, one.activation, one.routing) for one in found} == {("4x2", "relu", Routing(True, 0.5, 0.25))}


def test_a_dense_model_is_converted_and_trees_are_exchanged(tmp_path: Path):
    converted = convert_ffn(tiny_model("crammed-bert", gated=True), depth=2, trees=3, layers=[0, 2])
    assert {index: tree.name for index, tree in trees_of(converted).items()} == {0: "3x2", 2: "3x2"}
    same_after_saving(converted, tmp_path)
    exchanged = convert_ffn(tiny_model("crammed-bert", fff="4x2"), depth=1, trees=2, layers=[1])
    assert [tree.name for tree in trees_of(exchanged).values()] == ["4x2", "2x1", "4x2"]
    same_after_saving(exchanged, tmp_path)


def test_there_is_nothing_to_convert_without_blocks():
    with pytest.raises(UserError, match="made without feedforward blocks; got CrammedBertForSequenceClassification"):
        convert_ffn(tiny_model("crammed-bert", intermediate_size=0), depth=2)


def test_an_even_one_is_a_whole_model_again(tmp_path: Path):
    model = tiny_model("crammed-bert", gated=True)
    keep = {f"layer.{index}.neurons": torch.arange(NEURONS) < 8 for index in range(LAYERS)}
    even = shrink(model, keep, drop_layers=[1], even=True)
    assert type(even) is type(model) and even.config.model_type == "crammed-bert"
    assert (even.config.intermediate_size, even.config.num_hidden_layers, even.config.gated) == (8, 2, True)
    torch.testing.assert_close(logits(even), logits(shrink(model, keep, drop_layers=[1])))
    same_after_saving(even, tmp_path)


def test_a_configuration_file_that_asks_for_too_much_is_refused(tmp_path: Path):
    model = tiny_model("crammed-bert")
    save_model(model, None, tmp_path)
    file = tmp_path / "config.json"
    sound = file.read_text()
    for old, new, message in (
        ('"fff": null', '"fff": "9x99"', "no size of a fast feedforward layer; got '9x99'"),
        ('"fff": null', '"fff": "9000x19"', "do not fit its config.json: it asks for"),
        ('"max_position_embeddings": 64', '"max_position_embeddings": 999999', "that many positions; got 999999"),
    ):
        assert old in sound
        file.write_text(sound.replace(old, new))
        with pytest.raises(UserError, match=message):
            load_model(tmp_path)

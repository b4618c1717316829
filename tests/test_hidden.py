"""Models with fewer dimensions in their hidden states, against whole models of that size that transformers builds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.models.families import HeadName
from sparsebert.models.hidden import check_size, narrow
from sparsebert.models.layout import layout_of
from sparsebert.models.load import load_config, load_model, save_model
from sparsebert.models.storage import Packing
from sparsebert.models.surgeon import convert_ffn, shrink
from test_heads import rewrite
from test_surgeon import outputs
from tiny import FAMILIES, HEADS, HIDDEN, LAYERS, tiny_model

CUT = tuple(family for family in FAMILIES if not registry.get("family", family).fixed_width)
KEPT = [0, 2, 3, 7, 8, 11, 13, 14, 17, 20, 21, 24, 26, 28, 30, 31]
HALF = torch.arange(HEADS) < HEADS // 2
TASKS = tuple(name for name, _ in registry.get("family", "bert").model_classes)


def half_the_size(family: str, task: HeadName) -> PreTrainedModel:
    """A whole model with half the hidden size and half the heads, which has heads of the same size."""
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": HEADS // 2} if family == "eurobert" else {}
    return tiny_model(family, task, **({"hidden_size": HIDDEN // 2, "num_attention_heads": HEADS // 2} | heads))


def of_half_the_heads(small: PreTrainedModel) -> PreTrainedModel:
    return shrink(small, {f"layer.{index}.heads": HALF for index in range(LAYERS)})


def as_whole(small: PreTrainedModel, whole: PreTrainedModel) -> PreTrainedModel:
    """The whole model with the tensors of a cut one; every one must have its place and its shape."""
    tensors = dict(small.state_dict())
    # MPNet's one bias for the heads of all layers keeps its size, and each layer picks from it.
    for name in (name for name in tensors if "relative_attention_bias" in name):
        tensors[name] = tensors[name][:, : HEADS // 2]
    whole.load_state_dict(tensors)
    return whole


@pytest.mark.parametrize("task", ["base", "classification", "masked_lm"])
@pytest.mark.parametrize("family", CUT)
def test_a_narrow_model_computes_what_a_whole_one_of_its_size_computes(family: str, task: HeadName):
    model = tiny_model(family, task)
    small = narrow(model, KEPT)
    assert small.config.hidden_size == len(KEPT)
    assert layout_of(small).head_size == layout_of(model).head_size
    cut = of_half_the_heads(small)
    assert torch.equal(outputs(as_whole(cut, half_the_size(family, task))), outputs(cut))


@pytest.mark.parametrize("task", TASKS)
def test_every_head_is_cut_with_it(task: HeadName):
    as_whole(of_half_the_heads(narrow(tiny_model("bert", task), KEPT)), half_the_size("bert", task))


@pytest.mark.parametrize("family", CUT)
def test_cuts_of_dimensions_add_up_and_go_with_all_others_in_any_order(family: str):
    model = tiny_model(family)
    keep = {"layer.1.heads": torch.tensor([True, False, True, True]), "layer.2.neurons": torch.arange(24) % 3 == 0}
    once = narrow(shrink(model, keep, drop_layers=[0]), KEPT)
    twice = narrow(narrow(shrink(model, keep, drop_layers=[0]), range(8, HIDDEN)), [place - 8 for place in KEPT[-8:]])
    assert twice.config.kept_hidden == KEPT[-8:]
    assert torch.equal(outputs(shrink(narrow(model, KEPT), keep, drop_layers=[0])), outputs(once))
    assert torch.equal(outputs(narrow(once, range(8, len(KEPT)))), outputs(twice))


@pytest.mark.parametrize("packing", [None, Packing()])
@pytest.mark.parametrize("family", CUT)
def test_a_narrow_model_is_read_back_exactly(family: str, packing: Packing | None, tmp_path: Path):
    small = narrow(tiny_model(family), KEPT)
    save_model(small, None, tmp_path, packing)
    assert json.loads((tmp_path / "config.json").read_text())["kept_hidden"] == KEPT
    assert torch.equal(outputs(load_model(tmp_path)), outputs(small))


def test_weights_are_cut_by_hand():
    model = tiny_model("bert")
    small = narrow(model, KEPT)
    before, after = model.bert.encoder.layer[1], small.bert.encoder.layer[1]
    assert torch.equal(after.attention.self.query.weight, before.attention.self.query.weight[:, KEPT])
    assert torch.equal(after.attention.self.query.bias, before.attention.self.query.bias)
    assert torch.equal(after.attention.output.dense.weight, before.attention.output.dense.weight[KEPT])
    assert torch.equal(after.output.LayerNorm.weight, before.output.LayerNorm.weight[KEPT])
    assert after.output.LayerNorm.normalized_shape == (len(KEPT),)
    assert model.config.hidden_size == HIDDEN
    assert small.get_input_embeddings().embedding_dim == len(KEPT)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_tables_that_are_tied_stay_tied(family: str):
    small = narrow(tiny_model(family, "masked_lm", tie_word_embeddings=True), KEPT)
    assert small.get_output_embeddings().weight is small.get_input_embeddings().weight


MISFITS: dict[str, tuple[Any, str]] = {
    "falling": (lambda: narrow(tiny_model("bert"), [3, 1]), r"must be rising numbers; got \[3, 1\]; allowed: 0 to 31"),
    "none": (lambda: narrow(tiny_model("bert"), []), "must be rising numbers"),
    "too high": (lambda: narrow(tiny_model("bert"), [0, HIDDEN]), "allowed: 0 to 31"),
    "computed positions": (
        lambda: narrow(tiny_model("crammed-bert"), KEPT),
        "crammed-bert model cannot be cut, as its pos",
    ),
    "trees": (
        lambda: narrow(convert_ffn(tiny_model("bert"), 2), KEPT),
        "fast feedforward layers keeps its hidden size",
    ),
    "size of the embeddings": (lambda: check_size(tiny_model("electra"), 12), "have this size already.*got 12"),
    "no multiple": (
        lambda: check_size(tiny_model("eurobert"), 20),
        "eurobert model cannot have this hidden size; got 20",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_size_that_cannot_be_is_refused(name: str):
    call, message = MISFITS[name]
    with pytest.raises(UserError, match=message):
        call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kept_hidden": KEPT[::-1]}, "kept_hidden; got .* allowed: 16 of 0 to 31, rising"),
        ({"kept_hidden": KEPT[1:]}, "not valid: kept_hidden"),
        ({"kept_hidden": [*KEPT[:-1], HIDDEN]}, "not valid: kept_hidden"),
        ({"kept_hidden": []}, "not valid: original_hidden; got 32; allowed: 16"),
    ],
)
def test_a_configuration_that_no_cut_leaves_is_refused(change: dict[str, Any], message: str, tmp_path: Path):
    save_model(narrow(tiny_model("bert"), KEPT), None, tmp_path)
    rewrite(tmp_path, **change)
    with pytest.raises(UserError, match=message):
        load_config(tmp_path)

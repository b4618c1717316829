"""The layout says where every head and neuron sits, for every family."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.groups import Group, Slice
from sparsebert.models.families import family_of
from sparsebert.models.layout import base_of, encoder_linear_names, layout_of, module, scope_names
from sparsebert.models.surgeon import shrink
from sparsebert.sparse.scope import select
from tiny import FAMILIES, HEADS, HIDDEN, LAYERS, NEURONS, VOCAB, tiny_model

HEAD_SIZE = HIDDEN // HEADS


def test_all_registered_families_are_tested():
    assert list(FAMILIES) == registry.names("family")
    assert len(FAMILIES) == 13


def test_bert_groups_are_the_slices_drawn_by_hand():
    layer = "bert.encoder.layer.1"
    groups = layout_of(tiny_model("bert")).layers[1].groups
    heads = [f"{layer}.attention.self.{name}" for name in ("query", "key", "value")]
    assert groups["head"] == Group(
        name="layer.1.heads",
        kind="head",
        layer=1,
        units=4,
        inputs=tuple(Slice(f"{name}.{part}", 0, 8) for part in ("weight", "bias") for name in heads),
        output=Slice(f"{layer}.attention.output.dense.weight", 1, 8),
        constant=(Slice(f"{layer}.attention.self.value.bias", 0, 8),),
    )
    assert groups["neuron"] == Group(
        name="layer.1.neurons",
        kind="neuron",
        layer=1,
        units=24,
        inputs=(Slice(f"{layer}.intermediate.dense.weight", 0), Slice(f"{layer}.intermediate.dense.bias", 0)),
        output=Slice(f"{layer}.output.dense.weight", 1),
        constant=(Slice(f"{layer}.intermediate.dense.bias", 0),),
    )


def test_fused_matrices_of_modernbert_hold_their_parts_one_after_another():
    layer = layout_of(tiny_model("modernbert")).layers[0]
    heads, neurons = layer.groups["head"], layer.groups["neuron"]
    assert [part.offset for part in heads.inputs] == [0, 32, 64, 0, 32, 64]
    assert heads.constant == (Slice("model.layers.0.attn.Wqkv.bias", 0, 8, 64),)
    assert [part.offset for part in neurons.inputs] == [0, 24, 0, 24]
    assert neurons.constant == (
        Slice("model.layers.0.mlp.Wi.bias", 0, 1, 0),
        Slice("model.layers.0.mlp.Wi.bias", 0, 1, 24),
    )


def test_biases_that_do_not_exist_are_not_named():
    layer = layout_of(tiny_model("modernbert", attention_bias=False, mlp_bias=False)).layers[0]
    heads, neurons = layer.groups["head"], layer.groups["neuron"]
    assert {part.tensor for part in heads.inputs} == {"model.layers.0.attn.Wqkv.weight"}
    assert heads.constant == ()
    assert neurons.constant == ()


@pytest.mark.parametrize("shared", [True, False])
def test_deberta_position_projections_belong_to_heads_unless_shared(shared: bool):
    heads = layout_of(tiny_model("deberta-v2", share_att_key=shared)).groups[0]
    names = {part.tensor.split(".")[-2] for part in heads.inputs}
    own = {"query_proj", "key_proj", "value_proj"}
    assert names == (own if shared else own | {"pos_key_proj", "pos_query_proj"})


@pytest.mark.parametrize("task", ["base", "classification", "masked_lm"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_slice_fits_its_tensor(family, task):
    model = tiny_model(family, task)
    layout = layout_of(model)
    assert (layout.full_layers, layout.full_heads, layout.full_neurons) == (LAYERS, HEADS, NEURONS)
    assert [group.units for group in layout.groups] == [HEADS, NEURONS] * LAYERS
    covered: dict[str, int] = {}
    for group in layout.groups:
        for part in (*group.inputs, group.output):
            size = model.get_parameter(part.tensor).shape[part.dim]
            assert part.start(group.units) <= size
            covered[part.tensor] = covered.get(part.tensor, 0) + group.units * part.width
    for name, entries in covered.items():
        dim = 1 if any(group.output.tensor == name for group in layout.groups) else 0
        assert model.get_parameter(name).shape[dim] == entries


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shrunk_model_has_uneven_groups_and_missing_blocks(family):
    model = tiny_model(family)
    keep = {
        "layer.0.heads": torch.tensor([True, False, True, False]),
        "layer.0.neurons": torch.arange(NEURONS) < 5,
        "layer.2.heads": torch.zeros(HEADS, dtype=torch.bool),
    }
    layout = layout_of(shrink(model, keep, drop_layers=[1]))
    assert [(group.name, group.units) for group in layout.groups] == [
        ("layer.0.heads", 2),
        ("layer.0.neurons", 5),
        ("layer.1.neurons", NEURONS),
    ]
    assert [layer.original_index for layer in layout.layers] == [0, 2]
    assert "head" not in layout.layers[1].groups
    assert (layout.full_layers, layout.full_heads, layout.full_neurons) == (LAYERS, HEADS, NEURONS)


@pytest.mark.parametrize(("family", "a_layer"), [("bert", 6), ("modernbert", 4), ("deberta-v2", 8)])
def test_encoder_linear_names_are_the_matrices_of_the_layers(family: str, a_layer: int):
    model = tiny_model(family)
    names = encoder_linear_names(model)
    assert len(names) == len(set(names)) == a_layer * LAYERS
    inside = {
        f"{name}.weight"
        for name, part in model.named_modules()
        if isinstance(part, torch.nn.Linear) and ".layer" in f".{name}"
    }
    assert set(names) == inside


@pytest.mark.parametrize("family", FAMILIES)
def test_word_embeddings_are_the_matrix_of_tokens_alone(family: str):
    model = tiny_model(family)
    named, shapes = scope_names(model), {name: tuple(one.shape) for name, one in model.named_parameters()}
    [word] = named["word_embeddings"]
    assert model.get_parameter(word) is model.get_input_embeddings().weight and shapes[word][0] == VOCAB
    assert list(select(["word_embeddings"], named, shapes, []).matrices) == [word]
    assert word in named["embeddings"] and set(select(["all"], named, shapes, []).matrices) >= {*named["embeddings"]}


def test_other_embeddings_are_no_word_embeddings():
    named = scope_names(tiny_model("bert"))
    others = {name.split(".")[-2] for name in set(named["embeddings"]) - set(named["word_embeddings"])}
    assert others == {"position_embeddings", "token_type_embeddings"}


def test_base_and_module_lookups():
    model = tiny_model("bert")
    assert base_of(model) is model.bert
    assert base_of(model.bert) is model.bert
    assert module(model, "bert.encoder.layer.2") is model.bert.encoder.layer[2]


def test_an_unsupported_family_is_told_which_are():
    with pytest.raises(UserError, match=r"Unknown model family 'gpt2'; allowed: bert, roberta, distilbert, electra"):
        family_of(GPT2Config())

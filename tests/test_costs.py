"""Cost tables against what shrunk models really hold, and against the clock."""

from __future__ import annotations

import pytest
import torch

from sparsebert.counts import sizes
from sparsebert.models.layout import encoder_linear_names, layout_of
from sparsebert.models.surgeon import shrink
from sparsebert.pruning.costs import measured_table, parameter_table, stack_of
from sparsebert.pruning.knapsack import LayerChoice
from tiny import FAMILIES, HEADS, LAYERS, tiny_batch, tiny_model

SHAPES = [(4, 24), (1, 24), (3, 5), (2, 0), (0, 8)]


@pytest.mark.parametrize("family", FAMILIES)
def test_linear_parameters_are_those_of_the_shrunk_model(family: str):
    model = tiny_model(family)
    table = parameter_table(model, 1, encoder_linear_only=True)
    assert (table.layer, table.fixed) == (0, 0)
    for heads, neurons in SHAPES:
        small = stack_of(model, layout_of(model), LAYERS, (heads, neurons))
        held = sizes(small, encoder_linear_names(small)).encoder_linear_parameters
        assert LAYERS * table.cost(heads, neurons) == held


@pytest.mark.parametrize("family", FAMILIES)
def test_bytes_are_those_of_the_shrunk_model(family: str):
    model = tiny_model(family)
    table = parameter_table(model, 4, encoder_linear_only=False)
    for heads, neurons in SHAPES:
        small = stack_of(model, layout_of(model), LAYERS, (heads, neurons))
        choice = LayerChoice(heads, neurons, False, table.cost(heads, neurons), 0.0)
        assert table.total([choice] * LAYERS) == sizes(small, ()).weight_bytes


def test_a_dropped_layer_takes_all_its_bytes_along():
    model = tiny_model("bert")
    table = parameter_table(model, 4, encoder_linear_only=False)
    full, gone = LayerChoice(4, 24, False, table.cost(4, 24), 0.0), LayerChoice(0, 0, True, 0.0, 0.0)
    assert table.total([full, gone, full]) == sizes(shrink(model, {}, [1]), ()).weight_bytes


def test_stack_shares_the_embeddings_and_copies_the_layers():
    model = tiny_model("bert")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    small = stack_of(model, layout_of(model), 2, (3, 8))
    layers = layout_of(small).layers
    assert [(layer.attention.units, layer.ffn.units) for layer in layers if layer.attention and layer.ffn] == [
        (3, 8)
    ] * 2
    name = "bert.embeddings.word_embeddings.weight"
    assert small.get_parameter(name) is model.get_parameter(name)
    with torch.no_grad():
        assert small(**tiny_batch()).logits.shape == (3, 3)
        small.get_parameter(layers[0].path + ".output.dense.weight").zero_()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_measured_table_has_every_size_and_rises():
    model = tiny_model("bert", hidden_size=192, intermediate_size=40)
    table = measured_table(model, 8, 64)
    assert sorted(table.attention) == list(range(HEADS + 1))
    assert sorted(table.ffn) == [0, 8, 16, 24, 32, 40]
    assert table.attention[0] == table.ffn[0] == 0
    assert min(*table.attention.values(), *table.ffn.values()) >= 0
    assert table.layer > 0 and table.fixed > 0
    assert table.attention[HEADS] > 1.3 * table.attention[1]

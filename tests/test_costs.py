"""Cost tables against what shrunk models really hold, and against the clock."""

from __future__ import annotations

import pytest
import torch

from sparsebert.counts import sizes
from sparsebert.models.layout import encoder_linear_names, layout_of
from sparsebert.models.storage import Packing, bytes_each
from sparsebert.models.surgeon import shrink
from sparsebert.pruning.costs import _between, measured_table, parameter_table, stack_of
from sparsebert.pruning.knapsack import LayerChoice
from sparsebert.timing import Samples
from tiny import AS_ONE_PROGRAM, FAMILIES, HEADS, LAYERS, tiny_batch, tiny_model
from toy import both

# Some compare one time with another.
pytestmark = pytest.mark.timing
SHAPES = [(4, 24), (1, 24), (3, 5), (2, 0), (0, 8)]


@pytest.mark.parametrize("family", FAMILIES)
def test_linear_parameters_are_those_of_the_shrunk_model(family: str):
    model = tiny_model(family)
    table = parameter_table(model, dict.fromkeys(encoder_linear_names(model), 1.0))
    assert (table.layer, table.fixed) == (0, 0)
    for heads, neurons in SHAPES:
        small = stack_of(model, layout_of(model), LAYERS, (heads, neurons))
        held = sizes(small, encoder_linear_names(small)).encoder_linear_parameters
        assert LAYERS * table.cost(both(heads, neurons)) == held


@pytest.mark.parametrize("family", FAMILIES)
def test_bytes_are_those_of_the_shrunk_model(family: str):
    model = tiny_model(family)
    table = parameter_table(model, bytes_each(model, Packing()))
    for heads, neurons in SHAPES:
        small = stack_of(model, layout_of(model), LAYERS, (heads, neurons))
        choice = LayerChoice(both(heads, neurons), False, table.cost(both(heads, neurons)), 0.0)
        assert table.total([choice] * LAYERS) == sizes(small, ()).weight_bytes


def test_a_dropped_layer_takes_all_its_bytes_along():
    model = tiny_model("bert")
    table = parameter_table(model, bytes_each(model, Packing()))
    full = LayerChoice(both(4, 24), False, table.cost(both(4, 24)), 0.0)
    gone = LayerChoice(both(0, 0), True, 0.0, 0.0)
    assert table.total([full, gone, full]) == sizes(shrink(model, {}, [1]), ()).weight_bytes


def test_stack_shares_the_embeddings_and_copies_the_layers():
    model = tiny_model("bert")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    small = stack_of(model, layout_of(model), 2, (3, 8))
    layers = layout_of(small).layers
    assert [layer.units for layer in layers] == [both(3, 8)] * 2
    name = "bert.embeddings.word_embeddings.weight"
    assert small.get_parameter(name) is model.get_parameter(name)
    with torch.no_grad():
        assert small(**tiny_batch()).logits.shape == (3, 3)
        small.get_parameter(layers[0].path + ".output.dense.weight").zero_()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_measured_table_has_every_size_and_rises():
    model = tiny_model("bert", hidden_size=192, intermediate_size=40)
    table = measured_table(model, 8, 64)
    heads, neurons = table.blocks["head"], table.blocks["neuron"]
    assert sorted(heads) == list(range(HEADS + 1))
    assert sorted(neurons) == [0, 8, 16, 24, 32, 40]
    assert heads[0] == neurons[0] == 0
    assert min(*heads.values(), *neurons.values()) >= 0
    assert table.layer > 0 and table.fixed > 0
    assert heads[HEADS] > 1.3 * heads[1]


def test_costs_of_a_runtime_that_runs_the_whole_are_differences_of_whole_models():
    # By hand: 10 outside the layers, 1 for a bare layer, 2 more for its heads, 4 for its neurons; one round is noisy.
    whole = {(3, (0, 0)): 13.0, (1, (0, 0)): 11.0, (3, (2, 0)): 19.0, (3, (0, 8)): 25.0}
    samples = {shape: Samples((ms, ms, 2 * ms), None, 1) for shape, ms in whole.items()}
    fixed, encoder = _between(samples, [(0, 0), (2, 0), (0, 8)], 3)
    assert fixed == pytest.approx(10) and encoder == pytest.approx({(0, 0): 1, (2, 0): 3, (0, 8): 5})
    alone, of_one = _between({(1, size): samples[3, size] for size in ((0, 0), (2, 0))}, [(0, 0), (2, 0)], 1)
    assert alone == pytest.approx(13) and of_one == pytest.approx({(0, 0): 0, (2, 0): 6})


def test_a_table_of_whole_models_says_so():
    model = tiny_model("bert", hidden_size=192, intermediate_size=40)
    table = measured_table(model, 8, 64, AS_ONE_PROGRAM)
    heads, neurons = table.blocks["head"], table.blocks["neuron"]
    assert table.scope == "model" and sorted(heads) == list(range(HEADS + 1))
    assert min(*heads.values(), *neurons.values(), table.layer) >= 0
    assert table.fixed > 0 and heads[HEADS] > heads[1]
    assert measured_table(model, 1, 8).scope == "encoder"

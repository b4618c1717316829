"""Assembly: the smaller model says what the masked one says, and the model it came from stays as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import PreTrainedModel

from sparsebert.models.layout import layout_of
from sparsebert.models.surgeon import mask_model, shrink
from sparsebert.pruning.assemble import assemble, masked_model
from sparsebert.pruning.calibration import calibrate
from sparsebert.pruning.knapsack import LayerChoice
from sparsebert.pruning.shapes import shape_of
from tiny import FAMILIES, HEADS, NEURONS, tiny_batch, tiny_model
from toy import both, toy_collate, toy_rows


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(**tiny_batch()).logits


def choice(heads: int, neurons: int, dropped: bool = False) -> LayerChoice:
    return LayerChoice(both(heads, neurons), dropped, 0.0, 0.0)


SHAPES = {
    "uneven": [choice(1, 16), choice(3, 8), choice(HEADS, NEURONS)],
    "empty blocks": [choice(0, 16), choice(2, 0), choice(0, 0)],
    "dropped layer": [choice(2, 8), choice(0, 0, dropped=True), choice(3, 16)],
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("criterion", ["obs", "magnitude"])
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_masked_equals_shrunk(family: str, criterion: str, shape: str):
    model, choices = tiny_model(family), SHAPES[shape]
    before = copy.deepcopy(model.state_dict())
    candidates = calibrate(model, model, toy_rows(16), toy_collate, criterion, 16, 8, seed=0).candidates
    masked, keep, dropped = masked_model(model, candidates, choices)
    mask_model(masked, {}, dropped)
    small = assemble(model, candidates, choices)
    expected = logits(masked)
    torch.testing.assert_close(logits(small), expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    assert (expected - logits(model)).abs().max() > 1e-3
    assert dropped == [index for index, one in enumerate(choices) if one.dropped]
    assert [layer.units for layer in layout_of(small).layers] == [one.kept for one in choices if not one.dropped]
    assert {int(mask.sum()) for mask in keep.values()} <= {one.kept["head"] for one in choices} | {16, 8, 0}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_keeping_all_changes_nothing(family: str):
    model = tiny_model(family)
    candidates = calibrate(model, model, toy_rows(8), toy_collate, "obs", 8, 8, seed=0).candidates
    assert torch.equal(logits(assemble(model, candidates, [choice(HEADS, NEURONS)] * 3)), logits(model))


def test_weights_and_bias_of_the_option_are_used():
    model = tiny_model("bert")
    candidates = calibrate(model, model, toy_rows(16), toy_collate, "obs", 16, 8, seed=0).candidates
    small = assemble(model, candidates, [choice(2, NEURONS), choice(HEADS, NEURONS), choice(HEADS, NEURONS)])
    found, name = candidates["layer.0.heads"][2], "bert.encoder.layer.0.attention.output.dense"
    assert torch.equal(small.get_parameter(f"{name}.weight"), found.weight)
    expected = model.get_parameter(f"{name}.bias") + found.bias_shift
    torch.testing.assert_close(small.get_parameter(f"{name}.bias"), expected)
    assert found.bias_shift.abs().max() > 1e-4
    query = "bert.encoder.layer.0.attention.self.query.weight"
    kept = model.get_parameter(query).view(HEADS, -1, 32)[found.units]
    assert torch.equal(small.get_parameter(query), kept.reshape(-1, 32))


def test_obs_hurts_less_than_magnitude():
    model, rows = tiny_model("bert"), toy_rows(64)
    half = [choice(2, 8)] * 3
    changes = {}
    for criterion in ("obs", "magnitude"):
        candidates = calibrate(model, model, rows, toy_collate, criterion, 64, 8, seed=0).candidates
        batch = {key: toy_collate([rows[i] for i in range(64)])[key] for key in ("input_ids", "attention_mask")}
        with torch.no_grad():
            changes[criterion] = (assemble(model, candidates, half)(**batch).logits - model(**batch).logits).norm()
    assert changes["obs"] < 0.8 * changes["magnitude"]


def test_even_gives_a_stock_model():
    model = tiny_model("bert")
    candidates = calibrate(model, model, toy_rows(8), toy_collate, "obs", 8, 8, seed=0).candidates
    small = assemble(model, candidates, [choice(HEADS, 16), choice(0, 0, dropped=True), choice(HEADS, 16)], even=True)
    assert type(small) is type(model)
    assert (small.config.intermediate_size, small.config.num_hidden_layers) == (16, 2)


def test_the_shape_of_a_model_that_began_uneven_is_of_its_largest_layer():
    model = tiny_model("bert")
    uneven = shrink(model, {"layer.0.heads": torch.arange(HEADS) < 1, "layer.2.neurons": torch.arange(NEURONS) < 8})
    shape = shape_of(uneven, range(3), uneven)
    assert (shape.heads, shape.full_heads) == ((1, HEADS, HEADS), HEADS)
    assert (shape.neurons, shape.full_neurons) == ((NEURONS, NEURONS, 8), NEURONS)

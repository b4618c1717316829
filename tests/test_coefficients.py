"""Coefficients of units, as EarlyBERT has them, and the l1 penalty on them."""

from __future__ import annotations

import pytest
import torch

from sparsebert.errors import UserError
from sparsebert.models.layout import layout_of, scope_names
from sparsebert.recipe.schema import Rule
from sparsebert.sparse.gates import Coefficient
from sparsebert.sparse.sparsifier import Sparsifier
from test_gates import Net, draw, gated, parameters_of
from tiny import tiny_model


def test_coefficients_multiply_and_the_largest_in_size_stay():
    """EarlyBERT's factors: 1 at first, drawn apart by l1, of either sign; what stays is scaled by its own."""
    gate = Coefficient()
    [mask] = gate.draw(draw([-0.9, 0.1, 0.5, -0.2, 0.0, 0.6, -torch.inf, 0.3]))
    assert mask.tolist() == [1, 0, 1, 0, 0, 1, 0, 1]
    net = Net()
    rule = gated(net, "coefficient", "neuron", scope=("ffn",), penalty={"kind": "l1", "of": "scores", "weight": 0.5})
    [scores] = parameters_of(rule)
    up, down = Net().up.weight.detach(), Net().down.weight.detach()
    assert scores.tolist() == [1.0] * 8 and rule.penalty(0) == 0.5 * 8
    found = torch.tensor([-0.9, 0.1, 0.5, -0.2, 0.0, 0.6, 0.7, 0.3])
    scores.data.copy_(found)
    penalty = rule.penalty(0)
    assert penalty is not None and penalty.item() == pytest.approx(0.5 * 3.3)
    penalty.backward()
    assert scores.grad is not None and scores.grad.tolist() == pytest.approx([-0.5, *[0.5] * 2, -0.5, 0.0, *[0.5] * 3])
    rule.before_step(0, None)
    rule.after_step()
    masks, kept = rule.bake(), torch.tensor([1.0, 0, 1, 0, 0, 1, 1, 0])
    torch.testing.assert_close(net.down.weight, down * found * kept)
    assert torch.equal(net.up.weight, up * kept[:, None]) and torch.equal(masks["down.weight"][0], kept > 0)


def test_earlier_masks_stay_under_coefficients():
    held = {"q.weight": torch.arange(24).view(4, 6) >= 6}
    rule = gated(Net(), "coefficient", scope=("q.weight",), held=held, sparsity=0.5)
    parameters_of(rule)[0].data[:6] = 9.0
    rule.before_step(0, None)
    rule.after_step()
    mask = rule.masks()["q.weight"]
    assert int(mask.sum()) == 12 and not bool((mask & ~held["q.weight"]).any())


@pytest.mark.parametrize(
    ("values", "words"),
    [({"gate": "soft_mask"}, "learns nothing has no scores for a penalty; got soft_mask"), ({}, "l1' needs a gate")],
)
def test_scores_that_there_are_not_cannot_be_penalised(values: dict, words: str):
    rule = Rule.model_validate({"sparsity": 0.5, "penalty": {"kind": "l1", "of": "scores"}, **values})
    model = tiny_model("bert")
    with pytest.raises(UserError, match=words):
        Sparsifier(model, [rule], scope_names(model), layout_of(model).groups)

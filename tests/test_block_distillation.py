"""Block-wise distillation: a block's inputs and outputs, a tree that learns them, and path statistics by hand."""

from __future__ import annotations

import math

import pytest
import torch

from sparsebert.errors import DivergedError, UserError
from sparsebert.fast_feedforward.convert import (
    BlockDistillation,
    block_examples,
    distill_blocks,
    path_statistics_of,
    trees_of,
)
from sparsebert.fast_feedforward.layer import FastFeedForward
from sparsebert.fast_feedforward.routing import path_statistics
from sparsebert.models.layout import layout_of
from sparsebert.models.surgeon import convert_ffn, shrink
from tiny import FAMILIES, HIDDEN, LAYERS, tiny_batch, tiny_model


def test_path_statistics_by_hand():
    # Four tokens of two texts in a tree of two levels: right, right | right, left.
    paths = torch.tensor([[0, 2], [0, 2], [0, 2], [0, 1]])
    found = path_statistics(paths, torch.tensor([True, False, True]))
    assert found.visits.tolist() == [4, 1, 3] and found.dead == 0
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(2)
    assert found.entropy == pytest.approx((1, entropy))
    # Of the two pairs inside a text one takes the same path; by chance 1/16 + 9/16 would.
    assert found.agreement == (1.0, 0.5) and found.chance == pytest.approx((1, 10 / 16))
    assert path_statistics(paths[:1], torch.zeros(0, dtype=torch.bool)).dead == pytest.approx(1 / 3)
    assert path_statistics(paths[:1], torch.zeros(0, dtype=torch.bool)).agreement == ()


def test_dead_subtrees_are_counted_at_their_root():
    # Of four levels: one token goes left, left, left, the other right, left, right. Nodes 4 and 6 and what is below
    # them are dead, and the leaves 8 and 11.
    paths = torch.tensor([[0, 1, 3, 7], [0, 2, 5, 12]])
    found = path_statistics(paths, torch.tensor([True]))
    assert found.dead_subtrees == (0, 0, 2, 2)
    assert found.dead == pytest.approx(8 / 15)


@pytest.mark.parametrize("family", FAMILIES)
def test_examples_are_the_blocks_inputs_and_outputs(family: str):
    model, batches = tiny_model(family), [tiny_batch(0), tiny_batch(1)]
    described, layer = layout_of(model).family, layout_of(model).layers[1].path
    found = block_examples(model, layer, described, batches)
    tokens = int(sum(batch["attention_mask"].sum() for batch in batches))
    assert found.x.shape == found.y.shape == (tokens, HIDDEN)
    # Three texts a batch; padding is not there, and texts do not touch.
    assert int((~found.neighbours).sum()) == 5
    parts = model.get_submodule(layer)
    ffn = described.ffn
    with torch.no_grad():
        if ffn.block:
            again = parts.get_submodule(ffn.block)(found.x)
        else:
            up = parts.get_submodule(ffn.inputs[0])(found.x)
            again = parts.get_submodule(ffn.output)(parts.get_submodule(ffn.activation)(up))
    torch.testing.assert_close(found.y, again, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_distilled_trees_are_nearer_to_the_dense_model(family: str):
    torch.manual_seed(0)
    dense = tiny_model(family)
    converted = convert_ffn(dense, depth=2, trees=8)
    batches = [tiny_batch(seed, rows=8) for seed in range(20)]
    held = tiny_batch(99, rows=8)
    before = apart(dense, converted, held)
    fits = distill_blocks(dense, converted, batches, BlockDistillation(steps=300, tokens=128, learning_rate=1e-2))
    assert [fit.layer for fit in fits] == list(range(LAYERS))
    assert all(fit.error < 0.8 and len(fit.paths) == 8 for fit in fits)
    assert apart(dense, converted, held) < 0.7 * before


def apart(one: torch.nn.Module, other: torch.nn.Module, batch: dict[str, torch.Tensor]) -> float:
    with torch.no_grad():
        return float((one(**batch).logits - other(**batch).logits).abs().mean())


def test_the_error_of_a_single_token_is_a_number():
    dense = tiny_model("bert")
    one = {name: value[:1, :2] for name, value in tiny_batch().items()}
    one["attention_mask"] = torch.ones_like(one["attention_mask"])
    fits = distill_blocks(dense, convert_ffn(dense, depth=1), [one], BlockDistillation(steps=1))
    assert all(torch.isfinite(torch.tensor(fit.error)) for fit in fits)


def test_layers_without_trees_are_left_alone():
    dense = tiny_model("bert")
    converted = convert_ffn(dense, depth=2, layers=[1])
    fits = distill_blocks(dense, converted, [tiny_batch()], BlockDistillation(steps=2))
    assert [fit.layer for fit in fits] == [1]
    [tree] = [module for module in converted.modules() if isinstance(module, FastFeedForward)]
    assert not tree.training


def test_what_cannot_be_distilled_is_refused():
    dense = tiny_model("bert")
    with pytest.raises(UserError, match="numbers of layers; got 3 and 2"):
        distill_blocks(dense, shrink(convert_ffn(dense, depth=1), {}, [0]), [tiny_batch()], BlockDistillation(steps=1))
    with pytest.raises(DivergedError, match="step"):
        distill_blocks(
            dense, convert_ffn(dense, depth=1), [tiny_batch()], BlockDistillation(steps=50, learning_rate=1e30)
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_path_statistics_of_all_layers_are_those_of_each(family: str):
    torch.manual_seed(0)
    model, batches = convert_ffn(tiny_model(family), depth=3, trees=2, layers=[0, 2]), [tiny_batch(0), tiny_batch(1)]
    found, layout = path_statistics_of(model, batches), layout_of(model)
    assert sorted(found) == [0, 2]
    for index, tree in trees_of(model).items():
        examples = block_examples(model, layout.layers[index].path, layout.family, batches)
        for path, own in zip(tree.paths(examples.x), found[index], strict=True):
            expected = path_statistics(path, examples.neighbours)
            assert torch.equal(own.visits, expected.visits)
            assert own.agreement == expected.agreement and own.entropy == expected.entropy

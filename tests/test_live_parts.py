"""Parts of models switched off: what that computes, what parts are called, and effects by hand; without a page."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from example_record import full_record
from sparsebert.errors import UserError
from sparsebert.live.effect import agreement_effect, scored_effect
from sparsebert.live.parts import layer_units, masks, quarters_of
from sparsebert.live.texts import of_file
from sparsebert.live.units import LayerUnits, checked, in_words
from sparsebert.models.layout import layout_of
from sparsebert.models.load import described_model
from sparsebert.models.surgeon import convert_ffn, mask_model, shrink
from sparsebert.models.switched_off import switched_off
from sparsebert.tasks.classification import CLASSIFICATION
from sparsebert.tasks.embeddings import EMBEDDINGS
from sparsebert.tasks.multilabel import MULTILABEL
from sparsebert.tasks.regression import REGRESSION
from sparsebert.tasks.tokens import TOKENS
from tiny import FAMILIES, HEADS, NEURONS, tiny_batch, tiny_model
from tiny_run import save_tiny

LAYERS = (LayerUnits(1, (1, 4), 8), LayerUnits(3, (), 3), LayerUnits(4, (2,), 0, trees=True))


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(**tiny_batch()).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_switched_off_is_the_model_with_that_head_cut_out(family: str) -> None:
    """The surgeon cuts it out of a copy whose biases are silenced with the weights, so that no constant is left."""
    model = tiny_model(family)
    before, weights = logits(model), copy.deepcopy(model.state_dict())
    layers = layer_units(model, None)
    for names, name in ((["2h3"], "layer.1.heads"), (["2n1"], "layer.1.neurons")):
        keep, trees = masks(model, layers, names)
        assert set(keep) == {name} and not trees and 0 < int((~keep[name]).sum()) < len(keep[name])
        masked = copy.deepcopy(model)
        mask_model(masked, keep)
        with switched_off(model, keep):
            found = logits(model)
        torch.testing.assert_close(found, logits(shrink(masked, keep)), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found, before, atol=1e-3)
    # The model is what it was, bit by bit.
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())


def test_whole_blocks_and_several_parts_at_once() -> None:
    model = tiny_model("bert")
    layers = layer_units(model, None)
    names = [*(f"1h{head}" for head in range(1, HEADS + 1)), *(f"3n{part}" for part in range(1, 5)), "2h1"]
    keep, _ = masks(model, layers, names)
    assert {name: int(mask.sum()) for name, mask in keep.items()} == {
        "layer.0.heads": 0,
        "layer.1.heads": HEADS - 1,
        "layer.2.neurons": 0,
    }
    masked = copy.deepcopy(model)
    mask_model(masked, keep)
    with switched_off(model, keep):
        torch.testing.assert_close(logits(model), logits(masked), rtol=1e-4, atol=1e-5)


def test_trees_switched_off_give_nothing_and_come_back() -> None:
    model = convert_ffn(tiny_model("bert"), depth=3, layers=[1])
    layers = layer_units(model, None)
    assert [(layer.quarters, layer.trees) for layer in layers] == [(4, False), (1, True), (4, False)]
    keep, trees = masks(model, layers, ["2n1"])
    assert keep == {} and trees == [1]
    before, without = logits(model), copy.deepcopy(model)
    torch.nn.init.zeros_(without.get_parameter("bert.encoder.layer.1.intermediate.dense.w_out"))
    with switched_off(model, keep, trees):
        torch.testing.assert_close(logits(model), logits(without))
    assert torch.equal(logits(model), before) and not torch.allclose(logits(without), before, atol=1e-3)
    with pytest.raises(UserError, match="no fast feedforward layer"), switched_off(model, {}, [0]):
        pass


def test_all_is_on_again_after_an_error() -> None:
    model = tiny_model("bert")
    before = logits(model)
    keep = {"layer.0.heads": torch.tensor([False, True, True, True])}

    def failing() -> None:
        with switched_off(model, keep):
            assert not torch.equal(logits(model), before)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        failing()
    assert torch.equal(logits(model), before)


def test_quarters_are_of_like_number_the_largest_weights_first() -> None:
    model = tiny_model("bert")
    group = layout_of(model).groups[1]
    layer = model.get_submodule("bert.encoder.layer.0")
    with torch.no_grad():
        for neuron in range(NEURONS):
            # A neuron as large as its number, all of it in the weights out of it.
            layer.get_parameter("intermediate.dense.weight")[neuron] = 0
            layer.get_parameter("output.dense.weight")[:, neuron] = neuron / 10
    parts = [part.tolist() for part in quarters_of(model, group)]
    assert parts == [list(range(start, start - 6, -1)) for start in (23, 17, 11, 5)]


def test_heads_keep_the_numbers_of_the_record_and_gone_blocks_have_no_parts(tmp_path: Path) -> None:
    gone = {
        "layer.0.heads": torch.tensor([True, False, False, True]),
        "layer.2.heads": torch.zeros(HEADS, dtype=torch.bool),
        "layer.2.neurons": torch.zeros(NEURONS, dtype=torch.bool),
    }
    model = shrink(tiny_model("bert"), gone, drop_layers=[1])
    shape = full_record().models[0].shape.model_copy(update={"kept_heads": ((0, 3), (), ())})
    layers = layer_units(model, shape)
    assert layers == (LayerUnits(1, (1, 4), NEURONS), LayerUnits(3, (), 0))
    assert layers[0].names == ("1h1", "1h4", "1n1", "1n2", "1n3", "1n4") and layers[1].names == ()
    keep, _ = masks(model, layers, ["1h4"])
    assert keep["layer.0.heads"].tolist() == [True, False]
    # By the configuration alone it is the same.
    model.save_pretrained(tmp_path)
    assert layer_units(described_model(tmp_path), shape) == layers


def test_names_are_checked_and_put_in_order() -> None:
    assert checked(["4n1", "1h4", "1h1", "1h4"], LAYERS) == ("1h1", "1h4", "4n1")
    for names, words in (
        ([], "Nothing is switched off; click"),
        ("1h1", "are a list of names; got str"),
        ([1], "are a list of names"),
        (["1h2"], r"no such part; got layer 1, head 2; allowed: heads 1, 4"),
        (["3h1"], "got layer 3, head 1; allowed: no heads"),
        (["3n4"], "got layer 3, part 4 of the feedforward block; allowed: parts 1, 2, 3"),
        (["4n2"], "allowed: parts 1"),
        (["2h1"], "got layer 2, head 1; allowed: layers 1, 3, 4"),
        (["1h0"], "got 1h0; allowed: layers"),
        (["<b>" * 100], "no such part; got <b><b>"),
    ):
        with pytest.raises(UserError, match=words) as error:
            checked(names, LAYERS)
        assert len(str(error.value)) < 200
    assert in_words("12h3") == "layer 12, head 3" and in_words("12n3").startswith("layer 12, part 3")


def one_hot(classes: list[int], count: int = 2) -> np.ndarray:
    return np.eye(count)[classes]


def test_an_effect_on_a_score_is_paired_by_text() -> None:
    labels = np.arange(40) % 2
    # 30 of 40 are right before, of which 10 are wrong after; nothing else changes.
    before = np.where(np.arange(40) < 30, labels, 1 - labels)
    after = np.where(np.arange(40) < 20, labels, 1 - labels)
    found = scored_effect("accuracy", one_hot(before.tolist()), one_hot(after.tolist()), labels)
    assert (found.before.value, found.after.value, found.texts) == (0.75, 0.5, 40)
    assert found.change.value == -0.25 and found.before.low < 0.75 < found.before.high
    # By the normal approximation of a mean of paired differences: 10 of them -1, the others 0.
    reach = 1.96 * np.sqrt(0.25 * 0.75 / 40)
    assert found.change.low == pytest.approx(-0.25 - reach, abs=0.02)
    assert found.change.high == pytest.approx(-0.25 + reach, abs=0.02)
    same = scored_effect("accuracy", one_hot(before.tolist()), one_hot(before.tolist()), labels).change
    assert (same.value, same.low, same.high) == (0, 0, 0)
    with pytest.raises(UserError, match="There is no matthews of these texts: all labels are the same"):
        scored_effect("matthews", one_hot([0, 1]), one_hot([0, 1]), np.array([1, 1]))


def test_without_labels_it_is_what_the_model_says_again() -> None:
    one, other = one_hot([0, 1, 2, 0], 3), one_hot([0, 1, 0, 0], 3)
    found = agreement_effect(one, other, CLASSIFICATION)
    assert (found.metric, found.before.value, found.after.value, found.change.value) == ("agreement", 1, 0.75, -0.25)
    assert (found.change.low, found.change.high) == (found.after.low - 1, found.after.high - 1)
    same = agreement_effect(one, one, CLASSIFICATION)
    assert (same.after.value, same.after.low, same.change.value, same.change.low) == (1, None, 0, 0)
    labels = np.array([[1.0, -1.0], [1.0, 1.0]]), np.array([[2.0, -3.0], [1.0, -1.0]])
    assert agreement_effect(*labels, MULTILABEL).after.value == 0.5
    vectors = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 2.0], [3.0, 0.0]])
    assert agreement_effect(*vectors, EMBEDDINGS).after.value == 0.5
    assert agreement_effect(*vectors, EMBEDDINGS).metric == "cosine"
    numbers = np.array([[1.0], [2.0], [3.0], [4.0]]), np.array([[1.0], [3.0], [2.0], [4.0]])
    found = agreement_effect(*numbers, REGRESSION)
    assert found.metric == "rank correlation" and found.before.value == pytest.approx(1)
    assert found.after.value == pytest.approx(spearmanr(*map(np.ravel, numbers))[0])


def test_of_words_those_count_that_were_read() -> None:
    before = np.array([[[1.0, 0], [0, 1.0], [1.0, 0]], [[0, 1.0], [0, 0], [0, 0]]])
    after = np.array([[[1.0, 0], [1.0, 0], [1.0, 0]], [[0, 2.0], [0, 0], [0, 0]]])
    assert agreement_effect(before, after, TOKENS).after.value == 0.75
    with pytest.raises(UserError, match="No text has a word"):
        agreement_effect(np.zeros((2, 1, 2)), np.zeros((2, 1, 2)), TOKENS)


def test_labels_of_a_file_go_with_their_texts() -> None:
    table = "review;label;stars\na;yes;1\n;no;2\nc;no;3\n"
    queue = of_file("t.csv", table, ["review"])
    assert queue.labels is not None and (queue.labels.values, queue.labels.name) == (["yes", "no"], "label")
    queue = of_file("t.csv", table, ["review"], "stars")
    assert queue.labels is not None and queue.labels.values == ["1", "3"] and queue.labels.delimiter == ";"
    # With its labels set apart, the other column is the one of the texts.
    assert of_file("t.csv", "what,label\nu,1\n", ()).first == ["u"]
    assert of_file("t.csv", "label\nu\n", ["label"]).labels is None
    with pytest.raises(UserError, match="no such column; got gone; allowed: review, label, stars"):
        of_file("t.csv", table, ["review"], "gone")
    with pytest.raises(UserError, match="has no columns"):
        of_file("t.txt", "a", (), "label")


def test_a_configuration_is_enough_to_see_the_parts(tmp_path: Path) -> None:
    save_tiny(tmp_path / "m", num_hidden_layers=2)
    (tmp_path / "m" / "model.safetensors").unlink()
    found = layer_units(described_model(tmp_path / "m"), None)
    assert found == tuple(LayerUnits(layer, (1, 2, 3, 4), NEURONS) for layer in (1, 2))

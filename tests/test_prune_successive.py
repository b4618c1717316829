"""Which weights and layers go first, on values that can be counted by hand, and what is left without them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from torch import nn
from transformers import PreTrainedModel

from sparsebert.models.layout import encoder_linear_names, layout_of
from sparsebert.pruning.histogram import weight_histograms
from sparsebert.pruning.successive import (
    l1_scores,
    layers_by_loss,
    layers_by_loss_anew,
    layers_by_size,
    loss_scores,
    lowest_of_all,
    removable_layers,
    without_layers,
    without_weights,
)
from sparsebert.tasks.classification import CLASSIFICATION
from sparsebert.tasks.metrics import score
from tiny import FAMILIES, LAYERS, tiny_batch, tiny_model

LABELS = torch.tensor([0, 2, 1])


def labelled() -> dict[str, torch.Tensor]:
    return {**tiny_batch(), "labels": LABELS}


def loss_of(model: PreTrainedModel) -> float:
    with torch.no_grad():
        return float(CLASSIFICATION.loss(model(**tiny_batch()).logits, LABELS))


def with_identity(family: str, index: int) -> PreTrainedModel:
    """Its layer `index` adds nothing to the residual stream, and its norms pass on what the layer before has normed."""
    model = tiny_model(family)
    layers = layout_of(model).layers
    for name, parameter in model.named_parameters():
        inside = name.startswith(f"{layers[index].path}.")
        if inside and parameter.dim() > 1 and ("output.dense" in name or "intermediate" in name):
            parameter.data.zero_()
        if inside and name.endswith("bias"):
            parameter.data.zero_()
        if "LayerNorm" in name:
            parameter.data.fill_(1.0 if name.endswith("weight") else 0.0)
    return model


def test_one_threshold_for_all_matrices():
    scores = {"a": torch.tensor([[0.1, 0.9], [0.4, 0.3]]), "b": torch.tensor([0.2, 0.8])}
    gone = lowest_of_all(scores, 0.5)
    assert gone["a"].tolist() == [[True, False], [False, True]]
    assert gone["b"].tolist() == [True, False]
    assert not any(mask.any() for mask in lowest_of_all(scores, 0.0).values())
    # round(0.25 * 6) = 2: the two lowest, one in each.
    assert [int(mask.sum()) for mask in lowest_of_all(scores, 0.25).values()] == [1, 1]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.floats(0, 0.99), st.floats(0, 0.99))
@settings(deadline=None)
def test_what_is_gone_stays_gone_at_every_larger_share(values: list[int], one: float, other: float):
    scores = {"a": torch.tensor(values, dtype=torch.float32), "b": torch.tensor(values[::-1], dtype=torch.float32)}
    less, more = (lowest_of_all(scores, share) for share in sorted((one, other)))
    assert all(bool((more[name] | ~less[name]).all()) for name in scores)
    assert sum(int(mask.sum()) for mask in more.values()) == round(max(one, other) * 2 * len(values))


def test_global_l1_takes_the_smallest_weights_and_leaves_the_model_as_it_was():
    model = tiny_model("bert")
    names = encoder_linear_names(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pruned = without_weights(model, lowest_of_all(l1_scores(model, names), 0.3))
    every = np.concatenate([before[name].abs().numpy().ravel() for name in names])
    threshold = np.sort(every)[round(0.3 * len(every)) - 1]
    for name in names:
        expected = torch.where(before[name].abs() <= threshold, 0.0, before[name])
        assert torch.equal(pruned.get_parameter(name), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert sum(int((pruned.get_parameter(name) == 0).sum()) for name in names) == round(0.3 * len(every))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_without_a_layer_skips_it(family: str):
    model, batch = tiny_model(family), tiny_batch()
    gone = removable_layers(model)[-2]
    small = without_layers(model, [gone])
    assert len(layout_of(small).layers) == LAYERS - 1
    path = layout_of(model).layers[gone].path
    held = model.get_submodule(path)
    with torch.no_grad():
        got = small(**batch).logits
        parent, _, name = path.rpartition(".")
        layers = model.get_submodule(parent)
        assert isinstance(layers, nn.ModuleList)
        # The layer gives back what it is given, in the form of its family.
        handle = held.register_forward_hook(
            lambda module, given, output: (given[0], *output[1:]) if isinstance(output, tuple) else given[0]
        )
        expected = model(**batch).logits
        handle.remove()
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
    assert layers[int(name)] is held
    assert without_layers(model, ()) is model


@pytest.mark.parametrize("index", [1, 2])
def test_a_layer_that_does_nothing_goes_first(index: int):
    model = with_identity("bert", index)
    ranked = layers_by_loss(model, loss_of)
    assert sorted(one.layer for one in ranked) == list(range(LAYERS))
    by_layer = {one.layer: one.value for one in ranked}
    assert by_layer[index] == pytest.approx(0, abs=1e-5)
    for other in set(range(LAYERS)) - {index}:
        assert by_layer[other] == pytest.approx(loss_of(without_layers(model, [other])) - loss_of(model))
    assert [one.value for one in ranked] == sorted(by_layer.values())


def test_ranked_anew_takes_the_best_of_those_that_are_left():
    """By itself layer 1 is the second to go, but together with layer 0 it is worse than layer 2."""
    losses = {(): 1.0, (0,): 1.1, (1,): 1.2, (2,): 1.3, (0, 1): 3.0, (0, 2): 1.5}

    def loss(left: PreTrainedModel) -> float:
        kept = [layer.original_index for layer in layout_of(left).layers]
        return losses[tuple(layer for layer in range(LAYERS) if layer not in kept)]

    model = tiny_model("bert")
    once, anew = layers_by_loss(model, loss), layers_by_loss_anew(model, loss)
    assert [(one.layer, round(one.value, 9)) for one in once] == [(0, 0.1), (1, 0.2), (2, 0.3)]
    assert [(one.layer, round(one.value, 9)) for one in anew] == [(0, 0.1), (2, 0.4)]


def test_layers_by_size_go_by_the_mean_of_their_weights():
    model = tiny_model("bert")
    for name in encoder_linear_names(model):
        layer = int(name.split("layer.")[1].split(".")[0])
        model.get_parameter(name).data.fill_((-3.0, 1.0, 2.0)[layer])
    assert [(one.layer, one.value) for one in layers_by_size(model)] == [(1, 1.0), (2, 2.0), (0, 3.0)]


def test_the_first_layer_stays_where_a_convolution_reads_it():
    model = tiny_model("deberta-v2", conv_kernel_size=3, conv_act="gelu")
    assert removable_layers(model) == [1, 2]
    assert len(layers_by_loss_anew(model, loss_of)) == 2


def test_loss_scores_are_weight_times_gradient_of_the_mean_over_all_rows():
    model = tiny_model("bert")
    names, batch = encoder_linear_names(model), labelled()
    parts = [{name: value[rows] for name, value in batch.items()} for rows in (slice(0, 2), slice(2, 3))]
    found = loss_scores(model, names, parts, CLASSIFICATION)
    whole = model(**{name: value for name, value in batch.items() if name != "labels"})
    CLASSIFICATION.loss(whole.logits, LABELS).backward()
    for name in names:
        parameter = model.get_parameter(name)
        assert parameter.grad is not None
        torch.testing.assert_close(found[name], (parameter * parameter.grad).abs(), atol=1e-6, rtol=1e-4)


def test_a_histogram_counts_every_weight_once():
    model = tiny_model("bert")
    name = "bert.encoder.layer.0.attention.self.query.weight"
    model.get_parameter(name).data.zero_()
    found = {one.kind: one for one in weight_histograms(model, bins=8)}
    assert list(found)[:3] == [f"attention.self.{part}" for part in ("query", "key", "value")]
    query = found["attention.self.query"]
    assert query.zeros == 32 * 32
    assert sum(query.counts) + query.below + query.above + query.zeros == LAYERS * 32 * 32
    values = torch.cat([p.flatten() for n, p in model.named_parameters() if n.endswith("query.weight")])
    values = values[values != 0].detach().numpy()
    assert query.reach == pytest.approx(4 * np.sqrt(np.mean(values**2)), rel=1e-5)
    expected, _ = np.histogram(values, 8, (-query.reach, query.reach))
    assert query.counts == tuple(expected)
    assert query.sizes == tuple(np.histogram(np.abs(values), 4, (0, query.reach))[0])
    assert found["embeddings"].zeros == 0


def test_macro_f1_of_classes_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 5)), rng.integers(0, 4, 50)
    expected = f1_score(labels, logits.argmax(axis=1), average="macro")
    assert score(["macro_f1"], logits, labels)["macro_f1"] == pytest.approx(expected)

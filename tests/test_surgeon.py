"""A shrunk model computes what its masked model computes, for every family, task and shape."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertForMultipleChoice, BertForSequenceClassification, BertModel, PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.models.families import HeadName
from sparsebert.models.layout import layout_of
from sparsebert.models.load import check_finite
from sparsebert.models.surgeon import convert_ffn, mask_model, shrink
from sparsebert.registry import OWN_FAMILIES
from tiny import FAMILIES, HEADS, LAYERS, NEURONS, WITH_SDPA, tiny_batch, tiny_model

NONE = torch.zeros(HEADS, dtype=torch.bool)
NO_NEURON = torch.zeros(NEURONS, dtype=torch.bool)


def random_keep(model: PreTrainedModel, seed: int = 0) -> dict[str, torch.Tensor]:
    """About half of the units; the last layer but one has no head, the last no neuron."""
    generator = torch.Generator().manual_seed(seed)
    keep = {group.name: torch.rand(group.units, generator=generator) < 0.5 for group in layout_of(model).groups}
    return keep | {f"layer.{LAYERS - 2}.heads": NONE, f"layer.{LAYERS - 1}.neurons": NO_NEURON}


def outputs(model: PreTrainedModel) -> torch.Tensor:
    """What the model says about real tokens; padding positions carry no promise."""
    batch = tiny_batch()
    with torch.no_grad():
        first = model(**batch)[0]
    return first[batch["attention_mask"].bool()] if first.dim() == 3 else first


def assert_same(left: PreTrainedModel, right: PreTrainedModel) -> None:
    expected = outputs(right)
    torch.testing.assert_close(outputs(left), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


ATTENTION = [(family, "eager") for family in FAMILIES] + [(family, "sdpa") for family in WITH_SDPA]
WITH_BIASES = [family for family in FAMILIES if family not in ("nomic_bert", "crammed-bert")]


@pytest.mark.parametrize("task", ["base", "classification", "masked_lm"])
@pytest.mark.parametrize(("family", "attention"), ATTENTION)
def test_shrunk_equals_masked(family: str, task: HeadName, attention: str):
    model = tiny_model(family, task, attn_implementation=attention)
    masked, keep = copy.deepcopy(model), random_keep(model)
    mask_model(masked, keep)
    small = shrink(masked, keep)
    assert small.config._attn_implementation == attention
    assert small.num_parameters() < model.num_parameters()
    assert (outputs(masked) - outputs(model)).abs().max() > 0.01
    assert_same(small, masked)


@pytest.mark.parametrize("dropped", [[0], [1, 2]])
@pytest.mark.parametrize("family", FAMILIES)
def test_dropped_layers_equal_identity_layers(family: str, dropped: list[int]):
    model = tiny_model(family)
    masked, keep = copy.deepcopy(model), {f"layer.{index}.heads": torch.arange(HEADS) < 3 for index in range(LAYERS)}
    mask_model(masked, keep, dropped)
    assert (outputs(masked) - outputs(model)).abs().max() > 0.01
    small = shrink(masked, keep, dropped)
    assert len(layout_of(small).layers) == LAYERS - len(dropped)
    assert_same(small, masked)


@pytest.mark.parametrize("family", WITH_BIASES)
def test_removed_units_with_live_biases_are_folded(family: str):
    model = tiny_model(family)
    keep = random_keep(model)
    silenced = copy.deepcopy(model)
    with torch.no_grad():
        for group in layout_of(silenced).groups:
            for part in group.inputs:
                if part.tensor.endswith(".weight"):
                    for unit in torch.nonzero(~keep[group.name]).flatten().tolist():
                        silenced.get_parameter(part.tensor)[part.start(unit) : part.start(unit) + part.width] = 0
    assert_same(shrink(model, keep), silenced)
    masked = copy.deepcopy(model)
    mask_model(masked, keep)
    assert (outputs(silenced) - outputs(masked)).abs().max() > 0.01


def test_a_constant_without_a_bias_to_carry_it_is_refused():
    model = tiny_model("bert")
    model.bert.encoder.layer[0].output.dense.bias = None
    keep = {"layer.0.neurons": torch.arange(NEURONS) < 20}
    with pytest.raises(UserError, match=r"layer\.0\.neurons give a constant, and .*output\.dense has no bias"):
        shrink(model, keep)


@pytest.mark.parametrize("family", FAMILIES)
def test_shrinking_twice_equals_shrinking_once(family: str):
    model = tiny_model(family)
    first = {"layer.0.heads": torch.tensor([True, True, True, False]), "layer.2.neurons": torch.arange(NEURONS) < 10}
    second = {"layer.0.heads": torch.tensor([False, True, True]), "layer.1.neurons": torch.arange(10) % 2 == 0}
    both = {"layer.0.heads": torch.tensor([False, True, True, False]), "layer.2.neurons": torch.arange(NEURONS) < 10}
    both["layer.2.neurons"] = both["layer.2.neurons"] & (torch.arange(NEURONS) % 2 == 0)
    twice = shrink(shrink(model, first, drop_layers=[1]), second)
    once = shrink(model, both, drop_layers=[1])
    assert twice.config.to_dict() == once.config.to_dict()
    assert twice.config.kept_layers == [0, 2]
    assert_same(twice, once)


def test_the_input_is_not_touched_and_shares_nothing():
    model = tiny_model("bert", "masked_lm").to(torch.bfloat16).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    small = shrink(model, random_keep(model))
    assert torch.equal(random_state, torch.get_rng_state())
    assert small.training
    assert {parameter.dtype for parameter in small.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_label_names_and_a_missing_pooler_are_kept():
    model = tiny_model("bert", num_labels=2, id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1})
    small = shrink(model, random_keep(model))
    assert (small.config.id2label, small.config.label2id) == ({0: "bad", 1: "good"}, {"bad": 0, "good": 1})
    base = BertModel(model.config, add_pooling_layer=False).eval()
    assert shrink(base, random_keep(base)).pooler is None


@pytest.mark.parametrize("family", FAMILIES)
def test_shrunk_models_train(family: str):
    small = shrink(tiny_model(family), random_keep(tiny_model(family))).train()
    small(**tiny_batch(), labels=torch.tensor([0, 1, 2])).loss.backward()
    gradients = [
        parameter.grad for name, parameter in small.named_parameters() if "layer" in name and parameter.numel()
    ]
    assert sum(gradient is not None and bool(gradient.abs().sum() > 0) for gradient in gradients) > 10


@pytest.mark.process
def test_even_loads_in_a_process_without_sparsebert(tmp_path: Path):
    keep = {f"layer.{index}.neurons": torch.arange(NEURONS) % 3 == index % 3 for index in range(LAYERS)}
    for family in FAMILIES:
        model = tiny_model(family)
        small = shrink(model, keep, drop_layers=[LAYERS - 1], even=True)
        assert type(small) is type(model)
        assert_same(small, shrink(model, keep, drop_layers=[LAYERS - 1]))
        if family in OWN_FAMILIES:
            continue
        small.save_pretrained(tmp_path / family)
        torch.save((tiny_batch(), small(**tiny_batch()).logits.detach()), tmp_path / f"{family}.pt")
    code = (
        "import pathlib, sys, torch; sys.modules['sparsebert'] = None\n"
        "from transformers import AutoModelForSequenceClassification as Auto\n"
        f"for file in sorted(pathlib.Path({str(tmp_path)!r}).glob('*.pt')):\n"
        "    batch, expected = torch.load(file)\n"
        "    model = Auto.from_pretrained(file.with_suffix('')).eval()\n"
        "    print(file.stem, (model(**batch).logits - expected).abs().max().item())\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == [f"{family} 0.0" for family in sorted(FAMILIES) if family not in OWN_FAMILIES]


@pytest.mark.parametrize(
    ("keep", "dropped", "message"),
    [
        ({"layer.0.heads": torch.arange(HEADS) > 0}, [], r"all heads in every layer; got heads \[3, 4, 4\]"),
        ({"layer.0.neurons": torch.arange(NEURONS) > 0}, [], r"one feedforward width .* neurons \[23, 24, 24\]"),
        ({}, [0], "stock modernbert model needs its first layer"),
    ],
)
def test_uneven_shapes_are_refused_as_even(keep: dict[str, torch.Tensor], dropped: list[int], message: str):
    with pytest.raises(UserError, match=message):
        shrink(tiny_model("modernbert"), keep, drop_layers=dropped, even=True)


@pytest.mark.parametrize(
    ("keep", "dropped", "message"),
    [
        ({"layer.9.heads": NONE}, [], "group that the model does not have; got layer.9.heads"),
        ({"layer.0.heads": torch.ones(3, dtype=torch.bool)}, [], r"does not fit; got torch.bool of shape \(3,\)"),
        ({"layer.0.heads": torch.ones(HEADS)}, [], "got torch.float32"),
        ({}, [3], r"no such layer to drop; got \[3\]; allowed: 0-2"),
        ({}, [0, 1, 2], "At least one layer must stay"),
    ],
)
def test_masks_that_do_not_fit_are_refused(keep: dict[str, torch.Tensor], dropped: list[int], message: str):
    for cut in (shrink, mask_model):
        with pytest.raises(UserError, match=message):
            cut(tiny_model("bert"), keep, dropped)


def test_deberta_keeps_the_layer_its_convolution_reads():
    model = tiny_model("deberta-v2", conv_kernel_size=3)
    with pytest.raises(UserError, match="first layer of this model cannot be dropped"):
        shrink(model, {}, drop_layers=[0])
    masked, keep = copy.deepcopy(model), random_keep(model)
    mask_model(masked, keep, drop_layers=[1])
    assert_same(shrink(masked, keep, drop_layers=[1]), masked)


def test_a_model_for_another_task_is_refused():
    model = BertForMultipleChoice(tiny_model("bert").config)
    with pytest.raises(UserError, match=r"cannot be shrunk, .*; got BertForMultipleChoice; allowed: BertModel"):
        shrink(model, {})


class MeanPooled(BertForSequenceClassification):
    """Classifies the mean of all tokens, not the first."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.bert(input_ids, attention_mask)[0].mean(dim=1))


class OddBase(BertModel):
    """Has code of its own below a stock head."""


def test_classes_with_code_of_their_own_are_refused():
    model = tiny_model("bert")
    mean, odd = MeanPooled(model.config), tiny_model("bert")
    odd.bert = OddBase(model.config)
    for copied, name in ((mean, "MeanPooled"), (odd, "OddBase")):
        for cut in (lambda given: shrink(given, {}), lambda given: convert_ffn(given, depth=1)):
            with pytest.raises(UserError, match=f"code of its own would be lost; got {name}; allowed: BertModel, "):
                cut(copied)
    assert_same(shrink(shrink(model, {}), {}), model)


def test_check_finite_names_the_tensor():
    model = tiny_model("bert")
    check_finite(model)
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[0, 0] = float("nan")
    with pytest.raises(
        UserError, match=r"NaN or an infinite number; got bert\.encoder\.layer\.1\.output\.dense\.weight"
    ):
        check_finite(model)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_masks_shrink_exactly(data: st.DataObject):
    model = tiny_model("bert")
    keep = {
        group.name: torch.tensor(data.draw(st.lists(st.booleans(), min_size=group.units, max_size=group.units)))
        for group in layout_of(model).groups
    }
    dropped = data.draw(st.sets(st.integers(0, LAYERS - 1), max_size=LAYERS - 1))
    mask_model(model, keep, dropped)
    small = shrink(model, keep, dropped)
    kept = [index for index in range(LAYERS) if index not in dropped]
    assert small.config.layer_heads == [int(keep[f"layer.{index}.heads"].sum()) for index in kept]
    assert small.config.layer_neurons == [int(keep[f"layer.{index}.neurons"].sum()) for index in kept]
    assert_same(small, model)

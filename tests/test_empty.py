"""Blocks without heads or neurons: no product of width zero, and one map a layer. Exports are in test_engines.py."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from sparsebert.models.accelerate import accelerate
from sparsebert.models.layout import layout_of
from sparsebert.models.modeling_sparsebert import NoInputs
from sparsebert.models.surgeon import mask_model, shrink
from test_surgeon import ATTENTION, NO_NEURON, NONE, assert_same
from tiny import ARCHITECTURES, FAMILIES, HEADS, LAYERS, tiny_batch, tiny_model

EMPTY = {
    "heads": {"layer.1.heads": NONE},
    "neurons": {"layer.1.neurons": NO_NEURON},
    "both": {"layer.0.neurons": NO_NEURON, "layer.1.heads": NONE, "layer.1.neurons": NO_NEURON},
    "all": {
        f"layer.{i}.{kind}": gone for i in range(LAYERS) for kind, gone in (("heads", NONE), ("neurons", NO_NEURON))
    },
}


def emptied(family: str, which: str, **overrides: Any) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A masked model, and the shrunk one that computes the same; their biases are alive."""
    model = tiny_model(family, **overrides)
    mask_model(model, EMPTY[which])
    return model, shrink(model, EMPTY[which])


class EmptyProducts(TorchDispatchMode):
    """Notes every operator that reads a tensor without elements."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, torch.Tensor)]
        if any(tensor.numel() == 0 for tensor in read):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("which", EMPTY)
@pytest.mark.parametrize(("family", "attention"), ATTENTION)
def test_nothing_is_computed_of_an_empty_matrix(family: str, attention: str, which: str):
    masked, small = emptied(family, which, attn_implementation=attention)
    with EmptyProducts() as empty, torch.no_grad():
        small(**tiny_batch())
    assert empty.found == []
    assert_same(small, masked)


def test_the_check_above_sees_empty_matrices():
    with EmptyProducts() as empty, torch.no_grad():
        torch.zeros(3, 0) @ torch.zeros(0, 4)
    assert empty.found


def test_projections_without_inputs_give_their_bias_by_hand():
    linear = nn.Linear(3, 2)
    linear.weight = nn.Parameter(torch.zeros(2, 0))
    linear.bias = nn.Parameter(torch.tensor([1.5, -2.0]))
    assert NoInputs(linear)(torch.ones(2, 1, 7)).tolist() == [[[1.5, -2.0]]] * 2
    linear.bias = None
    assert NoInputs(linear)(torch.ones(2, 7)).tolist() == [[0.0, 0.0]] * 2


INPUTS = ("query", "key", "value", "intermediate", "lin1", "Wi", "Wqkv", "_lin.", "ffn.up", "attn.q.", "attn.k.")
INPUTS += ("attn.v.", "q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")


@pytest.mark.parametrize("family", FAMILIES)
def test_live_constants_of_whole_blocks_are_folded(family: str):
    model = tiny_model(family)
    silenced = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in silenced.named_parameters():
            inside = any(part in name for part in INPUTS)
            if inside and name.endswith("weight") and "out_lin" not in name:
                parameter.zero_()
    assert_same(shrink(model, EMPTY["all"]), silenced)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_takes_part_in_training(family: str):
    small = emptied(family, "both")[1].train()
    small(**tiny_batch(), labels=torch.tensor([0, 1, 2])).loss.backward()
    idle = [name for name, parameter in small.named_parameters() if parameter.numel() and parameter.grad is None]
    # Of a norm that comes before a block, nothing is left where the block reads nothing.
    norms = {
        "modernbert": ("attn_norm", "mlp_norm"),
        "eurobert": ("input_layernorm", "post_attention_layernorm"),
        "crammed-bert": ("attention_norm", "ffn_norm"),
    }
    attention, ffn = norms.get(family, ("", ""))
    before = (f"layers.0.{ffn}", f"layers.1.{ffn}", f"layers.1.{attention}") if family in norms else ()
    assert [name for name in idle if "layer" in name and not any(norm in name for norm in before)] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_files_copies_and_pickles_are_the_same_model(family: str, tmp_path: Path):
    small = emptied(family, "both")[1]
    small.save_pretrained(tmp_path)
    stream = io.BytesIO()
    torch.save(small, stream)
    stream.seek(0)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    for again in (loaded, copy.deepcopy(small), torch.load(stream, weights_only=False)):
        assert [type(part).__name__ for part in again.modules()] == [type(part).__name__ for part in small.modules()]
        assert torch.equal(again(**tiny_batch()).logits, small(**tiny_batch()).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_maps_are_one_a_layer_in_place(family: str):
    keep = {"layer.0.heads": torch.arange(HEADS) < 3, "layer.1.heads": NONE}
    model = tiny_model(family, attn_implementation="eager")
    small = shrink(model, keep)
    with torch.no_grad():
        maps = small(**tiny_batch(), output_attentions=True).attentions
        stock = model(**tiny_batch(), output_attentions=True).attentions
    # Two heads in each of the groups that can be cut.
    each = 2 if family == "eurobert" else 1
    assert [tuple(map_.shape) for map_ in maps] == [(3, heads * each, 12, 12) for heads in (3, 0, HEADS)]
    real = tiny_batch()["attention_mask"].bool()
    torch.testing.assert_close(maps[0].transpose(1, 2)[real], stock[0][:, : 3 * each].transpose(1, 2)[real])


def test_attention_that_gives_no_maps_gives_none_here_either():
    model = tiny_model("bert", attn_implementation="sdpa")
    small = shrink(model, EMPTY["heads"])
    found = [one(**tiny_batch(), output_attentions=True).attentions for one in (model, small)]
    assert found == [(), ()]
    small.set_attn_implementation("eager")
    assert len(small(**tiny_batch(), output_attentions=True).attentions) == LAYERS


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_accelerated_models_have_the_same_empty_blocks(family: str):
    model = tiny_model(family)
    with torch.no_grad():
        for parameter in (parameter for parameter in model.parameters() if parameter.dim() == 2):
            parameter.mul_(torch.rand_like(parameter) > 0.6)
    small = shrink(model, EMPTY["both"]).eval()
    fast = accelerate(small, tokens=8, worth=0)
    with torch.inference_mode():
        torch.testing.assert_close(fast(**tiny_batch()).logits, small(**tiny_batch()).logits, rtol=1e-4, atol=1e-5)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
@pytest.mark.parametrize("family", FAMILIES)
def test_any_blocks_may_be_empty(family: str, data: st.DataObject):
    model, kept = tiny_model(family), st.sampled_from(["none", "some", "all"])
    keep, generator = {}, torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    for group in layout_of(model).groups:
        some = torch.rand(group.units, generator=generator) < 0.5
        keep[group.name] = {"none": some & False, "some": some, "all": some | True}[data.draw(kept)]
    dropped = data.draw(st.sets(st.integers(0, LAYERS - 1), max_size=LAYERS - 1))
    mask_model(model, keep, dropped)
    small = shrink(model, keep, dropped)
    with EmptyProducts() as empty:
        assert_same(small, model)
    assert empty.found == []
    again = shrink(small, {})
    assert again.config.to_dict() == small.config.to_dict()
    assert_same(again, small)


def test_a_projection_without_inputs_asks_for_no_gradients_in_inference_mode():
    with torch.inference_mode():
        assert not NoInputs(nn.Linear(4, 2))(torch.ones(2, 1, 7)).requires_grad

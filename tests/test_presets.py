"""Sizes by name, and models of them with fresh weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config

from sparsebert.errors import UserError
from sparsebert.models.presets import new_model, preset_config, presets
from sparsebert.models.surgeon import shrink
from tiny import FAMILIES, HEADS, tiny_batch, tiny_model

# Turc et al. 2019, arXiv:1908.08962, table 1 (its models L/H): layers, hidden; heads of 64, four times as many neurons.
SIZES = {
    "tiny": (2, 128, 2, 512),
    "mini": (4, 256, 4, 1024),
    "small": (4, 512, 8, 2048),
    "medium": (8, 512, 8, 2048),
    "base": (12, 768, 12, 3072),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("form", "model_type"), [("bert", "bert"), ("crammed", "crammed-bert")])
def test_sizes(form: str, model_type: str, size: str):
    config = preset_config(f"{form}-{size}", vocab_size=1000, length=96)
    found = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.intermediate_size)
    assert found == SIZES[size]
    assert (config.model_type, config.vocab_size, config.max_position_embeddings) == (model_type, 1000, 96)


def test_all_names():
    assert presets() == tuple(f"{form}-{size}" for form in ("bert", "crammed") for size in SIZES)


def test_bert_tiny_has_the_parameters_of_the_released_one():
    # The released encoder has 4,385,920 with its pooler of 16,512; the head has a layer, a norm and a bias a word.
    model = new_model(preset_config("bert-tiny", 30522, 512), seed=0)
    assert model.num_parameters() == 4_385_920 - 16_512 + (128 * 128 + 128) + 2 * 128 + 30_522


def test_parameters_of_a_crammed_one_by_hand():
    # Words, a scale and two norms; in each layer attention, two norms, and 2 x 3584 rows with 3584 biases.
    model = new_model(preset_config("crammed-tiny", 1000, 64, fff="512x2"), seed=0)
    layer = 4 * 128 * 128 + 2 * 256 + 3584 * (2 * 128 + 1)
    assert model.num_parameters() == 1000 * 128 + 1 + 2 * 256 + 2 * layer
    bare = new_model(preset_config("crammed-tiny", 1000, 64, neurons=0), seed=0)
    assert bare.num_parameters() == 1000 * 128 + 1 + 2 * 256 + 2 * (4 * 128 * 128 + 256)
    narrow = preset_config("crammed-tiny", 1000, 64, neurons=12)
    assert (narrow.intermediate_size, preset_config("crammed-mini", 9, 9, fff="1x9").fff) == (12, "1x9")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_model_of_every_family_is_the_same_for_the_same_seed(family: str):
    config = tiny_model(family).config
    state = torch.get_rng_state()
    models = [new_model(config, seed) for seed in (3, 3, 4)]
    assert torch.equal(torch.get_rng_state(), state)
    one, again, other = (dict(model.named_parameters()) for model in models)
    assert all(torch.equal(weight, again[name]) for name, weight in one.items())
    assert any(not torch.equal(weight, other[name]) for name, weight in one.items())
    assert type(models[0]).__name__.endswith("ForMaskedLM") and not models[0].training
    assert {weight.dtype for weight in one.values()} == {torch.float32}
    with torch.no_grad():
        assert models[0](**tiny_batch()).logits.shape == (3, 12, 100)


def test_a_new_model_of_a_shrunk_shape():
    small = shrink(tiny_model("crammed-bert"), {"layer.0.heads": torch.arange(HEADS) < 1})
    model = new_model(small.config, seed=0)
    assert type(model).__name__ == "SparseCrammedBertForMaskedLM"
    assert model.get_parameter("crammed_bert.layers.0.attention.query.weight").shape == (8, 32)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("crammed-mino", {}, "Unknown preset 'crammed-mino'; allowed: bert-tiny, .*Did you mean 'crammed-mini'"),
        ("bert", {}, "Unknown preset 'bert'; allowed: bert-tiny"),
        ("bert-mini", {"fff": "512x2"}, "for crammed models; got bert-mini; allowed: crammed-mini"),
        ("bert-mini", {"neurons": 0}, "for crammed models; got bert-mini; allowed: crammed-mini"),
        ("bert-mini", {"vocab_size": 0}, "at least one token and one position; got 0 and 64"),
        ("bert-mini", {"length": 0}, "at least one token and one position; got 1000 and 0"),
        ("crammed-mini", {"fff": "x"}, "no size of a fast feedforward layer; got 'x'"),
    ],
)
def test_what_no_preset_can_be_is_refused(name: str, values: dict[str, Any], message: str):
    given: dict[str, Any] = {"vocab_size": 1000, "length": 64} | values
    with pytest.raises(UserError, match=message):
        preset_config(name, **given)


def test_a_family_that_is_not_supported_has_no_new_models():
    with pytest.raises(UserError, match="Unknown model family 'gpt2'"):
        new_model(GPT2Config(), seed=0)

"""Crammed BERT against a reference in numpy, and its forms: gated, with trees, without feedforward blocks."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import erf
from torch import nn
from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.fast_feedforward.layer import FastFeedForward
from sparsebert.models.crammed_config import CrammedBertConfig
from sparsebert.models.families import HeadName
from sparsebert.models.fff_sizes import FffSize, fff_sizes, parse_fff
from sparsebert.models.presets import new_model
from tiny import HEADS, HIDDEN, LAYERS, NEURONS, VOCAB, tiny_batch, tiny_model

FORMS: dict[str, dict[str, Any]] = {
    "dense": {},
    "gated": {"gated": True},
    "trees": {"fff": "4x2"},
    "no block": {"intermediate_size": 0},
}


def crammed(task: HeadName = "classification", **values: Any) -> Any:
    return tiny_model("crammed-bert", task, **values)


def labelled(seed: int = 0) -> dict[str, torch.Tensor]:
    """Tokens with a label at about a quarter of them, and -100 at the others."""
    batch, generator = tiny_batch(seed), torch.Generator().manual_seed(seed)
    chosen = torch.rand(batch["input_ids"].shape, generator=generator) < 0.25
    return batch | {"labels": torch.where(chosen, batch["input_ids"], -100)}


def norm(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * weights[f"{name}.weight"]
        + weights[f"{name}.bias"]
    )


def attention(x: np.ndarray, weights: dict[str, np.ndarray], name: str, mask: np.ndarray) -> np.ndarray:
    """One head after the other, one text after the other."""
    size, given = HIDDEN // HEADS, np.empty_like(x)
    for text in range(len(x)):
        for head in range(HEADS):
            rows = slice(head * size, (head + 1) * size)
            q, k, v = (x[text] @ weights[f"{name}.{part}.weight"][rows].T for part in ("query", "key", "value"))
            scores = np.where(mask[text] > 0, q @ k.T / np.sqrt(size), -np.inf)
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            given[text, :, rows] = shares / shares.sum(-1, keepdims=True) @ v
    return given @ weights[f"{name}.output.weight"].T


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def trees(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Every token walks down every tree."""
    w_in, b_in, w_out = (weights[f"{name}.{part}"] for part in ("w_in", "b_in", "w_out"))
    given = np.zeros_like(x)
    for place in np.ndindex(x.shape[:-1]):
        for tree in range(len(w_in)):
            node = 0
            while node < w_in.shape[1]:
                logit = w_in[tree, node] @ x[place] + b_in[tree, node]
                given[place] += gelu(logit) * w_out[tree, node]
                node = 2 * node + 1 + int(logit > 0)
    return given


def block(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    if f"{name}.w_in" in weights:
        return trees(x, weights, name)
    active = gelu(x @ weights[f"{name}.up.weight"].T)
    if f"{name}.gate.weight" in weights:
        active = active * (x @ weights[f"{name}.gate.weight"].T)
    return active @ weights[f"{name}.down.weight"].T


def reference(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> np.ndarray:
    """Logits of every word at every token."""
    weights = {name.removeprefix("crammed_bert."): one.double().numpy() for name, one in model.state_dict().items()}
    ids, mask = batch["input_ids"].numpy(), batch["attention_mask"].numpy()
    positions = np.array(
        [
            [
                (np.cos if column % 2 else np.sin)(place / 10000 ** (column // 2 * 2 / HIDDEN))
                for column in range(HIDDEN)
            ]
            for place in range(ids.shape[1])
        ]
    )
    words, scale = weights["embeddings.word_embeddings.weight"], weights["embeddings.position_embeddings.scale"]
    x = norm(words[ids] + scale * positions, weights, "embeddings.LayerNorm")
    for layer in (f"layers.{index}" for index in range(LAYERS)):
        x = x + attention(norm(x, weights, f"{layer}.attention_norm"), weights, f"{layer}.attention", mask)
        if f"{layer}.ffn_norm.weight" in weights:
            x = x + block(norm(x, weights, f"{layer}.ffn_norm"), weights, f"{layer}.ffn")
    return norm(x, weights, "final_norm") @ words.T


@pytest.mark.parametrize("attend", ["eager", "sdpa"])
@pytest.mark.parametrize("form", FORMS)
def test_it_computes_what_the_reference_does(form: str, attend: str):
    model, batch = crammed("masked_lm", attn_implementation=attend, **FORMS[form]), tiny_batch()
    with torch.no_grad():
        found = model(**batch).logits.numpy()
    real = batch["attention_mask"].bool().numpy()
    np.testing.assert_allclose(found[real], reference(model, batch)[real], rtol=1e-4, atol=2e-4)


def test_the_classifier_reads_the_first_token():
    model, batch = crammed(), tiny_batch()
    assert model.dense.out_features == 1024 and model.dropout.p == 0.1
    with torch.no_grad():
        first = model.crammed_bert(**batch).last_hidden_state[:, 0]
        hidden = (first @ model.dense.weight.T + model.dense.bias).tanh()
        expected = hidden @ model.classifier.weight.T + model.classifier.bias
        torch.testing.assert_close(model(**batch).logits, expected)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [([0, 1, 2], "single_label_classification"), ([[1.0, 0, 0], [0, 1, 1], [0, 0, 0]], "multi_label_classification")],
)
def test_the_classifier_has_the_loss_of_its_labels(labels: list[Any], problem: str):
    model, batch = crammed(), tiny_batch()
    with torch.no_grad():
        found = model(**batch, labels=torch.tensor(labels))
    logs = found.logits.log_softmax(-1) if problem.startswith("single") else None
    binary = nn.functional.binary_cross_entropy_with_logits
    expected = -logs[range(3), labels].mean() if logs is not None else binary(found.logits, torch.tensor(labels))
    assert model.config.problem_type == problem
    torch.testing.assert_close(found.loss, expected)


@pytest.mark.parametrize("form", FORMS)
def test_sparse_prediction_has_the_loss_and_gradient_of_the_full_one(form: str):
    batch, gradients, losses, read = labelled(), [], [], []
    for sparse in (True, False):
        model = crammed("masked_lm", sparse_prediction=sparse, **FORMS[form]).train()
        model.decoder.register_forward_pre_hook(lambda _, args: read.append(args[0].shape))
        found = model(**batch)
        found.loss.backward()
        losses.append(found.loss.item())
        gradients.append({name: one.grad for name, one in model.named_parameters()})
    count = int((batch["labels"] != -100).sum())
    assert 0 < count < 36 and read == [(count, HIDDEN), (3, 12, HIDDEN)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-6)
    model = crammed("masked_lm", **FORMS[form])
    with torch.no_grad():
        assert model(**batch).logits.shape == (3, 12, VOCAB)
        assert model(**batch).loss.item() == pytest.approx(losses[0], rel=1e-6)
        assert model.train()(**tiny_batch()).logits.shape == (3, 12, VOCAB)


@pytest.mark.parametrize("form", FORMS)
def test_padding_changes_nothing(form: str):
    model = crammed(**FORMS[form])
    short = tiny_batch(rows=1, length=7)
    longer = {name: nn.functional.pad(one, (0, 5)) for name, one in short.items()}
    other = longer | {"input_ids": torch.where(longer["attention_mask"] > 0, longer["input_ids"], 9)}
    with torch.no_grad():
        expected = model(**short).logits
        for batch in (longer, other):
            torch.testing.assert_close(model(**batch).logits, expected, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(model(input_ids=other["input_ids"]).logits, expected, atol=1e-3)


@pytest.mark.parametrize("size", ["24x0", "12x1", "3x2", "2x5", "1x7"])
def test_trees_train_and_evaluate_to_the_same(size: str):
    model = crammed("masked_lm", fff=size, sparse_prediction=False)
    found = [one for one in model.modules() if isinstance(one, FastFeedForward)]
    assert [one.name for one in found] == [size] * LAYERS and found[0].nodes == 2 ** (parse_fff(size).depth + 1) - 1
    with torch.no_grad():
        evaluated = model(**tiny_batch()).logits
    torch.testing.assert_close(model.train()(**tiny_batch()).logits, evaluated, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_it_learns(form: str):
    model = new_model(crammed(**FORMS[form]).config, seed=0).train()
    optimizer, batch, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), labelled(), []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(np.log(VOCAB), abs=0.2) and losses[-1] < 0.5 * losses[0]


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
def test_gradients_are_the_same_when_activations_are_computed_anew():
    gradients = []
    for again in (False, True):
        model = crammed("masked_lm").train()
        if again:
            model.gradient_checkpointing_enable()
        ran: list[object] = []
        model.crammed_bert.layers[0].ffn.up.register_forward_hook(lambda *_, ran=ran: ran.append(None))
        model(**labelled()).loss.backward()
        assert len(ran) == 1 + again
        gradients.append({name: one.grad for name, one in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


@pytest.mark.parametrize("form", FORMS)
def test_only_norms_nodes_and_the_classifier_have_biases(form: str):
    model = crammed(**FORMS[form])
    linear = [one for one in model.crammed_bert.modules() if isinstance(one, nn.Linear)]
    assert len(linear) == LAYERS * {"dense": 6, "gated": 7, "trees": 4, "no block": 4}[form]
    assert all(one.bias is None for one in linear)
    assert crammed("masked_lm").decoder.bias is None


# 100 words of 32, a scale, the first and the last norm; then 3 layers of 4 matrices of attention and a norm each.
AROUND, ATTENTION = 100 * 32 + 1 + 2 * 64, 3 * (4 * 32 * 32 + 64)


@pytest.mark.parametrize(
    ("form", "blocks"),
    [
        ("dense", 3 * (2 * 32 * 24 + 64)),
        ("gated", 3 * (3 * 32 * 24 + 64)),
        ("trees", 3 * (4 * 7 * (32 + 32 + 1) + 64)),
        ("no block", 0),
    ],
)
def test_parameters_counted_by_hand(form: str, blocks: int):
    for task in ("base", "masked_lm"):
        assert crammed(task, **FORMS[form]).num_parameters() == AROUND + ATTENTION + blocks
    head = 32 * 1024 + 1024 + 1024 * 3 + 3
    assert crammed(**FORMS[form]).num_parameters() == AROUND + ATTENTION + blocks + head


def test_weights_start_as_in_the_source():
    config = CrammedBertConfig(vocab_size=300, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, fff="2x6")
    model: Any = new_model(config, seed=1)
    scales = {name: one.std().item() for name, one in model.named_parameters() if one.dim() > 1 and "b_in" not in name}
    assert len(scales) == 1 + 2 * (4 + 2) and scales == pytest.approx(dict.fromkeys(scales, 0.02), rel=0.05)
    words = model.crammed_bert.get_input_embeddings().weight
    assert not words[0].any() and words[1:].any(dim=1).all()
    assert not any(one.any() for name, one in model.named_parameters() if name.endswith(("b_in", "bias")))
    assert model.get_parameter("crammed_bert.embeddings.position_embeddings.scale").tolist() == [
        pytest.approx(128**-0.5)
    ]


def test_states_and_maps_are_given_when_asked():
    model, batch = crammed("base", attn_implementation="eager"), tiny_batch()
    with torch.no_grad():
        found = model(**batch, output_hidden_states=True, output_attentions=True)
        plain = model(**batch)
        as_tuple = model(**batch, return_dict=False)
    assert plain.hidden_states is plain.attentions is None and torch.equal(as_tuple[0], plain.last_hidden_state)
    assert len(found.hidden_states) == LAYERS + 1 and torch.equal(found.hidden_states[-1], found.last_hidden_state)
    torch.testing.assert_close(found.hidden_states[0], model.embeddings(batch["input_ids"], None))
    assert [one.shape for one in found.attentions] == [(3, HEADS, 12, 12)] * LAYERS
    torch.testing.assert_close(found.attentions[0].sum(-1), torch.ones(3, HEADS, 12))


def test_words_can_be_given_as_embeddings_but_not_twice():
    model, ids = crammed(), tiny_batch()["input_ids"][:1]
    words = model.crammed_bert.get_input_embeddings()(ids)
    with torch.no_grad():
        torch.testing.assert_close(model(inputs_embeds=words).logits, model(input_ids=ids).logits)
        torch.testing.assert_close(model(input_ids=ids, token_type_ids=ids).logits, model(input_ids=ids).logits)
    for given in ({}, {"input_ids": ids, "inputs_embeds": words}):
        with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
            model(**given)
    with pytest.raises(ValueError, match="64 positions, the input is 65 tokens long"):
        model(input_ids=torch.full((1, 65), 5))


@pytest.mark.process
def test_another_process_loads_it_after_importing_the_package_alone(tmp_path: Path):
    tasks: dict[str, HeadName] = {
        "AutoModel": "base",
        "AutoModelForMaskedLM": "masked_lm",
        "AutoModelForSequenceClassification": "classification",
    }
    expected = {}
    for number, (form, (auto, task)) in enumerate(itertools.product(FORMS, tasks.items())):
        model, folder = crammed(task, **FORMS[form]), f"{number}-{auto}"
        model.save_pretrained(tmp_path / folder)
        with torch.no_grad():
            expected[folder] = model(torch.arange(3, 15)[None])[0].flatten().tolist()
        assert sorted(file.name for file in (tmp_path / folder).iterdir()) == ["config.json", "model.safetensors"]
    code = f"""
import sparsebert, json, torch, transformers
found = {{}}
for folder in {list(expected)}:
    assert transformers.AutoConfig.from_pretrained(folder).model_type == "crammed-bert"
    auto = getattr(transformers, folder.split("-")[1])
    model, report = auto.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()) and not model.training
    with torch.no_grad():
        found[folder] = model(torch.arange(3, 15)[None])[0].flatten().tolist()
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {folder: pytest.approx(values, abs=1e-5) for folder, values in expected.items()} == found


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fff": "512 x 2"}, r"no size of a fast feedforward layer; got '512 x 2'; allowed: TREESxDEPTH .* as 512x2"),
        ({"fff": "1x21"}, "no size of a fast feedforward layer"),
        ({"fff": "0x3"}, "no size of a fast feedforward layer"),
        ({"fff": "1x3", "gated": True}, "Fast feedforward layers of size 1x3 stand for a plain block; got gated"),
        ({"fff": "1x3", "intermediate_size": 0}, "size 1x3 stand for a plain block; got intermediate_size 0"),
        ({"num_attention_heads": 5}, "multiple of the number of attention heads; got 768 and 5"),
        ({"num_attention_heads": 0}, "multiple of the number of attention heads; got 768 and 0"),
        ({"hidden_size": 15, "num_attention_heads": 3}, "must be even, for sines and cosines; got 15"),
        ({"intermediate_size": -1}, "cannot have this size; got -1; allowed: 0 or more"),
        ({"max_position_embeddings": 0}, "cannot have that many positions; got 0; allowed: 1 to 65536"),
    ],
)
def test_values_that_do_not_go_together_are_refused(values: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        CrammedBertConfig(**values)


# The sizes of arXiv:2311.10770, table 1, and by hand: neurons that are trained, percent of them that a token uses.
TABLE = [
    ("3072x0", 3072, 100.0),
    ("1536x1", 4608, 66.7),
    ("512x2", 3584, 42.9),
    ("256x3", 3840, 26.7),
    ("128x4", 3968, 16.1),
    ("64x5", 4032, 9.5),
    ("32x6", 4064, 5.5),
    ("16x7", 4080, 3.1),
    ("8x8", 4088, 1.8),
    ("4x9", 4092, 1.0),
    ("2x10", 4094, 0.5),
    ("1x11", 4095, 0.3),
]


def test_sizes_are_those_of_the_paper():
    assert [one.name for one in fff_sizes(3072)] == [name for name, _, _ in TABLE]
    found = [parse_fff(name) for name, _, _ in TABLE]
    assert tuple(found) == fff_sizes(3072)
    assert [one.neurons for one in found] == [neurons for _, neurons, _ in TABLE]
    assert [round(100 * one.neurons_used / one.neurons, 1) for one in found] == [share for _, _, share in TABLE]
    assert found[-1] == FffSize(trees=1, depth=11) and found[-1].neurons_used == 12 and found[2].neurons_used == 1536


def test_sizes_of_other_widths():
    assert [one.name for one in fff_sizes(8)] == ["8x0", "4x1", "2x2", "1x3"]
    assert [[one.name for one in fff_sizes(width)] for width in (1, 2, 3)] == [["1x0"], ["2x0", "1x1"], ["3x0", "1x1"]]
    with pytest.raises(UserError, match="at least one neuron; got 0"):
        fff_sizes(0)
    assert NEURONS == 24 and [one.name for one in fff_sizes(NEURONS)] == ["24x0", "12x1", "4x2", "2x3", "1x4"]

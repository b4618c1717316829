"""What one family has and others have not: a bias for the heads of all layers, shared keys, turned queries."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from torch.nn import functional
from transformers import GteConfig, NomicBertConfig, NomicBertModel, XLMRobertaTokenizer

from sparsebert.errors import UserError
from sparsebert.groups import Slice
from sparsebert.models.families import family_of
from sparsebert.models.layout import layout_of
from sparsebert.models.limits import position_limit, reading_length
from sparsebert.models.load import load_config, load_model, load_tokenizer, save_model
from sparsebert.models.surgeon import mask_model, shrink
from sparsebert.models.unsupported import nearest_family
from sparsebert.recipe.load import load_recipe
from sparsebert.runs.context import set_up
from test_heads import rewrite
from test_surgeon import assert_same, outputs
from tiny import HEADS, HIDDEN, LAYERS, tiny_batch, tiny_model
from tiny_run import run_cli, save_tiny, write_task

SIZE = HIDDEN // HEADS


def heads(*kept: int) -> torch.Tensor:
    return torch.tensor([head in kept for head in range(HEADS)])


def test_mpnet_says_which_heads_of_the_dense_model_a_layer_kept():
    model = tiny_model("mpnet")
    first = shrink(model, {"layer.0.heads": heads(1, 2, 3), "layer.2.heads": heads()}, drop_layers=[1])
    assert first.config.kept_heads == [[1, 2, 3], []]
    second = shrink(first, {"layer.0.heads": torch.tensor([False, True, True])})
    assert second.config.kept_heads == [[2, 3], []]
    assert "kept_heads" not in shrink(tiny_model("bert"), {"layer.0.heads": heads(1)}).config.to_dict()


def test_a_head_of_mpnet_keeps_its_own_bias_by_hand():
    """One layer whose queries are zero attends by the bias alone."""
    model = tiny_model("mpnet", "base", num_hidden_layers=1)
    attention, batch = model.encoder.layer[0].attention.attn, tiny_batch(rows=1)
    with torch.no_grad():
        attention.q.weight.zero_(), attention.q.bias.zero_()
        hidden = model.embeddings(batch["input_ids"])
        values = attention.v(hidden).view(12, HEADS, SIZE)[:, 2]
        bias = model.encoder.compute_position_bias(hidden)[0, 2]
        found = functional.softmax(bias, dim=-1) @ values
        expected = functional.linear(found, attention.o.weight[:, 2 * SIZE : 3 * SIZE], attention.o.bias)
        mask_model(model, {"layer.0.heads": heads(2)})
        small = shrink(model, {"layer.0.heads": heads(2)}).encoder
        given = small.layer[0].attention.attn(hidden, None, small.compute_position_bias(hidden))[0][0]
    torch.testing.assert_close(given, expected)


def test_mpnets_bias_is_one_table_for_all_layers_and_learns():
    small = shrink(tiny_model("mpnet"), {f"layer.{index}.heads": heads(index) for index in range(LAYERS)}).train()
    table = small.mpnet.encoder.relative_attention_bias.weight
    assert table.shape == (32, HEADS)
    small(**tiny_batch(), labels=torch.tensor([0, 1, 2])).loss.backward()
    assert table.grad is not None
    assert [bool(column.any()) for column in table.grad.T] == [True, True, True, False]


@pytest.mark.parametrize("kept", [[[1, 0]], [[1, 4]], [[1]], [[1, 1]]])
def test_kept_heads_that_no_shrinking_gives_are_refused(kept: list[list[int]], tmp_path: Path):
    save_model(shrink(tiny_model("mpnet", num_hidden_layers=1), {"layer.0.heads": heads(0, 2)}), None, tmp_path)
    assert load_model(tmp_path).config.kept_heads == [[0, 2]]
    with pytest.raises(UserError, match=r"not valid: kept_heads; got .*; allowed: 2 of 0 to 3, rising"):
        load_config(rewrite(tmp_path, kept_heads=kept))
    with pytest.raises(UserError, match="kept_heads must have one entry a layer"):
        load_config(rewrite(tmp_path, kept_heads=[]))


def test_heads_that_share_a_key_are_cut_together():
    layout = layout_of(tiny_model("eurobert"))
    group, where = layout.groups[0], "model.layers.0.self_attn"
    assert (layout.full_heads, layout.head_size, group.units) == (HEADS, SIZE, HEADS)
    widths = {"q_proj": SIZE, "k_proj": SIZE // 2, "v_proj": SIZE // 2}
    assert group.inputs == tuple(
        Slice(f"{where}.{name}.{end}", 0, width) for end in ("weight", "bias") for name, width in widths.items()
    )
    assert group.output == Slice(f"{where}.o_proj.weight", 1, SIZE)
    assert group.constant == (Slice(f"{where}.v_proj.bias", 0, SIZE // 2),)


def test_a_group_of_heads_is_gone_from_every_projection():
    small = shrink(tiny_model("eurobert"), {"layer.0.heads": heads(0, 3)})
    attention = small.model.layers[0].self_attn
    shapes = [tuple(getattr(attention, f"{name}_proj").weight.shape) for name in "qkvo"]
    assert shapes == [(2 * SIZE, HIDDEN), (SIZE, HIDDEN), (SIZE, HIDDEN), (HIDDEN, 2 * SIZE)]
    assert small.config.num_attention_heads == 2 * HEADS and small.config.layer_heads == [2, HEADS, HEADS]


def test_groups_of_heads_are_named_as_such(tmp_path: Path):
    model = save_tiny(tmp_path / "model")
    tiny_model("eurobert", num_labels=2).save_pretrained(model)
    found = json.loads(run_cli("info", model, "--json").stdout)
    assert (found["full"]["heads"], found["heads_together"]) == (HEADS, 2)
    assert f"Groups of 2 heads, of {HEADS}" in run_cli("info", model).stdout
    data = write_task(tmp_path / "data")
    recipe = load_recipe(None, [f"model={model}", "task=mine", f"data={data}", "targets=[]"])
    assert [note for note in set_up(recipe, tmp_path / "out").notes if "heads" in note] == [
        "2 heads share keys and values, so that heads are counted, and cut, in such groups"
    ]


def test_one_key_for_all_heads_leaves_no_choice():
    model = tiny_model("eurobert", num_key_value_heads=1)
    assert [group.units for group in layout_of(model).groups if group.kind == "head"] == [1] * LAYERS
    keep = {"layer.1.heads": torch.tensor([False])}
    masked = copy.deepcopy(model)
    mask_model(masked, keep)
    assert_same(shrink(masked, keep), masked)


@pytest.mark.parametrize("family", ["nomic_bert", "eurobert", "gte"])
def test_heads_of_another_size_than_the_hidden_size_gives(family: str):
    model = tiny_model(family, head_dim=6)
    unit = 12 if family == "eurobert" else 6
    assert layout_of(model).head_size == unit == layout_of(model).groups[0].output.width
    masked, keep = copy.deepcopy(model), {"layer.0.heads": heads(1, 3), "layer.2.heads": heads()}
    mask_model(masked, keep)
    small = shrink(masked, keep)
    assert small.config.head_size == unit and (outputs(masked) - outputs(model)).abs().max() > 0.01
    assert_same(small, masked)


def test_the_size_of_a_head_is_in_the_configuration_or_follows_from_it():
    assert family_of(GteConfig()).head_size(GteConfig()) == 64
    large = NomicBertConfig(hidden_size=96, num_attention_heads=6, head_dim=32)
    assert family_of(large).head_size(large) == 32


def test_a_pooler_that_transformers_makes_on_demand_stays():
    config = tiny_model("nomic_bert", "base").config
    with torch.random.fork_rng():
        models = [NomicBertModel(config, add_pooling_layer=pooler).eval() for pooler in (True, False)]
    assert [shrink(model, {}).pooler is not None for model in models] == [True, False]


def test_the_pooler_that_a_family_classifies_with_is_in_its_models_of_pairs():
    model = tiny_model("nomic_bert", "pair_similarity")
    assert model.nomic_bert.pooler is not None and tiny_model("mpnet", "pair_similarity").mpnet.pooler is None
    with torch.no_grad():
        before = model(**tiny_batch(rows=4)).logits
        model.nomic_bert.pooler.dense.weight.zero_()
        assert not torch.equal(model(**tiny_batch(rows=4)).logits, before)


def test_mpnet_counts_positions_from_1_whatever_its_padding_token_is():
    model = tiny_model("mpnet", pad_token_id=7)
    assert position_limit(model.config) == 62
    with torch.no_grad():
        assert model(torch.full((1, 62), 5)).logits.isfinite().all()
        with pytest.raises(IndexError):
            model(torch.full((1, 63), 5))


def test_gte_without_segments_is_cut_and_loaded(tmp_path: Path):
    small = shrink(tiny_model("gte", type_vocab_size=0), {"layer.0.heads": heads(1)})
    save_model(small, None, tmp_path)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(**tiny_batch()).logits, small(**tiny_batch()).logits)


def unigram() -> XLMRobertaTokenizer:
    """Pieces of words with scores, and the special tokens at the places that XLM-RoBERTa has them."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [(one, 0.0) for one in special] + [("▁good", -1.0), ("▁", -2.0), *((letter, -3.0) for letter in "bad")]
    plain = Tokenizer(Unigram([*pieces, ("<mask>", 0.0)], unk_id=3))
    plain.pre_tokenizer = Metaspace()
    return XLMRobertaTokenizer(vocab=[*pieces, ("<mask>", 0.0)], model_max_length=10**30)


def test_pieces_of_a_unigram_are_read_up_to_the_positions_that_there_are(tmp_path: Path):
    model = tiny_model("xlm-roberta", pad_token_id=1, bos_token_id=0, max_position_embeddings=514)
    save_model(shrink(model, {"layer.1.heads": heads(0)}), unigram(), tmp_path)
    tokenizer, config = load_tokenizer(tmp_path), load_config(tmp_path)
    assert tokenizer("good bad")["input_ids"] == [0, 4, 5, 6, 7, 8, 2]
    assert reading_length(config, tokenizer) == 512
    long = tokenizer(["bad " * 600], truncation=True, max_length=512, return_tensors="pt")
    assert long["input_ids"].shape == (1, 512)
    with torch.no_grad():
        assert load_model(tmp_path)(**long).logits.isfinite().all()


def test_turned_positions_are_read_as_far_as_the_model_was_made_for():
    config = tiny_model("gte", max_position_embeddings=8192).config
    assert reading_length(config, unigram()) == 8192
    short = unigram()
    short.model_max_length = 100
    assert reading_length(config, short) == 100


@pytest.mark.parametrize(
    ("model_type", "nearest"),
    [
        ("new", "gte"),
        ("neobert", "eurobert"),
        ("albert", "bert"),
        ("jina_bert", "bert"),
        ("XLMRobertaFlash", "xlm-roberta"),
        ("nomic_bert_moe", "nomic_bert"),
        ("gpt2", None),
    ],
)
def test_the_nearest_family_of_another(model_type: str, nearest: str | None):
    assert nearest_family(model_type) == nearest


NEW = {"model_type": "new", "auto_map": {"AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"}}
MISREAD = {
    "no heads": ({"model_type": "eurobert", "num_key_value_heads": 0}, "num_key_value_heads; got 0; allowed: 1 up"),
    "new": (NEW, r"family 'new', which needs code of its own, .*; take a model of the nearest family, gte\.$"),
    "own code": (
        {"model_type": "eurobert", "auto_map": {"AutoModel": "modeling_eurobert.EuroBertModel"}},
        "its own code, which is never run here; .* the nearest family is eurobert, .* take auto_map out of the file",
    ),
    "pooling": ({"model_type": "eurobert", "clf_pooling": "bos"}, "got clf_pooling 'bos'; rename it to classifier_poo"),
    "sizes": ({"model_type": "nomic_bert", "n_embd": 768}, "its sizes under names that .* does not read; got n_embd"),
}


@pytest.mark.parametrize("name", MISREAD)
def test_what_would_be_computed_as_another_model_is_refused(name: str, tmp_path: Path):
    values, words = MISREAD[name]
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(UserError, match=words) as caught:
        load_config(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_same_pooling_under_both_names_is_none(tmp_path: Path):
    model = tiny_model("eurobert", classifier_pooling="mean")
    save_model(model, None, tmp_path)
    assert load_config(rewrite(tmp_path, clf_pooling="mean")).classifier_pooling == "mean"

"""Tokenising: what is kept, what is cut, and that the cut is counted."""

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from sparsebert.data.encode import encode
from sparsebert.errors import UserError
from sparsebert.models.limits import position_limit
from tiny import FAMILIES, tiny_model

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d"]


def tokenizer(inputs: tuple[str, ...] = ("input_ids", "token_type_ids", "attention_mask")) -> PreTrainedTokenizerFast:
    """One word a token; `[CLS] first [SEP] second [SEP]` as in BERT."""
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=6,
        model_input_names=list(inputs),
    )


def test_single_texts_by_hand():
    rows = Dataset.from_dict({"text_a": ["a b", "c zebra d"], "label": [1, 0]})
    encoded = encode(rows, tokenizer(), 8)
    assert encoded.dataset[:] == {
        "input_ids": [[2, 4, 5, 3], [2, 6, 1, 7, 3]],
        "token_type_ids": [[0] * 4, [0] * 5],
        "attention_mask": [[1] * 4, [1] * 5],
        "label": [1, 0],
        "length": [4, 5],
    }
    assert (encoded.truncated, encoded.notes, encoded.max_length) == (0, (), 8)


def test_pairs_lose_from_the_longer_text_first():
    rows = Dataset.from_dict({"text_a": ["a", "a"], "text_b": ["b", "b c d b c"], "label": [0.5, 1.5]})
    encoded = encode(rows, tokenizer(), 6)
    assert encoded.dataset["input_ids"][:] == [[2, 4, 3, 5, 3], [2, 4, 3, 5, 6, 3]]
    assert encoded.dataset["token_type_ids"][1] == [0, 0, 0, 1, 1, 1]
    assert encoded.dataset["label"][:] == [0.5, 1.5]
    assert encoded.truncated == 1


@pytest.mark.parametrize(("max_length", "limit", "used"), [(4, None, 4), (9, 4, 4), (4, 9, 4)])
def test_cut_texts_are_counted_and_said(max_length, limit, used):
    rows = Dataset.from_dict({"text_a": ["a b", "a b c", "a b c d a b c d"], "label": [0, 1, 0]})
    encoded = encode(rows, tokenizer(), max_length, model_limit=limit)
    assert encoded.max_length == used
    assert encoded.dataset["length"][:] == [4, 4, 4]
    assert encoded.dataset["input_ids"][2] == [2, 4, 5, 3]
    assert encoded.notes == ("2 of 3 texts were longer than 4 tokens and were truncated",)


def test_no_token_types_where_the_model_has_none():
    rows = Dataset.from_dict({"text_a": ["a"], "label": [0]})
    encoded = encode(rows, tokenizer(("input_ids", "attention_mask")), 8)
    assert encoded.dataset.column_names == ["input_ids", "attention_mask", "label", "length"]


def test_many_rows_keep_their_order_and_give_equal_fingerprints():
    texts = [" ".join("abcd"[(row + i) % 4] for i in range(row % 7 + 1)) for row in range(2500)]
    rows = Dataset.from_dict({"text_a": texts, "label": list(range(2500))})
    first, second = (encode(rows, tokenizer(), 6) for _ in range(2))
    assert first.dataset["label"][:] == list(range(2500))
    assert first.dataset["length"][:] == [min(row % 7 + 3, 6) for row in range(2500)]
    assert first.truncated == sum(row % 7 + 3 > 6 for row in range(2500))
    assert first.dataset._fingerprint == second.dataset._fingerprint


def test_a_token_id_that_the_model_does_not_have():
    rows = Dataset.from_dict({"text_a": ["a b", "d", "c"], "label": [0, 1, 0]})
    assert encode(rows, tokenizer(), 8, vocab_size=8).dataset["input_ids"][1] == [2, 7, 3]
    with pytest.raises(UserError, match=r"got 7; allowed: 0 to 6, as vocab_size is 7; use the model's own tokenizer"):
        encode(rows, tokenizer(), 8, vocab_size=7)


def test_a_padding_id_that_the_model_does_not_have():
    words = tokenizer()
    words.add_special_tokens({"pad_token": "[FILL]"})
    with pytest.raises(UserError, match=r"got 8; allowed: 0 to 7"):
        encode(Dataset.from_dict({"text_a": ["a"], "label": [0]}), words, 8, vocab_size=8)


# Of 64 rows; in these tests RoBERTa's padding token is 0, and MPNet's is always 1.
LIMITS = {"roberta": 63, "xlm-roberta": 63, "camembert": 63, "mpnet": 62}
WITHOUT = ("modernbert", "deberta-v2", "gte", "nomic_bert", "eurobert")


@pytest.mark.parametrize("family", [*FAMILIES, "deberta-v2 with positions"])
def test_a_model_takes_as_many_tokens_as_its_limit_says(family):
    name, *positions = family.split(" with ")
    model = tiny_model(name, **({"position_biased_input": True} if positions else {}))
    limit = position_limit(model.config)
    assert limit == (None if family in WITHOUT else LIMITS.get(family, 64))
    with torch.no_grad():
        # Token 5, as RoBERTa gives padding no position.
        assert model(input_ids=torch.full((1, limit or 200), 5)).logits.isfinite().all()
        if limit is not None:
            with pytest.raises((RuntimeError, IndexError, ValueError)):
                model(input_ids=torch.full((1, limit + 1), 5))

"""Batches: what a text is read as does not depend on its company, on the tokenizer's side, or on where it is made."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding, PreTrainedTokenizerFast

from sparsebert.data.encode import Encoded, encode
from sparsebert.errors import UserError
from sparsebert.models.limits import reading_length, segment_types
from sparsebert.recipe.schema import Distill
from sparsebert.training.collate import padding_collator
from sparsebert.training.distill import Distiller
from sparsebert.training.evaluate import predict_logits
from sparsebert.training.teacher import cache_teacher, layer_outputs
from tiny import LAYERS, tiny_model

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"abcdefgh"]
TEXTS = ["a", "b c d e f g h a b", "c d", "e f g h e f"]


def tokenizer(special: bool = True, **options: Any) -> PreTrainedTokenizerFast:
    """One word a token, for every family; with `special` as in BERT, `[CLS] first [SEP] second [SEP]`."""
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        core.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    names = ["input_ids", "token_type_ids", "attention_mask"]
    given = {"padding_side": "left", "pad_token": "[PAD]", "unk_token": "[UNK]", "model_input_names": names} | options
    return PreTrainedTokenizerFast(tokenizer_object=core, **given)


def rows(texts: list[str], **columns: list[str]) -> Dataset:
    return Dataset.from_dict({"text_a": texts, **columns, "label": [0] * len(texts)})


def encoded(model: Any, words: PreTrainedTokenizerFast, texts: list[str], **columns: list[str]) -> Encoded:
    config = model.config
    return encode(rows(texts, **columns), words, 32, None, config.vocab_size, segment_types(config))


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("masked", [True, False])
def test_a_text_is_read_the_same_alone_and_in_company(family, masked):
    model = tiny_model(family)
    words = tokenizer(**({} if masked else {"model_input_names": ["input_ids"]}))
    found = encoded(model, words, TEXTS).dataset
    together = predict_logits(model, found, padding_collator(words))
    alone = [predict_logits(model, found.select([row]), padding_collator(words))[0] for row in range(len(TEXTS))]
    assert np.abs(together - np.stack(alone)).max() < 1e-5


def test_a_batch_by_hand():
    words = tokenizer(pad_token="[UNK]")
    found = encoded(tiny_model("bert"), words, ["a", "b c"]).dataset.add_column("row", [7, 8])
    batch = padding_collator(words)([found[0], found[1]])
    assert {name: value.tolist() for name, value in batch.items()} == {
        "input_ids": [[1, 4, 2, 3], [1, 5, 6, 2]],
        "attention_mask": [[1, 1, 1, 0], [1, 1, 1, 1]],
        "token_type_ids": [[0, 0, 0, 0], [0, 0, 0, 0]],
        "labels": [0, 0],
        "rows": [7, 8],
    }


class OnTheLeft:
    """A script's own collator: that of transformers, for a tokenizer that pads on the left."""

    def __init__(self, words: PreTrainedTokenizerFast) -> None:
        self._pad = DataCollatorWithPadding(words)

    def __call__(self, given: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = dict(self._pad([{key: row[key] for key in ("input_ids", "attention_mask", "label")} for row in given]))
        return batch | {"rows": torch.tensor([row["row"] for row in given])}


# RoBERTa counts positions from the first token that is not padding, so it may stand on either side.
@pytest.mark.parametrize(("family", "left"), [("bert", False), ("roberta", False), ("roberta", True)])
def test_a_model_learns_nothing_from_itself(tmp_path, family, left):
    model, words = tiny_model(family), tokenizer()
    found = encoded(model, words, TEXTS).dataset.add_column("row", list(range(len(TEXTS))))
    collate = OnTheLeft(words) if left else padding_collator(words)
    cache = cache_teacher(model, found, collate, tmp_path / "teacher", hidden=True)
    distiller = Distiller(cache, Distill(labels=0, logits=0, hidden=1), tuple(range(LAYERS)))
    batch = distiller.collator(collate)([found[row] for row in (1, 0, 3)])
    assert (batch["attention_mask"][1, 0] == 0) == left
    with torch.no_grad(), layer_outputs(model) as layers:
        output = model(**{name: batch[name] for name in ("input_ids", "attention_mask", "labels")})
    assert float(distiller.loss(output, layers, batch)) < 1e-5


@pytest.mark.parametrize("family", ["distilbert", "modernbert", "roberta", "deberta-v2", "bert"])
def test_segments_that_a_model_does_not_have(family):
    one = {"type_vocab_size": 1} if family in ("roberta", "bert") else {}
    model, words = tiny_model(family, **one), tokenizer()
    assert segment_types(model.config) == (1 if one else 0)
    found = encoded(model, words, ["a", "b c"], text_b=["d", "e"]).dataset
    assert "token_type_ids" not in found.column_names
    assert np.isfinite(predict_logits(model, found, padding_collator(words))).all()


def test_more_segments_than_a_model_has():
    words = tokenizer()
    words._tokenizer.post_processor = processors.TemplateProcessing("$A:2", "$A:2 $B:3", [])
    with pytest.raises(UserError, match=r"a segment id that .*; got 2; allowed: 0 to 1, as type_vocab_size is 2"):
        encoded(tiny_model("bert"), words, ["a"])


def test_a_text_without_tokens_is_named():
    model, words = tiny_model("bert"), tokenizer(special=False)
    assert len(encoded(model, tokenizer(), ["a", ""]).dataset) == 2
    for empty in ("", "  "):
        with pytest.raises(UserError, match=r"Text 1001 gives no tokens: it is empty for this tokenizer") as caught:
            encoded(model, words, ["a"] * 1000 + [empty, "b"])
        assert "\n" not in str(caught.value)


def test_collators_can_be_sent_to_workers(tmp_path):
    model, words = tiny_model("bert"), tokenizer()
    found = encoded(model, words, TEXTS).dataset.add_column("row", list(range(len(TEXTS))))
    collate = padding_collator(words)
    cache = cache_teacher(model, found, collate, tmp_path / "teacher", hidden=True)
    taught = Distiller(cache, Distill(), (0, 2)).collator(collate)
    given = [found[row] for row in range(3)]
    for one in (collate, taught):
        expected, got = one(given), pickle.loads(pickle.dumps(one))(given)
        assert expected.keys() == got.keys()
        assert all(torch.equal(expected[name], got[name]) for name in expected)


@pytest.mark.process
def test_workers_of_their_own_interpreter_make_the_same_batches():
    words = tokenizer()
    found = encoded(tiny_model("bert"), words, TEXTS).dataset
    collate = padding_collator(words)
    loader = DataLoader(found, 2, collate_fn=collate, num_workers=1, multiprocessing_context="spawn")
    for start, batch in zip((0, 2), loader, strict=True):
        expected = collate([found[row] for row in (start, start + 1)])
        assert all(torch.equal(batch[name], expected[name]) for name in expected)


def test_the_length_that_is_read(tmp_path):
    config = tiny_model("bert").config
    for saved, length in ((None, 64), (24, 24), (500, 64)):
        words = tokenizer(**({} if saved is None else {"model_max_length": saved}))
        words.save_pretrained(tmp_path / "words")
        again = PreTrainedTokenizerFast.from_pretrained(tmp_path / "words")
        assert reading_length(config, again) == length
    for saved in (0, "long", float("nan")):
        words.model_max_length = saved
        with pytest.raises(UserError, match=r"model_max_length is no length of a text; got"):
            reading_length(config, words)

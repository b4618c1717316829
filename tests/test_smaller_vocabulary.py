"""Fewer entries in a tokenizer and fewer rows in a model: texts of what stays are read and answered as before."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizerFast, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from sparsebert.data.smaller_vocabulary import choose_entries, count_changed, count_entries, cut_tokenizer, kept_ids
from sparsebert.errors import UserError
from sparsebert.models.load import load_model, load_tokenizer, save_model
from sparsebert.models.smaller_vocabulary import cut_vocabulary
from tiny import FAMILIES, VOCAB, tiny_model

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LEARNED = ["the cat sat on the mats", "a bat ate that matter", "cats that bat at mats", "naïve café tea at the sea"] * 9
LETTERS = st.text("abcehmst ïé日Z.", max_size=30)


@cache
def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Learned from a few sentences, so that words are in pieces of several lengths."""
    core, trainer = {
        "WordPiece": lambda: (
            Tokenizer(models.WordPiece(unk_token="[UNK]")),
            trainers.WordPieceTrainer(vocab_size=90, special_tokens=SPECIAL, show_progress=False),
        ),
        "BPE": lambda: (
            Tokenizer(models.BPE()),
            trainers.BpeTrainer(
                vocab_size=300,
                special_tokens=SPECIAL,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            ),
        ),
        "Unigram": lambda: (
            Tokenizer(models.Unigram()),
            trainers.UnigramTrainer(vocab_size=60, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False),
        ),
    }[kind]()
    if kind == "BPE":
        core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    else:
        core.normalizer, core.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    core.train_from_iterator(LEARNED, trainer)
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=core, mask_token="[MASK]", **names)


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(found, expected, atol=1e-5)


def cut_to(words: PreTrainedTokenizerBase, texts: Sequence[str], most: int | None = None) -> Any:
    """The ids that stay for some texts, and the tokenizer that has no others."""
    ids = kept_ids(words, choose_entries(words, count_entries(words, texts), most))
    return ids, cut_tokenizer(words, ids)


@pytest.mark.parametrize("kind", ["WordPiece", "BPE", "Unigram"])
@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(seen=st.lists(LETTERS, max_size=4), texts=st.lists(LETTERS, min_size=1, max_size=8))
def test_texts_of_what_stays_are_read_as_before(kind: str, seen: list[str], texts: list[str]):
    """Pairs and special tokens included; all others have tokens that are there."""
    words = tokenizer(kind)
    ids, small = cut_to(words, seen)
    assert len(small) == len(ids)
    changed = 0
    for text in [*texts, *seen]:
        before, after = words(text, "the sea")["input_ids"], small(text, "the sea")["input_ids"]
        alone = words(text, add_special_tokens=False)["input_ids"]
        found = [ids[number] for number in small(text, add_special_tokens=False)["input_ids"]]
        if set(alone) <= set(ids):
            assert found == alone
        assert (after[0], after[-1]) == (small.cls_token_id, small.sep_token_id)
        assert max(after) < len(ids) and (before[0], before[-1]) == (ids[after[0]], ids[after[-1]])
        changed += found != alone
    assert count_changed(words, small, ids, [*texts, *seen]) == changed
    assert all(ids[small.convert_tokens_to_ids(name)] == words.convert_tokens_to_ids(name) for name in SPECIAL)


def test_entries_by_hand():
    """Words that nothing uses go, and are read by their letters, of which those of ASCII and of the texts stay."""
    listed = [*SPECIAL, "good", "bad", "bade", "##s", "g", "##o", "##d", "b", "##a", "a", "##e", "日", "é", "##é"]
    words = BertTokenizerFast(vocab={entry: number for number, entry in enumerate(listed)}, strip_accents=False)
    ids, small = cut_to(words, ["goods é"])
    assert [listed[number] for number in ids] == [entry for entry in listed if entry not in ("bad", "bade", "日")]
    assert small.tokenize("goods bade 日") == ["good", "##s", "b", "##a", "##d", "##e", "[UNK]"]
    assert (small.pad_token_id, small.mask_token_id, small.convert_tokens_to_ids("good")) == (0, 4, 5)


def test_so_many_stay_the_commonest_first():
    listed = [*SPECIAL, "one", "two", "three", "a"]
    words = BertTokenizerFast(vocab={entry: number for number, entry in enumerate(listed)})
    for most, expected in ((6, []), (7, ["two"]), (8, ["one", "two"]), (99, ["one", "two", "three"])):
        ids, _ = cut_to(words, ["two two one three two one"], most)
        assert [listed[number] for number in ids] == [*SPECIAL, *expected, "a"]
    with pytest.raises(UserError, match=r"smaller than what it cannot do without; got 5; allowed: 6 up"):
        cut_to(words, ["two"], 5)


def test_merges_on_the_way_stay():
    """`abc` is made of `ab`, which no text uses by itself, and `bc` is not on its way."""
    letters = {letter: number for number, letter in enumerate("abc")}
    core = Tokenizer(
        models.BPE(vocab=letters | {"ab": 3, "bc": 4, "abc": 5}, merges=[("a", "b"), ("b", "c"), ("ab", "c")])
    )
    words = PreTrainedTokenizerFast(tokenizer_object=core)
    ids, small = cut_to(words, ["abc"])
    assert ids == [0, 1, 2, 3, 5] and small.tokenize("abc") == ["abc"] and small.tokenize("bc") == ["b", "c"]


def test_no_letter_is_lost_by_bytes():
    """A byte-level tokenizer has no unknown token: what it has no entry for would vanish."""
    words = tokenizer("BPE")
    _, small = cut_to(words, ["the cat"])
    for text in ("the\ncat", "caf\u00e9", "\u65e5\u672c \x00"):
        assert small.decode(small(text, add_special_tokens=False)["input_ids"]) == text


def test_added_entries_are_reached_as_before():
    """`the` is an added word and an entry of the merges, whose way there stays."""
    letters = {letter: number for number, letter in enumerate("theab")}
    vocabulary, merges = letters | {"th": 5, "the": 6}, [("t", "h"), ("th", "e")]
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    core.add_tokens([AddedToken("the", single_word=True)])
    words = PreTrainedTokenizerFast(tokenizer_object=core)
    ids, small = cut_to(words, ["a"])
    assert ids == list(range(7)) and small.tokenize("athe") == words.tokenize("athe") == ["a", "the"]


@pytest.mark.parametrize("mark", ["end_of_word_suffix", "continuing_subword_prefix"])
def test_merges_of_marked_parts_of_words_are_refused(mark: str):
    core = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[], **{mark: "@"}))
    with pytest.raises(UserError, match=f"marks parts of words cannot be cut; got {mark}"):
        cut_to(PreTrainedTokenizerFast(tokenizer_object=core), ["a"])


def test_a_list_with_an_entry_twice_is_refused():
    core = Tokenizer(models.Unigram([("[UNK]", 0.0), ("a", -1.0), ("b", -2.0), ("a", -3.0), ("c", -4.0)], 0, False))
    with pytest.raises(UserError, match=r"cannot be numbered anew"):
        cut_to(PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]"), ["a c"])


def test_a_tokenizer_of_another_kind_is_refused():
    class Slow(PreTrainedTokenizerBase):
        pass

    with pytest.raises(UserError, match=r"of a tokenizer of the library `tokenizers` can be cut; got Slow"):
        count_entries(Slow(), ["text"])


@pytest.mark.parametrize("head", ["classification", "masked_lm"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_with_fewer_rows_gives_the_same(family: str, head: Any, tmp_path: Path):
    model = tiny_model(family, head)
    ids = [0, 1, 2, 5, 17, 40, 41, VOCAB - 1]
    small = cut_vocabulary(model, ids)
    given = torch.tensor([[1, 3, 4, 7, 2], [1, 5, 6, 2, 0]])
    mask = (given != 0).long()
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor(ids)[given], attention_mask=mask).logits
        found = small(input_ids=given, attention_mask=mask).logits
        # A product with fewer columns may round otherwise.
        assert torch.equal(found, expected) if head == "classification" else close(found, expected[..., ids])
        save_model(small, None, tmp_path / "small")
        again = load_model(tmp_path / "small")
        assert torch.equal(again(input_ids=given, attention_mask=mask).logits, found)
    assert small.config.vocab_size == len(ids) and model.config.vocab_size == VOCAB
    table = model.get_input_embeddings()
    assert isinstance(table, torch.nn.Embedding) and len(table.weight) == VOCAB


def test_the_ids_of_the_configuration_follow():
    small = cut_vocabulary(tiny_model("modernbert", pad_token_id=60, cls_token_id=41, mask_token_id=50), [1, 2, 41, 60])
    config = small.config
    assert (config.pad_token_id, config.cls_token_id, config.bos_token_id, config.mask_token_id) == (3, 2, 0, None)


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2"])
def test_a_head_with_weights_of_its_own(family: str, tmp_path: Path):
    small = cut_vocabulary(tiny_model(family, "masked_lm", tie_word_embeddings=False), [0, 1, 2, 50])
    save_model(small, None, tmp_path / "small")
    given = torch.tensor([[1, 3, 2]])
    assert torch.equal(load_model(tmp_path / "small")(given).logits, small(given).logits)


def test_a_padding_id_that_goes_is_none():
    small = cut_vocabulary(tiny_model("bert", pad_token_id=5), [0, 1, 2])
    assert small.config.pad_token_id is None and small(torch.tensor([[1, 2]])).logits.isfinite().all()


def test_an_id_that_a_configuration_cannot_be_without_is_refused():
    with pytest.raises(UserError, match="The token of the configuration's mask_token_id cannot go; got id 41"):
        cut_vocabulary(tiny_model("eurobert"), [0, 1, 2])


def test_an_id_without_a_row_is_refused():
    with pytest.raises(UserError, match=f"no embedding for, and that cannot go; got id {VOCAB}; allowed: 0 to 99"):
        cut_vocabulary(tiny_model("bert"), [0, 1, VOCAB])


def test_roberta_counts_positions_from_the_padding_id():
    with pytest.raises(UserError, match="has to keep its id"):
        cut_vocabulary(tiny_model("roberta", pad_token_id=7), [0, 1, 7])


def test_saved_tokenizers_are_those_in_memory(tmp_path: Path):
    ids, small = cut_to(tokenizer("Unigram"), ["the cat sat"])
    save_model(cut_vocabulary(tiny_model("bert"), ids), small, tmp_path / "model")
    again = load_tokenizer(tmp_path / "model")
    assert again("the cat sat on 日")["input_ids"] == small("the cat sat on 日")["input_ids"]

"""BERT's tokenizer, trained or of a vocabulary: what it splits, that it is the same again, and what mistakes say."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, BertTokenizer

from sparsebert.data import wordpiece
from sparsebert.data.wordpiece import SPECIAL, tokenizer_of_vocabulary, train_wordpiece
from sparsebert.errors import UserError

DRAW = random.Random(0)
STEMS = ["walk", "talk", "sing", "jump", "Zürich", "Overlook", "na", "ö"]
ENDS = ["", "ing", "ed", "er", "s", "ers", ".", ",", "-"]
DOCUMENTS = [" ".join(DRAW.choice(STEMS) + DRAW.choice(ENDS) for _ in range(50)) for _ in range(40)]


def tokens_of(tokenizer: Any) -> list[str]:
    ids = tokenizer.get_vocab()
    return sorted(ids, key=ids.__getitem__)


def test_special_tokens_come_first_and_frame_texts_and_pairs() -> None:
    tokenizer: Any = train_wordpiece(DOCUMENTS, 120)
    assert tokens_of(tokenizer)[:5] == list(SPECIAL) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.all_special_ids and set(tokenizer.all_special_ids) == {0, 1, 2, 3, 4}
    assert tokenizer.mask_token_id == 4 and tokenizer.pad_token_id == 0
    single, pair = tokenizer("talk"), tokenizer("talk", "walk")
    assert single["input_ids"][0] == 2 and single["input_ids"][-1] == 3
    assert tokenizer.convert_ids_to_tokens(pair["input_ids"]) == ["[CLS]", "talk", "[SEP]", "walk", "[SEP]"]
    assert pair["token_type_ids"] == [0, 0, 0, 1, 1]


def test_pieces_are_the_most_frequent_pairs() -> None:
    # Letters a, b, c, ##b, ##c; pairs: a ##b 5 times, then ab ##c 3 times, then b ##c 2 times.
    tokenizer = train_wordpiece(["abc abc abc ab ab", "bc bc"], 13)
    assert tokens_of(tokenizer) == [*SPECIAL, "a", "b", "c", "##b", "##c", "ab", "abc", "bc"]
    assert tokens_of(train_wordpiece(["abc abc abc ab ab bc bc"], 11))[-1] == "ab"
    # What is there once is no piece, however much room there is.
    assert len(tokens_of(train_wordpiece(["abc abc abc ab ab bc bc xy"], 99))) == 10 + 3 + 3


def test_case_accents_and_punctuation_are_bert_s() -> None:
    uncased, cased = train_wordpiece(DOCUMENTS, 200), train_wordpiece(DOCUMENTS, 200, lower=False)
    assert uncased.tokenize("Zürich, Overlook") == ["zurich", ",", "overlook"]
    assert cased.tokenize("Zürich, Overlook") == ["Zürich", ",", "Overlook"]
    assert uncased.tokenize("walk 語") == ["walk", "[UNK]"]


def test_all_of_a_text_is_split_without_unknown_words_and_read_back() -> None:
    tokenizer = train_wordpiece(DOCUMENTS, 80)
    for text in DOCUMENTS:
        assert "[UNK]" not in tokenizer.tokenize(text)
    assert tokenizer.decode(tokenizer("walking talker", add_special_tokens=False)["input_ids"]) == "walking talker"


def test_it_loads_again_as_a_tokenizer_of_bert(tmp_path: Path) -> None:
    tokenizer = train_wordpiece(DOCUMENTS, 150, lower=False)
    tokenizer.save_pretrained(tmp_path)
    loaded: Any = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(loaded, BertTokenizer) and loaded.is_fast
    assert tokens_of(loaded) == tokens_of(tokenizer)
    for text in ("Zürich walkers", "na [MASK] ö"):
        assert dict(loaded(text, text)) == dict(tokenizer(text, text))


def test_the_order_of_documents_and_what_is_held_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    known = tokens_of(train_wordpiece(DOCUMENTS, 150))
    assert tokens_of(train_wordpiece(iter(DOCUMENTS[::-1]), 150)) == known
    monkeypatch.setattr(wordpiece, "_WORDS_HELD", 3)
    monkeypatch.setattr(wordpiece, "_REPEATED_AT_ONCE", 2)
    assert tokens_of(train_wordpiece(DOCUMENTS, 150)) == known


@pytest.mark.process
def test_other_processes_train_the_same_tokenizer() -> None:
    # Words of few letters in many orders, so that many pairs are equally frequent.
    code = """
from itertools import product
from sparsebert.data.wordpiece import train_wordpiece
words = ["".join(letters) for letters in product("abcdefgh", repeat=4)]
ids = train_wordpiece([" ".join(words + words[::3])], 150).get_vocab()
print(sorted(ids, key=ids.get))
"""
    done = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    assert len({one.stdout for one in done}) == 1 and len(done[0].stdout) > 500


def test_rare_letters_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordpiece, "_ALPHABET", 2)
    tokenizer = train_wordpiece(["ab ab ab", "ac ac"], 50)
    assert tokens_of(tokenizer) == [*SPECIAL, "a", "b", "##b", "ab"]
    assert tokenizer.tokenize("ab ac") == ["ab", "[UNK]"]


@pytest.mark.parametrize("documents", [[], ["", " \n"], ["\u0000\ufffd"]])
def test_without_text_there_is_no_tokenizer(documents: list[str]) -> None:
    with pytest.raises(UserError, match="no text to train a tokenizer on"):
        train_wordpiece(documents, 100)


def test_a_vocabulary_holds_the_letters_at_least() -> None:
    with pytest.raises(UserError, match=r"too small for the letters.*got 9; allowed: at least 10"):
        train_wordpiece(["abc abc"], 9)
    assert len(tokens_of(train_wordpiece(["abc abc"], 10))) == 10


def vocabulary(path: Path, *tokens: str, end: str = "\n") -> Path:
    path.write_bytes(end.join([*tokens, ""]).encode())
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_of_a_vocabulary_are_numbered(tmp_path: Path, end: str) -> None:
    file = vocabulary(tmp_path / "vocab.txt", "[PAD]", "[unused0]", *SPECIAL[1:], "walk", "##ing", "\u2028", end=end)
    tokenizer: Any = tokenizer_of_vocabulary(file)
    assert tokenizer("Walking")["input_ids"] == [3, 6, 7, 4]
    assert tokenizer.mask_token_id == 5 and len(tokenizer) == 9


def test_a_capital_letter_makes_a_vocabulary_cased(tmp_path: Path) -> None:
    file = vocabulary(tmp_path / "vocab.txt", *SPECIAL, "walk", "Walk")
    assert tokenizer_of_vocabulary(file).tokenize("Walk walk WALK") == ["Walk", "walk", "[UNK]"]


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (SPECIAL[:-1], r"lacks \[MASK\]"),
        (("walk",), r"lacks \[PAD\], \[UNK\], \[CLS\], \[SEP\], \[MASK\]"),
        ((*SPECIAL, "a", "b", "a"), "Line 8 of the vocabulary .* repeats line 6; got a"),
        ((*SPECIAL, "", "b"), "Line 6 of the vocabulary .* is empty"),
    ],
)
def test_what_a_bad_vocabulary_says(tmp_path: Path, tokens: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        tokenizer_of_vocabulary(vocabulary(tmp_path / "vocab.txt", *tokens))


def test_a_vocabulary_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read; got No such file"):
        tokenizer_of_vocabulary(tmp_path / "none.txt")
    file = tmp_path / "latin.txt"
    file.write_bytes(b"[PAD]\ncaf\xe9\n")
    with pytest.raises(UserError, match=r"is not UTF-8 .*at byte 9"):
        tokenizer_of_vocabulary(file)

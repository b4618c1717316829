"""Words with tags: entities by hand and by nervaluate, places of words among tokens, and the kind's contract."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nervaluate import Evaluator
from transformers import BertTokenizerFast

from sparsebert.data.encode import encode
from sparsebert.data.file_tokenizer import FileTokenizer
from sparsebert.data.labels import labels_of
from sparsebert.data.rows import standard_rows
from sparsebert.data.tagged import read_tagged
from sparsebert.data.tokens import Reader
from sparsebert.errors import UserError
from sparsebert.models.heads import has_task_head, kind_of, saved_kind
from sparsebert.models.layout import layout_of
from sparsebert.models.load import load_config, load_model, save_model
from sparsebert.models.storage import Packing
from sparsebert.models.surgeon import mask_model, shrink
from sparsebert.tasks.bootstrap import resampled_scores
from sparsebert.tasks.entities import begun, entities, first_tokens, tag_codes, tagged_words, types_of, words_in
from sparsebert.tasks.kind import IGNORED, Passage
from sparsebert.tasks.metrics import constant_scores, score, score_with_reasons
from sparsebert.tasks.table import TaskSpec
from sparsebert.tasks.tokens import TOKENS, entity_counts
from sparsebert.training.collate import padding_collator
from sparsebert.training.evaluate import predict_logits
from sparsebert.training.teacher import cache_teacher
from tiny import FAMILIES, tiny_batch, tiny_model
from tiny_run import SPECIAL

TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
PIECES = ("ada", "lo", "##vel", "##ace", "met", "in", "new", "york", ".", "##s")
SPEC = TaskSpec("mine", ("text",), TAGS, TOKENS.metrics, "", label="tags", kind="tokens")
# One text of two entities and one of none.
CONLL = "Ada B-PER\nLovelace I-PER\nmet O\nNew B-LOC\nYork I-LOC\n\nMet O\n. O\n"


def tokenizer() -> BertTokenizerFast:
    return BertTokenizerFast(vocab={word: number for number, word in enumerate((*SPECIAL, *PIECES))})


@pytest.fixture
def rows(tmp_path: Path):
    (tmp_path / "a.conll").write_text(CONLL, encoding="utf-8")
    return standard_rows(read_tagged(tmp_path / "a.conll").table, SPEC, "a.conll")


@given(st.lists(st.lists(st.tuples(*[st.sampled_from(TAGS)] * 2), min_size=1, max_size=9), min_size=1, max_size=6))
def test_f1_and_entities_are_those_of_nervaluate(texts: list[list[tuple[str, str]]]):
    longest = max(map(len, texts))
    ids = np.full((2, len(texts), longest), IGNORED)
    for row, words in enumerate(texts):
        ids[:, row, : len(words)] = np.array([[TAGS.index(tag) for tag in pair] for pair in words]).T
    outputs = np.eye(len(TAGS))[np.maximum(ids[1], 0)]
    outputs[ids[1] == IGNORED] = 0
    values, reasons = score_with_reasons(TOKENS.metrics, *TOKENS.scored(outputs, ids[0], TAGS))
    sides = [[[pair[side] for pair in words] for words in texts] for side in (0, 1)]
    found = Evaluator(*sides, tags=["LOC", "PER"], loader="list").evaluate()["overall"]["strict"]
    if found.actual + found.possible:
        assert values["entity_f1"] == pytest.approx(found.f1)
    else:
        assert reasons["entity_f1"] == "there is no entity, and none is found"
    pairs = [pair for words in texts for pair in words]
    assert values["tag_accuracy"] == pytest.approx(np.mean([one == other for one, other in pairs]))


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["B-PER", "I-PER", "O", "B-LOC"], [("PER", 0, 2), ("LOC", 3, 4)]),
        # What goes on with nothing begins; what goes on with another type too.
        (["I-LOC", "I-PER", "I-PER"], [("LOC", 0, 1), ("PER", 1, 3)]),
        (["B-PER", "B-PER"], [("PER", 0, 1), ("PER", 1, 2)]),
    ],
)
def test_entities_by_hand(tags: list[str], expected: list[tuple[str, int, int]]):
    codes = tag_codes(TAGS)[[TAGS.index(tag) for tag in tags]]
    assert [(types_of(TAGS)[kind], start, end) for kind, start, end in entities(codes)] == expected


def test_other_forms_of_tags_and_tags_that_are_no_entities():
    letters = ("B-X", "E-X", "I-X", "O", "S-X", "U-Y", "L-Y", "M-Y")
    assert types_of(letters) == ("X", "Y") and tag_codes(letters).tolist() == [1, 2, 2, 0, 1, 3, 4, 4]
    # Each word is one of its own; a name that only looks like one of an entity changes nothing.
    assert types_of(("NOUN", "B-X")) == ("NOUN", "B-X") and tag_codes(("NOUN", "VERB", "O")).tolist() == [1, 3, 5]
    assert begun(["I-X", "I-X", "O", "I-X", "I-Y", "B-Y"]) == ["B-X", "I-X", "O", "B-X", "B-Y", "B-Y"]
    assert begun(["E-X", "I-X", "O"]) == ["E-X", "I-X", "O"]


def test_names_come_type_by_type_with_both_letters():
    words = [[{"tag": tag, "start": 0, "end": 1} for tag in ("B-PER", "I-LOC")]]
    assert TOKENS.label_names(words, "x") == TAGS
    other = [[{"tag": tag, "start": 0, "end": 1} for tag in ("VERB", "NOUN")]]
    assert TOKENS.label_names(other, "x") == ("NOUN", "VERB")
    with pytest.raises(UserError, match="x: every word has the same tag, so there is nothing to learn; got O"):
        TOKENS.label_names([[{"tag": "O", "start": 0, "end": 1}]], "x")
    with pytest.raises(UserError, match="x, row 1: not in the tag set; got 'I-LOC'; allowed: O, B-PER"):
        TOKENS.labels(words, ("O", "B-PER"), "x")


def test_words_of_a_text():
    text = "Mr. O'Neil-Smith met\tthe U.S. at 3.5%, 東京!"
    assert [text[start:end] for start, end in words_in(text)] == [
        *("Mr", ".", "O'Neil-Smith", "met", "the", "U.S", ".", "at", "3.5", "%", ",", "東", "京", "!")
    ]
    assert words_in(" \n") == []


def test_entities_in_a_text_become_tags_of_words_that_end_where_they_do():
    text = "to Newcastle-on-Tyne, Ada"
    found = tagged_words(text, [(3, 12, "LOC"), (16, 20, "LOC"), (22, 25, "PER")])
    assert [(text[start:end], tag) for start, end, tag in found] == [
        *(("to", "O"), ("Newcastle", "B-LOC"), ("-on-", "O"), ("Tyne", "B-LOC"), (",", "O"), ("Ada", "B-PER"))
    ]


@given(st.text(alphabet="ab .,-é東\u3000", max_size=30), st.data())
def test_no_letter_of_an_entity_is_lost(text: str, data: st.DataObject):
    edges = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=4)))
    spans = [(start, end, "X") for start, end in zip(edges[::2], edges[1::2], strict=False) if text[start:end].strip()]
    words = tagged_words(text, spans)
    assert [text[start:end] for start, end, _ in words if text[start:end].strip() != text[start:end]] == []
    inside = {place for start, end, _ in spans for place in range(start, end) if text[place].strip()}
    assert inside == {place for start, end, tag in words if tag != "O" for place in range(start, end)}


def test_first_tokens_by_hand():
    # Of " ab" as one token with its space, "cd" within the token of "ab", and a word behind the end of what was read.
    passage = Passage("ab cd ef", [(0, 0), (0, 2), (2, 5), (0, 0)])
    assert first_tokens([(0, 1), (1, 2), (3, 5), (6, 8)], passage) == [1, -1, 2, -1]


def test_rows_are_encoded_with_the_first_token_of_each_word(rows: object):
    encoded = encode(rows, tokenizer(), 16, kind=TOKENS)
    assert encoded.dataset["label"][:] == [[3, 4, 0, 1, 2], [0, 0]]
    assert encoded.dataset["words"][:] == [[1, 2, 5, 6, 7], [1, 2]]
    assert labels_of(encoded.dataset).tolist() == [[3, 4, 0, 1, 2], [0, 0, *[IGNORED] * 3]]
    batch = padding_collator(tokenizer())([*encoded.dataset])
    assert batch["labels"].tolist() == [
        [IGNORED, 3, 4, IGNORED, IGNORED, 0, 1, 2, IGNORED],
        [IGNORED, 0, 0, *[IGNORED] * 6],
    ]
    assert batch["words"].tolist() == [[1, 2, 5, 6, 7], [1, 2, -1, -1, -1]] and encoded.notes == ()
    cut = encode(rows, tokenizer(), 6, kind=TOKENS)
    assert cut.dataset["words"][:] == [[1, 2, -1, -1, -1], [1, 2]]
    assert cut.notes[1] == "3 of 7 words have no token of their own, so that their tags are not learned"


@torch.no_grad()
def test_outputs_are_those_of_first_tokens_whatever_stands_beside(rows: object, tmp_path: Path):
    model = tiny_model("bert", "tokens", num_labels=len(TAGS))
    encoded, collate = encode(rows, tokenizer(), 6, kind=TOKENS).dataset, padding_collator(tokenizer())
    found = predict_logits(model, encoded, collate, kind=TOKENS)
    for row in range(2):
        ids = torch.tensor([encoded[row]["input_ids"]])
        logits = model(ids).logits[0].numpy()
        expected = [logits[place] if place >= 0 else np.zeros(len(TAGS)) for place in encoded[row]["words"]]
        assert found[row, : len(expected)] == pytest.approx(np.array(expected), abs=1e-5)
        assert not found[row, len(expected) :].any()
    numbered = encoded.add_column("row", [0, 1])
    cache = cache_teacher(model, numbered, collate, tmp_path / "cache", hidden=False, kind=TOKENS)
    batch = cache.add_to(collate([numbered[1], numbered[0]]), [])
    told = TOKENS.counted(batch["teacher_logits"], batch["labels"])
    own = TOKENS.counted(model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits, batch["labels"])
    assert told.shape == (4, len(TAGS)) and torch.allclose(told, own, atol=1e-5)


def test_words_within_a_token_go_on_with_what_it_begins():
    # In the second text the first word has no token, and what follows a word outside stays outside.
    outputs = np.zeros((2, 4, len(TAGS)))
    outputs[0, 0, 3], outputs[0, 2, 0], outputs[1, 1, 1] = 1, 1, 1
    given, _ = TOKENS.scored(outputs, np.zeros((2, 4), int), TAGS)
    assert [entities(row) for row in given] == [[(1, 0, 2)], [(0, 1, 4)]]
    text = "北京。"
    logits = np.zeros((4, len(TAGS)))
    logits[1, 1], logits[2, 0] = 9, 9
    (span,) = TOKENS.answer(TAGS, logits, Passage(text, [(0, 0), (0, 2), (2, 3), (0, 0)]))["spans"]
    assert (span["text"], span["start"], span["end"]) == ("北京", 0, 2)


@pytest.mark.parametrize("word", ["Jose\u0301", "हिन्दी", "مُحَمَّد", "co\u00adop", "naïve", "👨\u200d👩"[:2]])
def test_marks_belong_to_their_letters(word: str):
    assert [f"{word} a"[start:end] for start, end in words_in(f"{word} a")] == [word, "a"]


def test_the_loss_is_that_of_transformers_and_of_many_texts():
    outputs = torch.randn((3, 4, len(TAGS)), generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.tensor([[0, 1, IGNORED, IGNORED], [3, 4, 0, 1], [0, IGNORED, IGNORED, IGNORED]])
    loss = TOKENS.loss(outputs, labels)
    assert TOKENS.mean_loss(outputs.detach().numpy(), labels.numpy()) == pytest.approx(float(loss.detach()))
    ids = torch.randint(3, 90, (3, 4), generator=torch.Generator().manual_seed(1))
    for family in ("bert", "crammed-bert"):
        with torch.no_grad():
            given = tiny_model(family, "tokens", num_labels=len(TAGS))(ids, labels=labels)
        assert float(TOKENS.loss(given.logits, labels)) == pytest.approx(float(given.loss))


def test_distillation_and_divergence_by_hand():
    teacher, student = torch.tensor([[0.0, np.log(3.0)]]), torch.zeros(1, 2)
    expected = 0.25 * np.log(0.5) + 0.75 * np.log(1.5)
    assert float(TOKENS.distillation(student, teacher, 1.0)) == pytest.approx(expected)
    # The second word was not read.
    sides = np.stack([teacher.numpy(), np.zeros((1, 2))], axis=1), np.zeros((1, 2, 2))
    assert TOKENS.divergence(*sides) == pytest.approx(expected, rel=1e-6)


def test_the_constant_answer_and_resamples():
    labels = np.array([[0, 0, 1], [3, 0, IGNORED], [0, IGNORED, IGNORED]])
    constant = TOKENS.constant(labels, TAGS)
    assert constant.said == 'tagging every word "O"'
    outputs, right = TOKENS.scored(constant.everywhere(labels), labels, TAGS)
    assert constant_scores(TOKENS.metrics, outputs, right) == {"entity_f1": 0.0, "tag_accuracy": pytest.approx(4 / 6)}
    noisy = np.random.default_rng(1).normal(size=(3, 3, len(TAGS)))
    outputs, right = TOKENS.scored(noisy, labels, TAGS)
    for metric in TOKENS.metrics:
        draws = np.random.default_rng(5).integers(3, size=(30, 3))
        expected = [score([metric], outputs[rows], right[rows]).get(metric, np.nan) for rows in draws]
        found = resampled_scores(metric, outputs, right, 30, 5)
        assert found == pytest.approx(np.array(expected), abs=1e-12, nan_ok=True)


def test_an_answer_has_spans_with_their_places():
    text = "In New York, Ada"
    offsets = [(0, 0), (0, 2), (3, 6), (7, 11), (11, 12), (13, 14), (14, 16), (0, 0)]
    outputs = np.zeros((9, len(TAGS)))
    outputs[[2, 3, 5, 6], [1, 2, 3, 1]] = np.log(4)
    found = TOKENS.answer(TAGS, outputs, Passage(text, offsets))
    assert found == {
        "spans": [
            {"label": "LOC", "text": "New York", "start": 3, "end": 11, "probability": pytest.approx(0.5)},
            {"label": "PER", "text": "Ada", "start": 13, "end": 16, "probability": pytest.approx(0.5)},
        ]
    }
    assert json.loads(json.dumps(found)) == found and pickle.loads(pickle.dumps(TOKENS)) == TOKENS
    assert TOKENS.answer(TAGS, np.zeros((2, len(TAGS))), Passage("", [(0, 0), (0, 0)])) == {"spans": []}
    # Of a text that was cut, what was not read is in no span.
    assert TOKENS.answer(TAGS, outputs[:4], Passage(text, offsets[:4]))["spans"] == found["spans"][:1]


def test_a_tokenizer_from_its_file_says_the_same_places(tmp_path: Path):
    tokenizer().save_pretrained(tmp_path)
    texts = ["Ada  Lovelaces met.", "new", "york in new york in new york"]
    own, cut = Reader(FileTokenizer(tmp_path / "tokenizer.json", 0, 0), 6, offsets=True).read(texts)
    theirs, _ = Reader(tokenizer(), 6, offsets=True).read(texts)
    assert own == theirs and cut == {0, 2} and own["offset_mapping"][0][1:3] == [(0, 3), (5, 7)]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_family_is_masked_cut_saved_packed_and_loaded(family: str, tmp_path: Path):
    model, batch = tiny_model(family, "tokens", num_labels=len(TAGS)), tiny_batch()
    keep = {group.name: torch.arange(group.units) % 2 == 0 for group in layout_of(model).groups}
    mask_model(model, keep)
    small = shrink(model, keep)
    logits = model(**batch).logits
    assert logits.shape == (*batch["input_ids"].shape, len(TAGS))
    assert torch.allclose(logits, small(**batch).logits, atol=1e-5)
    for saved, packing in ((model, None), (small, None), (small, Packing())):
        save_model(saved, None, tmp_path, packing)
        again, expected = load_model(tmp_path), saved.state_dict()
        assert type(again).__name__ == type(saved).__name__ and again.state_dict().keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())
        config = load_config(tmp_path)
        assert saved_kind(config) == "tokens" and kind_of(again) is TOKENS
        assert has_task_head(config, TOKENS, len(TAGS)) and not has_task_head(config, TOKENS, len(TAGS) + 1)


def test_types_are_counted_by_hand():
    right = np.array([[1, 2, 0, 3], [3, 0, IGNORED, IGNORED]])
    given = np.array([[1, 2, 0, 1], [3, 4, 0, 0]])
    # Of the first type two are given, one is there; of the second one ends too late.
    assert entity_counts(given, right, 3).sum(axis=0).tolist() == [[1, 2, 1], [0, 1, 2], [0, 0, 0]]

"""Questions about texts: what answers may be, which one a model gives, how right that is, and how texts become rows."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.nn import functional
from transformers import AutoModelForQuestionAnswering, BertTokenizerFast

from sparsebert.data.divide import in_windows
from sparsebert.data.encode import encode
from sparsebert.data.file_tokenizer import FileTokenizer
from sparsebert.data.hold_out import held_rows
from sparsebert.data.labels import labels_of
from sparsebert.data.passages import windows_of
from sparsebert.data.tokens import OFFSETS, TARGETS, WORDS, Reader
from sparsebert.data.windows import windows_of_pairs
from sparsebert.models.heads import saved_kind
from sparsebert.models.load import save_model
from sparsebert.models.storage import Packing
from sparsebert.models.surgeon import mask_model, shrink
from sparsebert.tasks.answers import answer_scores, best_answer, normalised, piece_tokens, pieces_in
from sparsebert.tasks.bootstrap import resampled_scores
from sparsebert.tasks.kind import IGNORED, Passage
from sparsebert.tasks.metrics import constant_scores, score_with_reasons
from sparsebert.tasks.spans import SPANS
from sparsebert.training.collate import padding_collator
from tiny import ARCHITECTURES, HEADS, LAYERS, NEURONS, tiny_batch, tiny_model
from tiny_run import SPECIAL

WORDS_KNOWN = ("who", "met", "ada", "bob", "in", "19", "##70", ",", "paris", "k", "##m", "5")
# Families of which transformers has a head that finds answers.
HEADED = [family for family in ARCHITECTURES if family not in ("gte", "eurobert")]


def tokenizer() -> BertTokenizerFast:
    return BertTokenizerFast(vocab={word: place for place, word in enumerate((*SPECIAL, *WORDS_KNOWN))})


def label(text: str, answer: str | None = None, question: int = 0, *more: str) -> dict[str, object]:
    start = -1 if answer is None else text.index(answer)
    answers = [] if answer is None else [answer, *more]
    return {
        "question": question,
        "answers": answers,
        "text": text,
        "start": start,
        "end": -1 if answer is None else start + len(answer),
    }


def rows(*labels: dict[str, object], question: str = "who met") -> Dataset:
    texts = [str(one["text"]) for one in labels]
    return Dataset.from_dict({"text_a": [question] * len(texts), "text_b": texts, "label": list(labels)})


def outputs(*windows: dict[str, tuple[float, float]], none: tuple[float, float] = (0.1, 0.1)) -> np.ndarray:
    """Logits of windows whose pieces are words; of others -1."""
    found = [[none, *((one.get(word) or (-1, -1)) for word in one["text"])] for one in windows]  # type: ignore[misc]
    longest = max(map(len, found))
    return np.array([[*own, *[(0.0, 0.0)] * (longest - len(own))] for own in found])


def window(text: str, **logits: tuple[float, float]) -> dict[str, tuple[float, float]]:
    return {"text": tuple(text.split()), **logits}  # type: ignore[dict-item]


def test_pieces_are_letters_digits_and_signs():
    text = "O'Neil's 5km_x, née 日本 नमस्ते"
    assert [text[slice(*one)] for one in pieces_in(text)] == [
        *("O", "'", "Neil", "'", "s", "5", "km", "_", "x", ",", "née", "日", "本", "नमस्ते")
    ]


def test_pieces_begin_and_end_with_tokens():
    text = "Ada 1970, 5km"
    offsets = [(0, 0), (0, 0), (0, 3), (4, 6), (6, 8), (8, 9), (10, 12), (12, 13), (0, 0)]
    # Of "5km" in two tokens, "5k" and "m", nothing ends with 5 and nothing begins with km.
    assert piece_tokens(text, pieces_in(text), offsets) == [[2, 2], [3, 4], [5, 5], [6, -1], [-1, 7]]
    # Some tokenizers count the space before a word, and letters of several tokens have one place.
    assert piece_tokens("a é", [(0, 1), (2, 3)], [(0, 1), (1, 3), (2, 3)]) == [[0, 0], [1, 2]]


def test_the_best_answer_is_the_highest_sum_of_any_window():
    pieces = [(0, 1), (2, 3), (4, 5)]
    first = np.array([[1.0, 2.0], [4, -1], [-1, -1], [-1, 3]])
    found = best_answer([(first, pieces)])
    assert (found.span, found.lead) == ((0, 5), 4 + 3 - 3) and found.given
    chances = [np.exp(first[:, c])[row] / np.exp(first[:, c]).sum() for c, row in ((0, 1), (1, 3))]
    assert found.chance == pytest.approx(chances[0] * chances[1]) and found.answerable == pytest.approx(0.98201379)
    # The end is never before the start, and 0 is no logit.
    turned = np.array([[1.0, 2.0], [-1, 3], [5, 0], [0, -2]])
    assert best_answer([(turned, pieces)]).span == (2, 5)
    # The lowest sum of no answer counts, and the best window is named.
    other = np.array([[-1.0, -1.0], [5, 4]])
    found = best_answer([(first, pieces), (other, [(7, 9)])])
    assert (found.span, found.window, found.lead) == ((7, 9), 1, 9 + 2)
    assert best_answer([(np.ones((1, 2)), [])]).span is None


def test_answers_are_at_most_thirty_pieces():
    logits = np.full((41, 2), -1.0)
    logits[1, 0], logits[40, 1], logits[30, 1] = 9, 9, 5
    assert best_answer([(logits, [(place, place + 1) for place in range(40)])]).span == (0, 30)


def test_scores_are_those_of_the_official_script():
    # By hand, from evaluate-v2.0.py.
    assert normalised("The  O'Neil-Smith, an heir!") == "oneilsmith heir"
    assert answer_scores("the cat", ["Cat"]) == (1.0, 1.0)
    assert answer_scores("in Paris, France", ["Paris"]) == (0.0, 0.5)
    assert answer_scores("in Paris, France", ["Rome", "Paris France"]) == (0.0, pytest.approx(0.8))
    assert answer_scores("b b c", ["b c c"]) == (0.0, pytest.approx(2 / 3))
    assert answer_scores("", []) == answer_scores("The", ["a"]) == (1.0, 1.0)
    assert answer_scores("Paris", []) == answer_scores("", ["Paris"]) == (0.0, 0.0)


def test_windows_overlap_and_every_answer_of_a_third_is_whole_in_one():
    text = " ".join(f"w{number}" for number in range(100))
    places = pieces = [found.span() for found in re.finditer(r"\w+", text)]
    windows = windows_of(text, [(0, 0), *places, (0, 0)], 12)
    assert windows[0][0] == 0 and windows[-1][1] == len(text)
    for start, end in windows:
        assert sum(start <= one and other <= end for one, other in pieces) <= 12
        assert start == 0 or text[start - 1] == " "
    for place in range(97):
        left, right = pieces[place][0], pieces[place + 3][1]
        assert any(start <= left and right <= end for start, end in windows)
    assert windows_of(text, places, 100) == [(0, len(text))]
    # Without spaces, and with room for next to nothing, it ends.
    assert windows_of("abc", [(0, 1), (1, 2), (2, 3)], 1) == [(0, 1), (1, 2), (2, 3)]


def test_long_texts_become_windows_that_fit_with_their_question():
    text = "ada met bob in paris , " * 6 + "19 km"
    reader = Reader.of_kind(SPANS, tokenizer(), 16)
    one, other = windows_of_pairs(reader, ["who met", "who " * 30], [text, text])
    assert not one.cut and one.question == "who met" and len(one.places) > 3
    assert other.cut and other.question.split() == ["who"] * 6
    found = in_windows(rows(label(text, "19 km", 7)), reader)
    encoded = encode(found, tokenizer(), 16, kind=SPANS)
    assert len(found) == len(one.places) and max(encoded.dataset["length"]) <= 16 and encoded.truncated == 0
    holding = [row for row in found["label"] if row["start"] >= 0]
    assert [row["text"][row["start"] : row["end"]] for row in holding] == ["19 km"] * len(holding) and holding
    assert {row["question"] for row in found["label"]} == {7}


def test_windows_of_one_text_are_held_out_together():
    texts = [f"paris {number} 19 km , " + "ada met bob in paris , " * 8 for number in range(20)]
    asked = [label(text, "19 km", 2 * place + one) for place, text in enumerate(texts) for one in (0, 1)]
    whole = rows(*asked).map(lambda row: {"text_a": "who met" if row["label"]["question"] % 2 else "who who met"})
    found = in_windows(whole, Reader.of_kind(SPANS, tokenizer(), 16))
    held = held_rows(found, 0, SPANS)
    sides = [
        {row["question"] // 2 for row, is_held in zip(found["label"], held, strict=True) if is_held == side}
        for side in (True, False)
    ]
    assert sides[0] and not sides[0] & sides[1] and sum(held) > 2 * len(sides[0])


def test_rows_name_the_tokens_of_pieces_and_of_the_answer():
    encoded = encode(rows(label("ada met bob", "met bob"), label("paris")), tokenizer(), 32, kind=SPANS).dataset
    # [CLS] who met [SEP] ada met bob [SEP]
    assert encoded[WORDS][0] == [[0, 0], [4, 4], [5, 5], [6, 6]] and list(encoded[TARGETS]) == [[2, 3], [0, 0]]
    batch = padding_collator(tokenizer())([encoded[0], encoded[1]])
    assert batch["start_positions"].tolist() == [5, 0] and batch["end_positions"].tolist() == [6, 0]
    marked = IGNORED
    assert batch["labels"][0].tolist() == [*([0, 0], *[[marked, marked]] * 3, [0, 0], [1, 0], [0, 1], [marked, marked])]
    # Where the answer's own pieces have no tokens, the nearest around it are learned; cut away, there is none.
    mended = encode(rows(label("ada 5km bob", "km")), tokenizer(), 32, kind=SPANS).dataset
    assert mended[TARGETS][0] == [2, 3] if mended[WORDS][0][3][0] < 0 else mended[TARGETS][0] == [3, 3]
    assert encode(rows(label("ada met bob", "bob")), tokenizer(), 6, kind=SPANS).dataset[TARGETS][0] == [0, 0]


@pytest.mark.parametrize("family", HEADED)
def test_a_cut_model_computes_what_the_masked_one_does_and_loads_again(family: str, tmp_path: Path):
    model, batch = tiny_model(family, "spans", num_labels=2), tiny_batch()
    keep = {"layer.0.heads": torch.arange(HEADS) < 2, "layer.1.neurons": torch.arange(NEURONS) < 9}
    masked = copy.deepcopy(model)
    mask_model(masked, keep)
    save_model(shrink(masked, keep), None, tmp_path, Packing())
    again = AutoModelForQuestionAnswering.from_pretrained(tmp_path)
    assert type(again).__name__ == f"Sparse{type(model).__name__}" and saved_kind(again.config) == "spans"
    with torch.no_grad():
        torch.testing.assert_close(SPANS.outputs(again(**batch)), SPANS.outputs(masked(**batch)), rtol=1e-4, atol=1e-4)
    even = shrink(model, {f"layer.{layer}.neurons": torch.arange(NEURONS) < 8 for layer in range(LAYERS)}, even=True)
    assert type(even) is type(model)


@pytest.mark.parametrize("family", HEADED)
def test_the_loss_is_that_of_transformers_in_every_family(family: str):
    model = tiny_model(family, "spans", num_labels=2)
    encoded = encode(rows(label("ada met bob", "met bob"), label("paris in 19", "19")), tokenizer(), 32, kind=SPANS)
    batch = padding_collator(tokenizer())(list(encoded.dataset))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "start_positions", "end_positions")}
    with torch.no_grad():
        given = model(**inputs)
    own = SPANS.loss(SPANS.outputs(given), batch["labels"])
    assert float(own) == pytest.approx(float(given.loss), rel=1e-5)


def test_what_a_student_learns_is_the_teachers_starts_and_ends():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 5, 2, generator=generator) for _ in range(2))
    labels = torch.zeros(2, 5, 2, dtype=torch.int64)
    labels[:, 1:3] = IGNORED
    sides = [SPANS.counted(one, labels) for one in (student, teacher)]
    assert sides[0].shape == (4, 5)
    logs = [functional.log_softmax(one[:, [0, 3, 4]].transpose(1, 2).flatten(0, 1), -1) for one in (student, teacher)]
    expected = (logs[1].exp() * (logs[1] - logs[0])).sum(-1).mean()
    assert float(SPANS.distillation(*sides, 1.0)) == pytest.approx(float(expected), rel=1e-4)
    # What lies elsewhere changes nothing, and a constant is no change.
    moved = student + torch.tensor([0.0, 9, 9, 0, 0])[:, None]
    assert torch.equal(SPANS.counted(moved, labels), sides[0])
    assert torch.allclose(SPANS.counted(student + 3, labels), sides[0], atol=1e-5)


def test_scores_are_of_questions_by_their_best_window():
    labels = np.array(
        [label("ada met bob", "bob", 3, "Bob!"), label("met paris", "paris", 4), label("in paris", None, 4)], object
    )
    labels[2]["answers"] = ["paris"]
    logits = outputs(
        window("ada met bob", bob=(5, 5)),
        window("met paris", paris=(1, 1)),
        window("in paris", **{"in": (4, -1)}, paris=(-1, 4)),
    )
    scored, has = SPANS.scored(logits, labels, ())
    assert scored.tolist() == [[1, 1], [0, pytest.approx(2 / 3)]] and has.tolist() == [1, 1]
    values, reasons = score_with_reasons(SPANS.metrics, scored, has)
    assert values == {"answer_f1": pytest.approx(5 / 6), "exact_match": 0.5}
    assert reasons.keys() == {"answered_f1", "unanswered_f1"}
    assert SPANS.mean_loss(logits[:1], labels[:1]) == pytest.approx(
        -float(functional.log_softmax(torch.tensor([0.1, -1, -1, 5]), 0)[3]), rel=1e-6
    )


def test_questions_without_an_answer_are_scored_apart():
    labels = np.array([label("ada met", "ada", 0), label("bob met", None, 1), label("paris met", None, 2)], object)
    logits = outputs(window("ada met", ada=(5, 5)), window("bob met", bob=(4, 4)), window("paris met", met=(-3, -3)))
    scored, has = SPANS.scored(logits, labels, ())
    values, _ = score_with_reasons(SPANS.metrics, scored, has)
    expected = {"answer_f1": 2 / 3, "exact_match": 2 / 3, "answered_f1": 1.0, "unanswered_f1": 0.5}
    assert values == {name: pytest.approx(value) for name, value in expected.items()}
    for name, value in expected.items():
        drawn = resampled_scores(name, scored, has, resamples=400)
        assert abs(float(np.nanmean(drawn)) - value) < 0.06
    none = SPANS.constant(labels, ())
    always, _ = SPANS.scored(none.everywhere(labels), labels, ())
    assert constant_scores(["answer_f1"], always, has) == {"answer_f1": pytest.approx(2 / 3)}
    assert SPANS.strata(labels).tolist() == [1, 0, 0]


def test_an_answer_is_given_from_its_threshold_on():
    labels = np.array([label("ada met", "ada", number) for number in range(40)], object)
    for number in range(20, 40):
        labels[number] = label("ada met", None, number)
    # Right answers lead by 3 to 5, wrong ones by 1 to 2.9: best is to give them from 2.95 on.
    leads = np.concatenate([np.linspace(3, 5, 20), np.linspace(1, 2.9, 20)])
    logits = np.stack([outputs(window("ada met", ada=(lead, 0.2)))[0] for lead in leads])
    assert SPANS.scored(logits, labels, ())[0][:, 1].mean() == 0.5
    (threshold,) = SPANS.chosen_thresholds(logits, labels)
    assert 2.9 < np.log(threshold / (1 - threshold)) < 3.0
    decided = SPANS.deciding_at([threshold])
    assert SPANS.scored(decided.margins(logits), labels, ())[0].min() == 1.0
    # Without unanswerable questions there is nothing to choose; with few of them it is one half.
    assert SPANS.chosen_thresholds(logits[:20], labels[:20]) == () == SPANS.default_thresholds(labels[:20])
    assert SPANS.chosen_thresholds(logits[:25], labels[:25]) == (0.5,) == SPANS.default_thresholds(labels)
    # A model without a threshold always answers.
    low = outputs(window("ada", ada=(-4, -4)))
    assert SPANS.scored(low, labels[:1], ())[0].tolist() == [[0, 0]]
    assert SPANS.scored(SPANS.margins(low), labels[:1], ())[0].tolist() == [[1, 1]]


def test_an_answer_says_where_it_stands_and_how_likely_it_is():
    text = "ada met bob"
    offsets = [(0, 0), (0, 3), (4, 7), (0, 0), (8, 11)]
    logits = np.array([[0.1, 0.1], [2, -1], [-1, 3], [-0.5, -0.5], [1, 1], [0, 0]])
    said = SPANS.answer((), logits, Passage(text, offsets))
    assert (said["answer"], said["start"], said["end"]) == ("ada met", 0, 7)
    assert said["answerable"] == pytest.approx(1 / (1 + np.exp(-(5 + 1))))
    own = np.exp(logits[:3])
    assert said["probability"] == pytest.approx(own[1, 0] / own[:, 0].sum() * own[2, 1] / own[:, 1].sum())
    none = SPANS.deciding_at([0.999]).answer((), logits, Passage(text, offsets))
    assert (none["answer"], none["start"], none["end"]) == ("", None, None)
    assert none["probability"] == pytest.approx(1 - none["answerable"])


def test_pairs_say_where_the_second_text_stands_with_and_without_transformers(tmp_path: Path):
    tokenizer().save_pretrained(tmp_path)
    pair = (["who met ada"], ["bob met ada in paris"])
    own, _ = Reader(FileTokenizer(tmp_path / "tokenizer.json", 0, 0), 9, offsets=True).read(*pair)
    theirs, cut = Reader(tokenizer(), 9, offsets=True).read(*pair)
    assert own == theirs and cut == {0}
    assert theirs[OFFSETS] == [[(0, 0)] * 5 + [(0, 3), (4, 7), (8, 11), (0, 0)]]


def test_divergence_is_of_starts_and_ends():
    logits = outputs(window("ada met", ada=(5, 5)), window("ada met bob", bob=(1, 2)))
    assert SPANS.divergence(logits, logits) == pytest.approx(0, abs=1e-9)
    other = logits + np.where(logits == 0, 0, 1.5)
    assert SPANS.divergence(logits, other) == pytest.approx(0, abs=1e-6)
    assert SPANS.divergence(logits, outputs(window("ada met", met=(5, 5)), window("ada met bob", bob=(1, 2)))) > 1
    assert labels_of(rows(label("ada", "ada"))).tolist() == [label("ada", "ada")]

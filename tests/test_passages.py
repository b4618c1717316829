"""Long texts in parts: nothing is lost, nothing is too long, and sentences stay whole where they can."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertTokenizerFast

from sparsebert.data.divide import divided
from sparsebert.data.hold_out import WHOLE
from sparsebert.data.load import Task
from sparsebert.data.passages import parts_of
from sparsebert.data.tokens import Reader, ReadTexts
from sparsebert.deployment.whole_texts import read_whole
from sparsebert.tasks.table import task_spec
from tiny_run import SPECIAL

VOCABULARY = [*SPECIAL, "one", "two", "three", ".", "##s", "a", "b", "##a", "##b"]


def reader(limit: int) -> Reader:
    words = BertTokenizerFast(vocab={word: number for number, word in enumerate(VOCABULARY)})
    return Reader(words, limit, offsets=True)


def test_a_part_ends_with_a_sentence_then_with_a_word_then_with_a_token():
    (parts,) = reader(8).parts(["one two three. one two three one two three one"])
    text = "one two three. one two three one two three one"
    assert [text[slice(*part)] for part in parts] == ["one two three. ", "one two three one two three ", "one"]
    (parts,) = reader(5).parts(["abababab ab"])
    assert ["abababab ab"[slice(*part)] for part in parts] == ["aba", "bab", "ab ", "ab"]
    assert reader(8).parts(["one", ""]) == [[(0, 3)], [(0, 0)]]


@given(st.text(alphabet="ab one.\n é", max_size=80), st.integers(4, 9))
def test_parts_are_whole_and_short_enough(text: str, limit: int):
    own = reader(limit)
    (parts,) = own.parts([text])
    assert "".join(text[slice(*part)] for part in parts) == text
    lengths = [len(ids) for ids in own._call([text[slice(*part)] for part in parts], None, None)["input_ids"]]
    # A part that begins within a word may have a token more of it than the whole text had.
    inside = any(part[0] and not text[part[0] - 1].isspace() for part in parts)
    assert max(lengths) <= limit or inside


class Echo:
    """A source that gives for each token the number of its letters."""

    def __init__(self, limit: int) -> None:
        self.reader = reader(limit)

    def logits(self, first: Any, second: Any, done: Any) -> Any:
        for columns, cut in self.reader.windows(first, second, 2):
            offsets = columns["offset_mapping"]
            outputs = np.zeros((len(offsets), max(map(len, offsets)), 1))
            for row, places in enumerate(offsets):
                outputs[row, : len(places), 0] = [end - start for start, end in places]
            done(len(offsets))
            yield ReadTexts(outputs, cut, offsets)


def test_texts_are_put_together_as_if_they_had_been_read_at_once():
    texts = ["one two three. " * 5, "a", "", "three two"]
    counted: list[int] = []
    (short,), (whole,) = read_whole(Echo(8), texts, counted.append), read_whole(Echo(99), texts, counted.append)
    assert counted == [4, 2, 2] and short.cut == set()
    for row, text in enumerate(texts):
        seen = [
            [
                (place, int(values[0]))
                for place, values in zip(read.offsets[row], read.outputs[row], strict=False)
                if place[1] > place[0]
            ]
            for read in (short, whole)
        ]
        assert seen[0] == seen[1] and "".join(text[slice(*place)] for place, _ in seen[0]) == text.replace(" ", "")


def test_rows_are_divided_with_their_words():
    text = "one two three. one two three"
    words = [[0, 3, 1], [4, 7, 0], [8, 13, 0], [13, 14, 0], [15, 18, 1], [19, 22, 2], [23, 28, 0]]
    rows = Dataset.from_dict({"text_a": [text, "one"], "label": [words, [[0, 3, 1]]]})
    found = divided(Task(task_spec("entities"), rows, rows.select([1])), reader(7))
    assert found.train["text_a"][:] == ["one two three. ", "one two three", "one"]
    assert found.train["label"][1] == [[0, 3, 1], [4, 7, 2], [8, 13, 0]]
    assert found.validation is not found.train and len(found.validation) == 1
    assert found.notes == ("train: 2 texts are read in 3 parts, some being longer than 7 tokens",)
    bare = divided(Task(task_spec("entities"), rows.remove_columns("label"), rows.select([1])), reader(7))
    # Parts of one text stay together where rows are held out.
    assert found.train[WHOLE][:] == bare.train[WHOLE][:] == [0, 0, 1]


@pytest.mark.parametrize("limit", [4, 5])
def test_even_the_shortest_limit_gets_on(limit: int):
    places = [(0, 0), *((number, number + 1) for number in range(40)), (0, 0)]
    parts = parts_of("a" * 40, places, limit)
    assert parts[0] == (0, limit - 2) and parts[-1][1] == 40

"""Text in packed rows: what a row is, that the rows are found again, and what mistakes say."""

from __future__ import annotations

import io
import json
import pickle
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from transformers import BertTokenizer, CanineTokenizer

from packed_text import CLS, SEP, UNK, some_documents, word_tokenizer, write_text
from sparsebert.data import reading_bar
from sparsebert.data.packing import Packer
from sparsebert.data.shards import Shards, shard_text
from sparsebert.errors import UserError

WORDS = word_tokenizer()


def rows_of(shards: Shards) -> list[list[int]]:
    return [row.tolist() for row in shards]


def texts_of(shards: Shards) -> Counter[tuple[int, ...]]:
    """Documents of which every token is in the rows."""
    stream = [token for row in rows_of(shards) for token in row[1:-1]]
    ends = [-1, *(place for place, token in enumerate(stream) if token == SEP)]
    return Counter(tuple(stream[a + 1 : b]) for a, b in pairwise(ends))


def test_rows_by_hand(tmp_path: Path) -> None:
    file = write_text(tmp_path / "a.txt", ["w0 w1 w2", "w3 w4 w5 w6 w7 w8 w9", "w10 w11 w12 w13 w14", "w15 x", "w16"])
    shards, held_out = shard_text([file], WORDS, 8, tmp_path / "out")
    assert rows_of(shards) == [
        [CLS, 5, 6, 7, SEP, 8, 9, SEP],
        # The third document fills what is left to the place before the last: there are two [SEP] then.
        [CLS, 10, 11, 12, 13, 14, SEP, SEP],
        # The fourth begins a row, as the third ends with one.
        [CLS, 15, 16, 17, 18, 19, SEP, SEP],
    ]
    assert held_out is None
    assert (len(shards), shards.rows, shards.tokens, shards.length) == (3, 3, 24, 8)
    # w15, [UNK], [SEP], w16 and [SEP] fill no row.
    assert (shards.documents, shards.left_out) == (5, 5)
    assert shards[1].dtype == np.int64 and shards[-1].tolist() == shards[2].tolist()
    with pytest.raises(IndexError):
        shards[3]


def test_a_document_that_ends_with_a_row_shares_its_last_token() -> None:
    file = io.BytesIO()
    packer = Packer(file, 8, CLS, SEP, "<u2", 1)
    for ids in ([9] * 6, [], [8] * 13):
        packer.add(np.array(ids, np.int32), 0)
    rows = np.frombuffer(file.getvalue(), "<u2").reshape(-1, 8).tolist()
    assert rows == [[CLS, *[9] * 6, SEP], [CLS, *[8] * 6, SEP], [CLS, *[8] * 6, SEP]]
    assert (packer.documents, packer.unwritten, packer.rows) == (2, 2, 3)


@given(documents=st.lists(st.lists(st.integers(5, 300), max_size=40), max_size=20), length=st.integers(8, 20))
def test_packing_keeps_every_token_in_order(documents: list[list[int]], length: int) -> None:
    file = io.BytesIO()
    packer = Packer(file, length, CLS, SEP, "<i4", len(documents))
    for source, ids in enumerate(documents):
        packer.add(np.array(ids, np.int32), source)
    rows = np.frombuffer(file.getvalue(), "<i4").reshape(-1, length)
    assert len(rows) == packer.rows and (rows[:, 0] == CLS).all() and (rows[:, -1] == SEP).all()
    owners = [(token, source) for source, ids in enumerate(documents) for token in ids]
    place, first = 0, []
    for row in rows.tolist():
        first.append(owners[place][1])
        for token, following in pairwise(row[1:]):
            if token == SEP:
                # A document ends here, and nowhere else but at the end of a row.
                assert place == len(owners) or owners[place - 1][1] != owners[place][1]
                continue
            assert token == owners[place][0]
            place += 1
            ended = place == len(owners) or owners[place - 1][1] != owners[place][1]
            assert not ended or following == SEP
    assert len(owners) - place <= packer.unwritten < length - 1
    assert packer.rows_of == [first.count(source) for source in range(len(documents))]


def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path) -> None:
    documents = some_documents(30)
    write_text(tmp_path / "a.txt", documents)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    pq.write_table(pa.table({"text": documents}), tmp_path / "a.parquet")
    found = [shard_text([tmp_path / f"a{kind}"], WORDS, 16, tmp_path)[0] for kind in (".txt", ".jsonl", ".parquet")]
    assert len({shards.folder for shards in found}) == len({shards.digest for shards in found}) == 3
    assert rows_of(found[0]) == rows_of(found[1]) == rows_of(found[2])


def test_words_that_look_like_special_tokens_are_text(tmp_path: Path) -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[", "]", "sep", "mask", "w"]
    bert = BertTokenizer(vocab={token: number for number, token in enumerate(tokens)})
    file = write_text(tmp_path / "a.txt", ["w [SEP] w [MASK] w w w w w w w w w w w w"])
    assert shard_text([file], bert, 10, tmp_path)[0][0].tolist() == [CLS, 9, 5, 7, 6, 9, 5, 8, 6, SEP]


@pytest.mark.parametrize(("words", "kind"), [(65531, "<u2"), (65532, "<i4")])
def test_ids_take_two_bytes_where_they_fit(tmp_path: Path, words: int, kind: str) -> None:
    file = write_text(tmp_path / "a.txt", [f"w{words - 1} " * 20])
    shards, _ = shard_text([file], word_tokenizer(words), 8, tmp_path / "out")
    assert shards.kind == kind and set(shards[0].tolist()) == {CLS, SEP, words + 4}
    assert (shards.folder / "rows.bin").stat().st_size == shards.tokens * np.dtype(kind).itemsize


def test_a_copy_for_another_process_holds_no_rows(tmp_path: Path) -> None:
    shards, _ = shard_text([write_text(tmp_path / "a.txt", some_documents(400))], WORDS, 16, tmp_path / "out")
    before = len(pickle.dumps(shards))
    assert shards[0][0] == CLS
    copy = pickle.loads(pickle.dumps(shards))
    assert len(pickle.dumps(shards)) == before < 1000 < shards.tokens
    assert copy == shards and rows_of(copy) == rows_of(shards)


def test_held_out_documents_are_on_one_side(tmp_path: Path) -> None:
    documents = [f"{text} w{number % 30}" for number, text in enumerate(some_documents(1500, longest=20))]
    files = [write_text(tmp_path / f"{half}.txt", documents[half::2] + documents[:99]) for half in (0, 1)]
    whole, none = shard_text(files, WORDS, 16, tmp_path / "out")
    train, held_out = shard_text(files, WORDS, 16, tmp_path / "out", held_out=0.2)
    assert none is None and held_out is not None
    assert train.documents + held_out.documents == whole.documents == 1500 + 198
    # 1500 draws with a share of 0.2 have a deviation of 15.5; those that are there twice add a little.
    assert abs(held_out.documents - 0.2 * 1698) < 80
    assert not texts_of(train).keys() & {text for text in texts_of(held_out) if len(text) > 5}
    assert [file for file, _ in held_out.sources] == files
    assert sum(rows for _, rows in held_out.sources) == held_out.rows
    border = held_out.sources[0][1]
    assert [held_out.source(row) for row in (0, border - 1, border, -1)] == [files[0], files[0], files[1], files[1]]
    assert train.digest != held_out.digest and rows_of(train) != rows_of(held_out)


def test_rows_are_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_text(tmp_path / "a.txt", some_documents(50))
    first = shard_text([file], WORDS, 16, tmp_path / "out", held_out=0.3)
    made = (first[0].folder / "rows.bin").stat()
    assert "tokens/s" in capsys.readouterr().err
    # Neither the file's name nor how the tokenizer was used last matters.
    renamed = file.rename(tmp_path / "b.txt")
    tokenizer = word_tokenizer()
    tokenizer(["w0 w1 w2", "w3"], truncation=True, max_length=2, padding="max_length")
    again = shard_text([renamed], tokenizer, 16, tmp_path / "out", held_out=0.3)
    assert "already" in capsys.readouterr().err
    assert [part and part.digest for part in again] == [part and part.digest for part in first]
    assert again[0].sources == ((renamed, first[0].rows),)
    assert (again[0].folder / "rows.bin").stat().st_ino == made.st_ino
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_whatever_decides_the_rows_changes_the_folder(tmp_path: Path) -> None:
    file, other = (write_text(tmp_path / f"{seed}.txt", some_documents(80, seed)) for seed in (0, 1))
    rows = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": some_documents(80), "more": some_documents(80, 2)}), rows)
    # A line of JSON is a document of plain text too.
    for kind in ("jsonl", "txt"):
        (tmp_path / f"same.{kind}").write_text(json.dumps({"text": "w1 " * 40, "more": "w2"}) + "\n")
    calls: list[dict[str, Any]] = [
        {"files": [tmp_path / "same.jsonl"]},
        {"files": [tmp_path / "same.txt"]},
        {"files": [file]},
        {"files": [other]},
        {"files": [file, other]},
        {"files": [other, file]},
        {"files": [file], "length": 17},
        {"files": [file], "tokenizer": word_tokenizer(31)},
        {"files": [file], "tokenizer": word_tokenizer(sep_token="w0")},
        {"files": [file], "held_out": 0.2},
        {"files": [file], "held_out": 0.3},
        {"files": [rows]},
        {"files": [rows], "column": "more"},
    ]
    usual = {"tokenizer": WORDS, "length": 16, "folder": tmp_path / "out"}
    found = [shard_text(**(usual | call))[0] for call in calls]
    assert len({shards.folder.parent for shards in found}) == len({shards.digest for shards in found}) == len(calls)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "rows.bin").write_bytes((folder / "rows.bin").read_bytes()[:-1]),
        lambda folder: (folder / "rows.bin").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "manifest.json").write_text('{"rows": 3}'),
    ],
    ids=["cut", "gone", "no manifest", "half a manifest"],
)
def test_what_is_not_whole_is_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object]
) -> None:
    file = write_text(tmp_path / "a.txt", some_documents(50))
    shards, held_out = shard_text([file], WORDS, 16, tmp_path / "out", held_out=0.3)
    known = rows_of(shards)
    assert held_out is not None
    damage(held_out.folder)
    again, _ = shard_text([file], WORDS, 16, tmp_path / "out", held_out=0.3)
    assert "is not whole" in capsys.readouterr().err
    assert rows_of(again) == known and again.digest == shards.digest


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"length": 7}, "too short; got 7; allowed: at least 8"),
        ({"held_out": 1.0}, "share of held-out documents does not fit; got 1.0"),
        ({"held_out": -0.1}, "share of held-out documents"),
        ({"processes": 0}, "needs a process"),
        ({"files": []}, "There is no text; got no files"),
        ({"length": 5000}, r"The text does not fill one row of 5000 tokens; got [\d,]+ tokens"),
        ({"held_out": 1e-9}, "The held-out text does not fill one row of 16 tokens; got 0 tokens"),
        ({"tokenizer": CanineTokenizer()}, "not a fast one; got CanineTokenizer"),
        ({"tokenizer": word_tokenizer(mask_token=None)}, r"has no \[MASK\]"),
        ({"tokenizer": word_tokenizer(cls_token=None, sep_token=None)}, r"has no \[CLS\], \[SEP\]"),
    ],
)
def test_what_mistakes_say(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    file = write_text(tmp_path / "a.txt", some_documents(100))
    usual = {"files": [file], "tokenizer": WORDS, "length": 16, "folder": tmp_path / "out"}
    with pytest.raises(UserError, match=said):
        shard_text(**(usual | wrong))
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_text_that_turns_out_bad_leaves_nothing(tmp_path: Path) -> None:
    good, bad, empty = write_text(tmp_path / "a.txt", some_documents(500)), tmp_path / "b.txt", tmp_path / "c.txt"
    bad.write_bytes(b"w0\n\n\xff\n")
    empty.write_bytes(b" \n\n")
    for files, said in (([good, bad], r"b\.txt is not UTF-8 .*at byte 4"), ([empty], "There is no text")):
        with pytest.raises(UserError, match=said):
            shard_text(files, WORDS, 16, tmp_path / "out")
        assert list((tmp_path / "out").iterdir()) == []


def test_unknown_words_take_their_place(tmp_path: Path) -> None:
    shards, _ = shard_text([write_text(tmp_path / "a.txt", ["yes no " * 10])], WORDS, 8, tmp_path / "out")
    assert shards[0].tolist() == [CLS, *[UNK] * 6, SEP]


def test_terminals_see_how_fast_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Console(stderr=True, force_terminal=True, width=120, _environ={"TERM": "xterm"})
    file = write_text(tmp_path / "a.txt", some_documents(50))
    shard_text([file], WORDS, 16, tmp_path / "out")
    assert "text to tokens" not in capsys.readouterr().err
    monkeypatch.setattr(reading_bar, "console", terminal)
    shard_text([file], WORDS, 17, tmp_path / "out")
    said = capsys.readouterr().err
    assert "text to tokens" in said and "100%" in said and "M/s" in said

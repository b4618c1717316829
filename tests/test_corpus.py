"""Documents of text files: every kind, streamed, and what each mistake says."""

from __future__ import annotations

import gzip
import json
import lzma
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparsebert.data import corpus
from sparsebert.data.corpus import documents, hub_documents, hub_parts, placed_documents, text_files
from sparsebert.errors import UserError

TEXTS = ["One line.\nAnd öther, 語 ¶", "Second", "third 😀 one"]
AS_TXT = "\n \n" + "\n\n".join(TEXTS) + "\n\n\n"
AS_JSONL = "".join(json.dumps({"id": 1, "body": text}) + "\n" for text in [*TEXTS, " "])


def zst(content: bytes) -> bytes:
    return pa.Codec("zstd").compress(content, asbytes=True)


PACK = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zst}


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize(("kind", "content"), [(".txt", AS_TXT), (".jsonl", AS_JSONL)])
def test_every_kind_gives_the_same_documents(tmp_path: Path, kind: str, content: str, packed: str) -> None:
    file = tmp_path / f"some.name{kind}{packed}"
    file.write_bytes(PACK[packed](content.encode()))
    assert list(documents(file, "body")) == TEXTS


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_a_row_of_parquet_is_a_document(tmp_path: Path, kind: pa.DataType) -> None:
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"id": [1, 2, 3, 4], "body": pa.array([*TEXTS, " "], kind)}), file)
    assert list(documents(file, "body")) == TEXTS


def test_marks_and_line_ends_of_windows_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "windows.txt"
    file.write_bytes("\ufeffone\r\ntwo\r\n\r\nthree".encode())
    assert list(documents(file)) == ["one\ntwo", "three"]


def test_only_line_feeds_end_lines(tmp_path: Path) -> None:
    file = tmp_path / "odd.txt"
    file.write_text("a\u2028b\x0bc\x85d\n\ne", encoding="utf-8")
    assert list(documents(file)) == ["a\u2028b\x0bc\x85d", "e"]


def test_several_compressed_parts_in_one_file_are_all_read(tmp_path: Path) -> None:
    for packed in (".gz", ".xz", ".zst"):
        file = tmp_path / f"two.txt{packed}"
        file.write_bytes(PACK[packed](b"one\n\n") + PACK[packed](b"two\n"))
        assert list(documents(file)) == ["one", "two"]


@pytest.mark.parametrize("line", ["wörd " * 200, "語" * 700, "x" * 3000])
def test_a_long_document_comes_in_pieces_that_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setattr(corpus, "LONGEST_DOCUMENT", 256)
    file = tmp_path / "long.txt"
    file.write_text(f"{line}\nshort\n{'ab ' * 40}\n{'cd ' * 60}\n", encoding="utf-8")
    found = list(documents(file))
    assert "".join(found).replace("\n", "") == f"{line}short{'ab ' * 40}{'cd ' * 60}".replace("\n", "")
    assert max(map(len, found)) <= 256 + 1 and len(found) > 4
    words = {word for text in found for word in text.split()}
    assert words <= {*line.split(), "short", "ab", "cd"} or " " not in line


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "LONGEST_DOCUMENT", 1 << 14)
    # One line of 16 MB without a single space, and one document of 16 MB.
    for content in (b"x" * (16 << 20), b"some words\n" * 1_500_000):
        file = tmp_path / "large.txt.gz"
        file.write_bytes(gzip.compress(content, 1))
        tracemalloc.start()
        letters = sum(len(text.replace("\n", "")) for text in documents(file))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert letters == len(content.replace(b"\n", b""))
        assert peak < 6 << 20


def test_places_reach_the_size_of_the_file(tmp_path: Path) -> None:
    plain, table = tmp_path / "a.txt", tmp_path / "a.parquet"
    plain.write_text("one\n\ntwo\n", encoding="utf-8")
    pq.write_table(pa.table({"text": ["one", "two"]}), table)
    assert list(placed_documents(plain)) == [("one", 5), ("two", 9)]
    half, whole = (place for _, place in placed_documents(table))
    assert (half, whole) == (table.stat().st_size // 2, table.stat().st_size)


def test_files_are_found_once_and_folders_are_sorted(tmp_path: Path) -> None:
    (tmp_path / "in" / ".git").mkdir(parents=True)
    for name in ("in/b.txt", "in/a.jsonl.xz", "in/README.md", "in/.hidden.txt", "in/.git/c.txt", "z.parquet"):
        (tmp_path / name).touch()
    found = text_files([str(tmp_path / "z.parquet"), str(tmp_path / "in"), str(tmp_path / "in" / "b.txt")])
    assert [str(file.relative_to(tmp_path)) for file in found] == ["z.parquet", "in/a.jsonl.xz", "in/b.txt"]


def test_paths_that_lead_to_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    with pytest.raises(UserError, match=r"no such file or folder.*nowhere"):
        text_files([str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match=r"holds no text files.*\.jsonl\.zst"):
        text_files([str(tmp_path)])
    with pytest.raises(UserError, match=r"Unknown kind.*a\.csv.*\.parquet"):
        text_files([str(tmp_path / "a.csv")])
    with pytest.raises(UserError, match="no paths"):
        text_files([])


@pytest.mark.parametrize("packed", PACK)
def test_the_first_byte_that_is_not_utf8_is_named(tmp_path: Path, packed: str) -> None:
    file = tmp_path / f"latin.txt{packed}"
    file.write_bytes(PACK[packed]("good\n\nünd ".encode() + b"caf\xe9 here\n"))
    found = documents(file)
    assert next(found) == "good"
    with pytest.raises(UserError, match=r"latin\.txt.* is not UTF-8 .*at byte 14"):
        next(found)


# Zstandard's own check sum is left out by many that write it, so that other bytes there are other text.
@pytest.mark.parametrize(
    ("packed", "damage"),
    [(packed, damage) for packed in (".gz", ".xz", ".zst") for damage in ("cut", "no archive")]
    + [(".gz", "other bytes"), (".xz", "other bytes")],
)
def test_damaged_archives_are_refused(tmp_path: Path, packed: str, damage: str) -> None:
    whole = PACK[packed](b"".join(b"%d words\n\n" % (number * 7919) for number in range(4000)))
    middle = len(whole) // 2
    content = {
        "cut": whole[:middle],
        "other bytes": whole[:middle]
        + bytes(byte ^ 255 for byte in whole[middle : middle + 64])
        + whole[middle + 64 :],
        "no archive": b"plain words\n",
    }
    file = tmp_path / f"damaged.txt{packed}"
    file.write_bytes(content[damage])
    with pytest.raises(UserError, match=r"damaged\.txt.* is damaged or was cut off"):
        list(documents(file))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "a"}\n\n{"text": ', r"line 3 of .*rows\.jsonl is no JSON; got Expecting value"),
        ('["a"]', "line 1 of .* is no JSON object"),
        ('{"body": "a", "id": 1}', "no column 'text' in line 1 of .*allowed: body, id"),
        ('{"text": null}', "'text' holds no text in line 1 of .*got None"),
        ('{"text": "a\\ud800b"}', r"half a letter in line 1 of .*got '\\ud800'"),
    ],
)
def test_what_a_bad_json_row_says(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        list(documents(file))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"body": ["a"], "id": [1]}, "no column 'text' in .*allowed: body, id"),
        ({"text": [1]}, "'text' of .*is no text; got int64"),
        ({"text": ["a", None]}, "'text' holds no text in row 2 of"),
    ],
)
def test_what_a_bad_parquet_column_says(tmp_path: Path, table: dict[str, list[object]], said: str) -> None:
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table(table), file)
    with pytest.raises(UserError, match=said):
        list(documents(file))


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    file.write_bytes(b"words")
    with pytest.raises(UserError, match="no parquet file, or damaged"):
        list(documents(file))


def test_names_of_sets() -> None:
    assert hub_parts("wikimedia/wikipedia:20231101.en") == ("wikimedia/wikipedia", "20231101.en", "train")
    assert hub_parts("me/set") == ("me/set", None, "train")
    assert hub_parts("me/set::dev") == ("me/set", None, "dev")
    for name in ("", ":config", "a:b:c:d"):
        with pytest.raises(UserError, match="SET:CONFIG:SPLIT"):
            hub_parts(name)


def test_a_set_is_streamed(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(AS_JSONL, encoding="utf-8")
    (tmp_path / "validation.jsonl").write_text('{"id": 2, "body": "other"}\n', encoding="utf-8")
    assert list(hub_documents(str(tmp_path), "body")) == TEXTS
    assert list(hub_documents(f"{tmp_path}::validation", "body")) == ["other"]
    with pytest.raises(UserError, match="no column 'text' in row 1 of"):
        list(hub_documents(str(tmp_path), "text"))
    with pytest.raises(UserError, match=r"cannot be read.*nosplit"):
        list(hub_documents(f"{tmp_path}::nosplit", "body"))


def test_a_set_without_rows_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"The set {tmp_path} cannot be read.*contain any data files"):
        list(hub_documents(str(tmp_path), "text"))

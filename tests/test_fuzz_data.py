"""Damaged and odd data files: each is read, or refused in one line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import fuzzed
from sparsebert.data.load import load_task
from sparsebert.errors import UserError
from sparsebert.recipe.schema import Columns

ROWS = [{"text": f"text {row}, of {row % 3}", "label": ("no", "yes")[row % 2], "score": row / 4} for row in range(12)]
CLASSES, NUMBERS = Columns(), Columns(label="score", kind="regression")
OF_DATASETS = '{"info": {"features": {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}}}'


def in_csv(delimiter: str, encoding: str) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["text", "label", "score"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode(encoding)


def in_parquet(labels: list[Any], metadata: dict[str, str] | None = None, **options: Any) -> bytes:
    table = pa.table({key: [row[key] for row in ROWS] for key in ("text", "score")} | {"label": labels})
    out = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), out, **options)
    return out.getvalue().to_pybytes()


SOUND = {
    "comma.csv": in_csv(",", "utf-8"),
    "semicolon.csv": in_csv(";", "utf-8-sig"),
    "tab.tsv": in_csv("\t", "utf-16"),
    "lines.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "words.parquet": in_parquet([row["label"] for row in ROWS]),
    "named.parquet": in_parquet([row % 2 for row in range(12)], {"huggingface": OF_DATASETS}),
    "plain.parquet": in_parquet([row % 2 for row in range(12)], compression="none", use_dictionary=False),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def read_or_refused(file: Path, content: bytes, columns: Columns) -> bool:
    """Whether the file was read; if not, by a UserError of one line."""
    file.write_bytes(content)
    said = ""
    try:
        task = load_task("mine", str(file), columns)
    except UserError as error:
        said = str(error)
    if said:
        assert len(said.splitlines()) == 1
        return False
    assert len(task.train) > 0 and len(task.validation) > 0
    assert all(isinstance(text, str) and text.strip() for text in task.train["text_a"])
    return True


def test_sound_files_are_read(folder):
    for name, content in SOUND.items():
        for columns in (CLASSES, NUMBERS):
            assert read_or_refused(folder / name, content, columns)


CHANGES = st.lists(
    st.tuples(st.sampled_from(["set", "cut", "insert", "end", "again"]), st.floats(0, 1), st.binary(max_size=6)),
    min_size=1,
    max_size=6,
)


def changed(content: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    """Bytes replaced, taken out, put in, the rest left off, or a part repeated."""
    for kind, where, new in changes:
        at = int(where * len(content))
        after = {"set": at + len(new), "cut": at + len(new), "insert": at, "end": len(content), "again": at}[kind]
        middle = {"set": new, "insert": new, "again": content[at : at + 50]}.get(kind, b"")
        content = content[:at] + middle + content[after:]
    return content


@pytest.mark.parametrize("name", SOUND)
@fuzzed
@given(changes=CHANGES, columns=st.sampled_from([CLASSES, NUMBERS]))
def test_damaged_files(folder, name, changes, columns):
    read_or_refused(folder / f"damaged-{name}", changed(SOUND[name], changes), columns)


LETTERS = st.text(st.characters(codec="utf-8") | st.sampled_from(',;\t|"\n\r 0.'), max_size=8)
NAMES = st.sampled_from(["text", "label", "score", " text", "Text", ""])
CELLS = LETTERS | st.sampled_from(["NA", "nan", "1,5", "2.5", "-1", "0", "1e400", "yes", "no"])
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | LETTERS,
    lambda part: st.lists(part, max_size=2) | st.dictionaries(LETTERS, part, max_size=2),
    max_leaves=4,
)


@fuzzed
@given(
    header=st.lists(NAMES, max_size=4),
    rows=st.lists(st.lists(CELLS, max_size=4), max_size=8),
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"]),
    columns=st.sampled_from([CLASSES, NUMBERS, Columns(encoding="cp1252"), Columns(delimiter=";"), Columns(label="")]),
)
def test_csv_of_anything(folder, header, rows, delimiter, quoting, encoding, columns):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows([header, *rows])
    read_or_refused(folder / "odd.csv", text.getvalue().encode(encoding, errors="replace"), columns)


@fuzzed
@given(
    rows=st.lists(
        st.fixed_dictionaries({"text": LETTERS.map("t".__add__) | ANY}, optional={"label": ANY, "score": ANY})
        | st.dictionaries(NAMES, ANY, max_size=4)
        | ANY,
        max_size=8,
    ),
    columns=st.sampled_from([CLASSES, NUMBERS]),
)
def test_json_of_anything(folder, rows, columns):
    read_or_refused(folder / "odd.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode(), columns)


KINDS = [
    (pa.string(), LETTERS.map("t".__add__)),
    (pa.large_string(), st.sampled_from(["no", "yes", "NA", " yes"])),
    (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["no", "yes"])),
    (pa.int64(), st.integers(-2, 3)),
    (pa.uint8(), st.integers(0, 3)),
    (pa.float64(), st.floats()),
    (pa.float16(), st.sampled_from([0.0, 1.0, 0.5])),
    (pa.bool_(), st.booleans()),
    (pa.binary(), st.binary(max_size=3)),
    (pa.date32(), st.dates()),
    (pa.timestamp("ns"), st.integers(0, 10**18)),
    (pa.list_(pa.int64()), st.lists(st.integers(0, 3), max_size=2)),
    (pa.struct([("a", pa.int64())]), st.fixed_dictionaries({"a": st.integers(0, 3)})),
    (pa.decimal128(5, 2), st.decimals(-9, 9, places=2, allow_nan=False, allow_infinity=False)),
    (pa.null(), st.none()),
]


@st.composite
def columns_of_arrow(draw: st.DrawFn, rows: int) -> pa.Array:
    kind, values = draw(st.sampled_from(KINDS))
    filled = st.none() | values if draw(st.booleans()) else values
    return pa.array(draw(st.lists(filled, min_size=rows, max_size=rows)), type=kind)


@fuzzed
@given(data=st.data(), columns=st.sampled_from([CLASSES, NUMBERS]))
def test_parquet_of_anything(folder, data, columns):
    rows = data.draw(st.integers(0, 8))
    text = st.lists(LETTERS.map("t".__add__), min_size=rows, max_size=rows).map(
        lambda cells: pa.array(cells, pa.string())
    )
    parts = {
        "text": data.draw(text | columns_of_arrow(rows)),
        "label": data.draw(columns_of_arrow(rows)),
        "score": data.draw(columns_of_arrow(rows)),
    }
    said = data.draw(st.none() | st.sampled_from([OF_DATASETS, "{"]) | ANY.map(json.dumps))
    table = pa.table(parts).replace_schema_metadata(None if said is None else {"huggingface": said})
    out = pa.BufferOutputStream()
    pq.write_table(table, out)
    read_or_refused(folder / "odd.parquet", out.getvalue().to_pybytes(), columns)

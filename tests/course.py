"""The files of CS224N's default project in small: tab separated, as the course hands them out."""

from __future__ import annotations

import csv
import gzip
import io
import random
from collections.abc import Sequence
from pathlib import Path

from tiny_run import WORDS

COLUMNS = {
    "ids-sst": ("sentence", "sentiment"),
    "quora": ("sentence1", "sentence2", "is_duplicate"),
    "sts": ("sentence1", "sentence2", "similarity"),
    "ids-cfimdb": ("sentence", "sentiment"),
}


def write_file(folder: Path, stem: str, rows: Sequence[Sequence[object]], compressed: bool = False) -> Path:
    """One file of the course; `stem` begins with a key of COLUMNS. Rows may lack cells at their end."""
    columns = COLUMNS[stem.rpartition("-")[0]]
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow(["", "id", *columns])
    writer.writerows([place, f"id{place}", *row] for place, row in enumerate(rows))
    folder.mkdir(exist_ok=True)
    file = folder / f"{stem}.csv{'.gz' if compressed else ''}"
    content = out.getvalue().encode()
    file.write_bytes(gzip.compress(content) if compressed else content)
    return file


def write_course(folder: Path, train: int = 40, dev: int = 20) -> Path:
    """Files of all three tasks of the multitask model, of words that `save_tiny` has tokens for."""
    draw = random.Random(0)

    def text() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(2, 8)))

    for part, count in (("train", train), ("dev", dev)):
        write_file(folder, f"ids-sst-{part}", [(text(), row % 5) for row in range(count)])
        write_file(folder, f"quora-{part}", [(text(), text(), float(row % 2)) for row in range(count)])
        write_file(folder, f"sts-{part}", [(text(), text(), row % 6 * 0.9) for row in range(count)])
    return folder

"""Text of the Hugging Face hub as a file, fetched once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from sparsebert.data.corpus import hub_documents
from sparsebert.files import atomic_file
from sparsebert.progress import busy


def hub_file(name: str, column: str, folder: Path) -> Path:
    """The documents of a set of the hub, named as `hub_documents` takes it, as a .jsonl file in `folder`.

    A file that is there is taken as it is. Raises UserError for a set that cannot be read.
    """
    file = folder / f"{hashlib.sha256(json.dumps([name, column]).encode()).hexdigest()[:16]}.jsonl"
    if not file.is_file():
        with atomic_file(file) as written, busy(f"Fetching {name}") as told:
            for number, text in enumerate(hub_documents(name, column), 1):
                written.write((json.dumps({column: text}, ensure_ascii=False) + "\n").encode())
                if number % 1000 == 0:
                    told(f"Fetching {name}: {number:,} documents")
    return file

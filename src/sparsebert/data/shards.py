"""Tokenised text on disk: rows of one length, mapped into memory, made once for a text and a tokenizer."""

from __future__ import annotations

import bisect
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from sparsebert.data.chunks import DOCUMENTS_A_CHUNK, LETTERS_A_CHUNK, Chunk, encoded
from sparsebert.data.corpus import kind_of, placed_documents
from sparsebert.data.packing import Packer
from sparsebert.data.reading_bar import reading_bar
from sparsebert.data.vocabulary import Vocabulary
from sparsebert.errors import UserError
from sparsebert.files import clear_abandoned, digest, folder_beside, remove_folder
from sparsebert.progress import busy, line

FORMAT = 1
SHORTEST = 8
TRAIN, HELD_OUT = "train", "held_out"
_ROWS, _MANIFEST = "rows.bin", "manifest.json"


@dataclass(frozen=True)
class Shards:
    """Packed rows of token ids in a folder. A copy for another process holds the folder's name, not its rows.

    `tokens` is rows times `length`, special tokens included; `left_out` how many tokens of text and [SEP] at the end
    did not fill a row. `digest` changes with the rows and with what they were made from. `sources` are the files, in
    order, each with how many rows begin with its text; a row goes on with the next file where one ends.
    """

    folder: Path
    length: int
    rows: int
    tokens: int
    documents: int
    digest: str
    left_out: int
    sources: tuple[tuple[Path, int], ...]
    kind: str

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> np.ndarray:
        """Token ids of one row, int64 [length]."""
        return self._mapped[row].astype(np.int64)

    def source(self, row: int) -> Path:
        """The file that the first text of a row is of."""
        ends = list(accumulate(rows for _, rows in self.sources))
        return self.sources[bisect.bisect_right(ends, range(self.rows)[row])][0]

    @cached_property
    def _mapped(self) -> np.ndarray:
        return np.memmap(self.folder / _ROWS, self.kind, "r", shape=(self.rows, self.length))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_mapped"}


def shard_text(
    files: Sequence[Path],
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    folder: Path,
    *,
    column: str = "text",
    processes: int = 1,
    held_out: float = 0.0,
) -> tuple[Shards, Shards | None]:
    """Rows of all documents of `files`, in `folder`/(a hash of what decides them), and those of documents held out.

    `Packer` says what a row is. With `held_out` above 0 about that share of the documents, chosen by a hash of the
    text, is kept apart, so that no document is on both sides. A last row that is not full is left out. What is there
    from an earlier call is used again; a call that ends early leaves nothing under that name. Memory does not grow with
    the text, and the rows do not depend on the number of `processes`. Raises UserError for text that cannot be read or
    fills no row, a length below 8, and a tokenizer that is not fast or lacks [CLS], [SEP] or [MASK].
    """
    if length < SHORTEST:
        raise UserError("Rows of text are too short", got=length, allowed=f"at least {SHORTEST}")
    if not 0 <= held_out < 1:
        raise UserError("The share of held-out documents does not fit", got=held_out, allowed="0 up to below 1")
    if processes < 1:
        raise UserError("Text needs a process that reads it", got=processes, allowed="at least 1")
    made = _Making(tuple(files), Vocabulary.of(tokenizer), length, column, held_out)
    home = folder / made.key
    if found := made.opened(home):
        line(f"The text is in {home} already: {len(found[0]):,} rows of {length} tokens")
        return found
    if home.exists():
        line(f"What is in {home} is not whole, and is made again")
        remove_folder(home)
    clear_abandoned(folder)
    with folder_beside(home) as place:
        new = place / home.name
        made.write(new, processes)
        try:
            os.replace(new, home)
        except OSError:
            # Another process may have made the same meanwhile.
            if not made.opened(home):
                raise
    found = made.opened(home)
    if not found:
        raise UserError("The rows of text changed while they were made", got=home)
    return found


@dataclass(frozen=True)
class _Making:
    """All that decides the rows."""

    files: tuple[Path, ...]
    vocabulary: Vocabulary
    length: int
    column: str
    held_out: float

    @cached_property
    def key(self) -> str:
        """Sixteen hex digits that change with anything that decides the rows; every byte of the files is read."""
        with busy("reading the text"):
            content = [(kind_of(file), digest(file)) for file in self.files]
        decides = {
            "format": FORMAT,
            "files": content,
            "tokenizer": hashlib.sha256(self.vocabulary.serialised.encode()).hexdigest(),
            "special": [self.vocabulary.cls, self.vocabulary.sep],
            "length": self.length,
            "column": self.column,
            "held_out": self.held_out,
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def parts(self) -> tuple[str, ...]:
        return (TRAIN, HELD_OUT) if self.held_out else (TRAIN,)

    def opened(self, home: Path) -> tuple[Shards, Shards | None] | None:
        """What lies in `home`, if it is whole by what its manifests say."""
        found = [self._part(home / part) for part in self.parts]
        train, held_out = (*found, None)[:2]
        if train is None or (self.held_out and held_out is None):
            return None
        return train, held_out

    def _part(self, folder: Path) -> Shards | None:
        try:
            said = json.loads((folder / _MANIFEST).read_bytes())
            size = (folder / _ROWS).stat().st_size
            rows, kind = int(said["rows"]), str(said["kind"])
            sources = tuple(zip(self.files, map(int, said["sources"]), strict=True))
            counts = int(said["documents"]), str(said["digest"]), int(said["left_out"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if size != rows * self.length * np.dtype(kind).itemsize:
            return None
        return Shards(folder, self.length, rows, rows * self.length, *counts, sources, kind)

    def write(self, home: Path, processes: int) -> None:
        """Fill a new folder."""
        started, tokens = time.monotonic(), 0
        with ExitStack() as stack:
            packers = [stack.enter_context(self._packer(home / part)) for part in self.parts]
            told = stack.enter_context(reading_bar(sum(file.stat().st_size for file in self.files)))
            before = [0, *accumulate(file.stat().st_size for file in self.files)]
            found = encoded(self._chunks(), self.vocabulary.serialised, self.held_out, processes)
            for chunk, read in found:
                ends = np.cumsum(read.lengths)
                for start, end, side in zip(ends - read.lengths, ends, read.held_out, strict=True):
                    packers[int(side)].add(read.ids[start:end], chunk.file)
                tokens += len(read.ids)
                told(before[chunk.file] + chunk.place, tokens)
            self._check(packers)
        seconds = time.monotonic() - started
        rows = " and ".join(f"{packer.rows:,}" for packer in packers)
        said = f"{sum(packer.documents for packer in packers):,} documents are {rows} rows of {self.length} tokens"
        line(f"{said}, read in {seconds:.1f} s ({tokens / seconds:,.0f} tokens/s)")

    @contextmanager
    def _packer(self, folder: Path) -> Iterator[Packer]:
        """A packer into a new folder, whose manifest is written at the end."""
        folder.mkdir(parents=True)
        words, kind = self.vocabulary, self.vocabulary.kind
        with (folder / _ROWS).open("wb") as file:
            packer = Packer(file, self.length, words.cls, words.sep, kind, len(self.files))
            yield packer
            file.flush()
            os.fsync(file.fileno())
        manifest = {
            "rows": packer.rows,
            "documents": packer.documents,
            "left_out": packer.unwritten,
            "kind": kind,
            "digest": hashlib.sha256(f"{self.key} {folder.name} {packer.digest}".encode()).hexdigest(),
            "sources": packer.rows_of,
        }
        (folder / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")

    def _chunks(self) -> Iterator[Chunk]:
        for number, file in enumerate(self.files):
            texts: list[str] = []
            letters = place = 0
            for text, place in placed_documents(file, self.column):
                texts.append(text)
                letters += len(text)
                if letters >= LETTERS_A_CHUNK or len(texts) == DOCUMENTS_A_CHUNK:
                    yield Chunk(number, place, tuple(texts))
                    texts, letters = [], 0
            if texts:
                yield Chunk(number, place, tuple(texts))

    def _check(self, packers: Sequence[Packer]) -> None:
        if not any(packer.documents for packer in packers):
            raise UserError("There is no text", got=", ".join(map(str, self.files)) or "no files")
        for packer, what, fix in zip(
            packers,
            ("text", "held-out text"),
            ("give more text, or shorter rows", "hold out a larger share, or give more text"),
            strict=False,
        ):
            if not packer.rows:
                got = f"{packer.unwritten:,} tokens"
                raise UserError(f"The {what} does not fill one row of {self.length} tokens", got=got, fix=fix)

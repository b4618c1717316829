"""Rows of one length out of documents of any: no padding, and as few tokens as possible that are no text."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

import numpy as np


class Packer:
    """Writes rows of [CLS], text, and [SEP] behind each document and at the end, without padding, to a file.

    Documents follow each other in a row, and what does not fit goes on in the next behind its own [CLS] ("full
    sentences" of RoBERTa, Liu et al. 2019, arXiv:1907.11692, section 4.2). The [SEP] of a document that ends with a row
    is the row's own; if one place is left behind that of a document, it holds [SEP] too.
    """

    def __init__(self, file: BinaryIO, length: int, cls: int, sep: int, kind: str, sources: int) -> None:
        self._file, self._sep, self._last = file, sep, length - 1
        self._row = np.full(length, cls, kind)
        self._filled, self._source = 1, 0
        self._written = hashlib.sha256()
        self.documents = 0
        self.rows_of = [0] * sources
        """Rows by the number of the source that their first text is of."""

    def add(self, ids: np.ndarray, source: int) -> None:
        """Append a document: its token ids [tokens] without special tokens. One without tokens is left out."""
        self.documents += bool(len(ids))
        start = 0
        while start < len(ids):
            if self._filled == 1:
                self._source = source
            part = ids[start : start + self._last - self._filled]
            self._row[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            start += len(part)
            if start == len(ids) and self._filled < self._last:
                self._row[self._filled] = self._sep
                self._filled += 1
            if self._filled == self._last:
                self._write()

    @property
    def rows(self) -> int:
        """How many rows are written."""
        return sum(self.rows_of)

    @property
    def unwritten(self) -> int:
        """Tokens of the last row, which is not full, without its [CLS]."""
        return self._filled - 1

    @property
    def digest(self) -> str:
        """SHA-256 of what is written, in hex."""
        return self._written.hexdigest()

    def _write(self) -> None:
        self._row[self._last] = self._sep
        content = self._row.tobytes()
        self._file.write(content)
        self._written.update(content)
        self.rows_of[self._source] += 1
        self._filled = 1

"""Bytes of a file that may be compressed, as a stream."""

from __future__ import annotations

import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from sparsebert.errors import UserError

_BUFFER = 1 << 20


def _zst(raw: BinaryIO) -> Any:
    return pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")


_OPEN: dict[str, Callable[[BinaryIO], Any]] = {
    ".xz": lzma.LZMAFile,
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".zst": _zst,
}
PACKED = tuple(_OPEN)
"""How names of compressed files end that can be read."""
# What the libraries raise for bytes that they did not write, and for files that were cut off.
_DAMAGE = (lzma.LZMAError, zlib.error, gzip.BadGzipFile, EOFError, pa.ArrowException)


@contextmanager
def unpacked(file: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The content of a file, unpacked while it is read, and the file itself, whose `tell` says how far that is.

    Raises UserError, inside the block too, for a file that is damaged or cannot be opened.
    """
    try:
        raw = file.open("rb")
    except OSError as error:
        raise UserError(f"{file} cannot be read", got=error.strerror) from None
    with raw:
        if file.suffix not in _OPEN:
            yield raw, raw
            return
        try:
            yield io.BufferedReader(_OPEN[file.suffix](raw), _BUFFER), raw
        except _DAMAGE as error:
            raise _damaged(file, error) from None
        except OSError as error:
            # Arrow's own errors of reading are those of the system, without its number.
            if error.errno is not None:
                raise
            raise _damaged(file, error) from None


def _damaged(file: Path, error: Exception) -> UserError:
    return UserError(f"{file} is damaged or was cut off", got=error, fix="unpack it by hand to see, or fetch it again")

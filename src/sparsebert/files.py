"""Files that a killed process leaves whole or not at all: atomic writing, digests, removal, and clearing up."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sparsebert.errors import UserError

PREFIX = ".sparsebert-tmp-"
"""Names of what is being written or removed begin with it, so that what a killed process leaves can be told apart."""
YOUNG_S = 60


def home_of(name: str) -> Path:
    """The path meant by `name`, with ~ as the user's home. Raises UserError for the home of nobody."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise UserError("There is no such home", got=name) from None


def cache_home() -> Path:
    """Where is kept what many runs share: the folder of the variable SPARSEBERT_CACHE, else ~/.cache/sparsebert."""
    return home_of(os.environ.get("SPARSEBERT_CACHE") or "~/.cache/sparsebert")


def write_text_atomically(path: Path, text: str) -> None:
    """Write through a temporary file in the same folder, so that a reader sees the old file or the new, never half."""
    write_bytes_atomically(path, text.encode("utf-8"))


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """As `write_text_atomically`, for bytes. A link of that name is replaced, not followed."""
    with atomic_file(path) as file:
        file.write(content)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write into that becomes `path` at the end of the block, and is gone if that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=PREFIX)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A new folder next to `path`, to be filled and renamed to it; what is left of it after the block is removed.

    It is locked, so that `clear_abandoned` knows that somebody is writing there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=path.parent, prefix=PREFIX))
    handle = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(handle)


def clear_abandoned(folder: Path) -> None:
    """Remove the folders that `folder_beside` made in `folder` for processes that were killed, others may be writing.

    One is left for a minute, as it is not locked in the moment after it was made.
    """
    for place in folder.glob(f"{PREFIX}*"):
        try:
            handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            # A file, or gone meanwhile.
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - os.fstat(handle).st_mtime > YOUNG_S:
                shutil.rmtree(place, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(handle)


def remove_folder(path: Path) -> None:
    """Remove a folder, if it is there; a process that is killed meanwhile leaves no half of it under its name."""
    if not path.is_dir():
        return
    with folder_beside(path) as place:
        os.replace(path, place / path.name)


def clear_leftovers(folder: Path) -> None:
    """Remove what killed processes left in `folder` and below. Nobody else may be writing there."""
    for parent, names, files in os.walk(folder):
        for name in [name for name in names if name.startswith(PREFIX)]:
            shutil.rmtree(Path(parent) / name)
            names.remove(name)
        for name in files:
            if name.startswith(PREFIX):
                (Path(parent) / name).unlink()


def refuse_links(folder: Path) -> None:
    """Raises UserError for a symbolic link in `folder` or below: what is written through it would land elsewhere."""
    for parent, names, files in os.walk(folder):
        for name in sorted((*names, *files)):
            if (Path(parent) / name).is_symlink():
                raise UserError(
                    "A run folder must not hold links", got=Path(parent) / name, fix="remove it, or put a copy there"
                )


def open_lock(path: Path) -> int:
    """A descriptor of a lock file, which is made if it is not there and never emptied. Raises UserError for a link."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UserError("A lock file must not be a link", got=path, fix="remove it") from None


def digest(file: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def digests(paths: Iterable[Path], home: Path) -> dict[str, str]:
    """SHA-256 of every file in `paths`, folders with all that is in them, by path relative to `home`, sorted."""
    files = (file for path in paths for file in (path.rglob("*") if path.is_dir() else (path,)) if file.is_file())
    return {os.path.relpath(file, home): digest(file) for file in sorted(files)}


def differing_files(expected: dict[str, str], home: Path) -> list[str]:
    """Names of the files under `home` that are gone or have another content than `expected` says."""
    return [name for name, known in expected.items() if not (home / name).is_file() or digest(home / name) != known]


def folder_word(text: str) -> str:
    """A text as a part of a folder's name: what may not be in one becomes a hyphen."""
    return "".join(letter if letter.isalnum() or letter in "=.-+" else "-" for letter in text)

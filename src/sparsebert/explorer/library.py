"""The runs that were given: read once, looked at again for what is new, and what cannot be shown told in a line."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sparsebert.errors import UserError
from sparsebert.records import FILE_NAME, RECIPE_FILE, Record, read_record, record_files


@dataclass(frozen=True)
class FoundRun:
    """A record, where it lies, and a name that tells it from the other runs."""

    name: str
    file: Path
    record: Record


@dataclass(frozen=True)
class Shelf:
    """What was found at one moment. `going` names runs that have no record yet, `problems` are lines for a reader.

    `version` is another one as soon as anything of it has changed.
    """

    runs: tuple[FoundRun, ...]
    going: tuple[str, ...]
    problems: tuple[str, ...]
    version: str


@dataclass
class Library:
    """The paths that were given, and the records that were read of them; safe to be asked by several threads."""

    paths: Sequence[Path]
    _read: dict[Path, tuple[tuple[int, int], Record | str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self) -> Shelf:
        """What is there now. Only records that are new or have changed are read."""
        with self._lock:
            return self._look()

    def _look(self) -> Shelf:
        files: dict[Path, tuple[int, int]] = {}
        problems: list[str] = []
        going = [folder for path in self.paths for folder in _going(path)]
        for path in self.paths:
            try:
                files |= {file.resolve(): _stamp(file) for file in record_files(path)}
            except (UserError, OSError) as error:
                problems += [] if any(_belongs(folder, path) for folder in going) else [f"{path}: {error}"]
        self._read = {file: self._kept(file, stamp) for file, stamp in files.items()}
        found = {file: told for file, (_, told) in self._read.items() if isinstance(told, Record)}
        names = _names([*map(_home, found), *going])
        runs = tuple(FoundRun(name, file, found[file]) for name, file in zip(names, found, strict=False))
        problems += [f"{file}: {told}" for file, (_, told) in self._read.items() if isinstance(told, str)]
        return Shelf(runs, tuple(names[len(found) :]), tuple(problems), _version(files, going, problems))

    def _kept(self, file: Path, stamp: tuple[int, int]) -> tuple[tuple[int, int], Record | str]:
        known = self._read.get(file)
        if known is not None and known[0] == stamp:
            return known
        try:
            return stamp, read_record(file)
        except (UserError, OSError) as error:
            return stamp, str(error)


def _going(path: Path) -> Iterator[Path]:
    """Folders of runs that have begun and left no record."""
    for recipe in (path / RECIPE_FILE, *sorted(path.glob(f"*/{RECIPE_FILE}"))):
        if recipe.is_file() and not (recipe.parent / FILE_NAME).exists():
            yield recipe.parent


def _belongs(folder: Path, path: Path) -> bool:
    return path in (folder, folder.parent)


def _stamp(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_mtime_ns, stat.st_size


def _home(file: Path) -> Path:
    return file.parent if file.name == FILE_NAME else file


def _names(places: Sequence[Path]) -> list[str]:
    """Their paths from the folder that they have in common; one alone is called by its own name."""
    absolute = [place.resolve() for place in places]
    if len(set(absolute)) < 2:
        return [place.name for place in absolute]
    above = os.path.commonpath([place.parent for place in absolute])
    return [os.path.relpath(place, above) for place in absolute]


def _version(files: dict[Path, tuple[int, int]], going: Sequence[Path], problems: Sequence[str]) -> str:
    said = repr([sorted((str(file), *stamp) for file, stamp in files.items()), sorted(map(str, going)), problems])
    return hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()[:16]

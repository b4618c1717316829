"""What runs share, made once: dense models, what teachers said of the train rows, and latency tables.

Files are shared as hard links, so that a run that is deleted takes nothing from the others.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsebert.files import PREFIX, clear_leftovers, folder_beside, open_lock, remove_folder, write_text_atomically
from sparsebert.progress import line
from sparsebert.recipe.base import Recipe
from sparsebert.records import Inputs

NAME = "cache"
TAKEN = "work/taken.json"
LOCK, SLASH = ".lock", "!"
# What of the recipe, besides the inputs, decides token rows.
ROWS = ("task", "columns", "max_length")


@dataclass(frozen=True)
class SharedPart:
    """Paths of a run folder, patterns among them, that `decides` alone decides; the last one says that it is done."""

    decides: dict[str, Any]
    paths: tuple[str, ...]

    @property
    def name(self) -> str:
        """Sixteen hex digits that change with what decides."""
        return hashlib.sha256(json.dumps(self.decides, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def shared_cache(folder: Path) -> Iterator[Path]:
    """`folder`/cache, for the runs inside the block; removed after it, unless it failed or others still use it."""
    place = folder / NAME
    place.mkdir(parents=True, exist_ok=True)
    lock = open_lock(place / LOCK)
    try:
        if _is_alone(lock):
            _clear(folder, place)
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield place
        if not _is_alone(lock):
            return
        remove_folder(place)
        # Where every run was refused there is nothing to keep.
        if not any(folder.iterdir()):
            folder.rmdir()
    finally:
        os.close(lock)


def _is_alone(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _clear(folder: Path, place: Path) -> None:
    """What sweeps left that were killed while they shared or cleared up."""
    clear_leftovers(place)
    for entry in folder.glob(f"{PREFIX}*"):
        shutil.rmtree(entry)


def shared_parts(recipe: Recipe, inputs: Inputs) -> list[SharedPart]:
    """What a run of this recipe and of these inputs may share with others."""
    plain, made_from = recipe.plain(), inputs.model_dump(mode="json")
    teachers = made_from.pop("teachers")
    rows = {key: plain[key] for key in ROWS} | made_from
    # The seed of the rows decides which of them a training holds out.
    own = {key: plain.get(key) for key in ("seed", "data_seed", "dense", "masking")}
    dense = rows | own
    parts = [
        SharedPart(dense, ("work/teacher", "dense", "work/dense.json")),
        SharedPart(dense | {"measure": plain["measure"]}, ("work/latency-*.json",)),
    ]
    paths = [(f"work/teacher-{index}", name) for index, name in enumerate(recipe.given_teachers)]
    return parts + [SharedPart(rows | {"teacher": teachers[name]}, (path,)) for path, name in paths]


def take_from_cache(parts: Sequence[SharedPart], folder: Path, cache: Path) -> list[str]:
    """Give a run what others left in `cache`, and say all that it was ever given; what it has already stays."""
    given: dict[str, Path] = {}
    for part in parts:
        for pattern in part.paths:
            for source in sorted((cache / part.name).glob(_flat(pattern))):
                given[source.name.replace(SLASH, "/")] = source
    new = [name for name in given if not (folder / name).exists()]
    before = given_before(folder)
    if new:
        # First, so that a run that is killed while it is given something still knows that it is not its own.
        write_text_atomically(folder / TAKEN, json.dumps([*before, *new]))
    for name in new:
        _link(given[name], folder / name)
    return [*before, *new]


def given_before(folder: Path) -> list[str]:
    """What a run was ever given by others."""
    try:
        return [str(name) for name in json.loads((folder / TAKEN).read_bytes())]
    except (FileNotFoundError, ValueError):
        return []


@contextmanager
def one_maker(part: SharedPart, folder: Path, cache: Path) -> Iterator[None]:
    """Inside, no other run makes this part; what one has made there is given to the next.

    So runs that work at the same time train their dense model once, and the others wait for it.
    """
    lock = open_lock(cache / f"{part.name}{LOCK}")
    try:
        if not _is_alone(lock):
            line("Waiting for another run, which makes the same dense model")
            fcntl.flock(lock, fcntl.LOCK_EX)
        take_from_cache([part], folder, cache)
        yield
        add_to_cache([part], folder, cache)
    finally:
        os.close(lock)


def add_to_cache(parts: Sequence[SharedPart], folder: Path, cache: Path) -> None:
    """Leave in `cache` what a run made, finished parts only."""
    for part in parts:
        if not any(folder.glob(part.paths[-1])):
            continue
        for pattern in part.paths:
            for source in sorted(folder.glob(pattern)):
                _link(source, cache / part.name / _flat(str(source.relative_to(folder))))


def _flat(path: str) -> str:
    return path.replace("/", SLASH)


def _link(source: Path, target: Path) -> None:
    """Through a name of its own, so that a process that is killed leaves nothing half there; what is there stays."""
    if target.exists():
        return
    with folder_beside(target) as place:
        made = place / target.name
        if source.is_dir():
            shutil.copytree(source, made, copy_function=os.link)
        else:
            os.link(source, made)
        try:
            made.rename(target)
        except OSError:
            # Another sweep was faster: its folder is as good.
            if not target.exists():
                raise

"""What runs have in common, made once: dense models, what teachers said of the train rows, and latency tables.

Files are shared as hard links, so that a run that is deleted takes nothing from the others.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsebert.recipe import Recipe

NAME = "common"
LOCK, SLASH = ".lock", "!"
ROWS = ("model", "task", "data", "columns", "max_length", "train_examples", "data_seed")


@dataclass(frozen=True)
class Part:
    """Paths of a run folder, patterns among them, that `decides` alone decides; the last one says that it is done."""

    decides: dict[str, Any]
    paths: tuple[str, ...]

    @property
    def name(self) -> str:
        """Sixteen hex digits that change with what decides."""
        return hashlib.sha256(json.dumps(self.decides, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def common_folder(folder: Path) -> Iterator[Path]:
    """`folder`/common, for the runs inside the block; removed after it, unless it failed or others still use it."""
    place = folder / NAME
    place.mkdir(parents=True, exist_ok=True)
    with (place / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield place
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(place)
        # Where every run was refused there is nothing to keep.
        if not any(folder.iterdir()):
            folder.rmdir()


def parts_of(recipe: Recipe) -> list[Part]:
    """What a run of this recipe may share with others."""
    plain = recipe.plain()
    rows = {key: plain[key] for key in ROWS}
    dense = rows | {"seed": recipe.seed, "dense": plain["dense"]}
    parts = [
        Part(dense, ("work/teacher", "dense", "work/dense.json")),
        Part(dense | {"measure": plain["measure"]}, ("work/latency-*.json",)),
    ]
    teachers = [(f"work/teacher-{index}", name) for index, name in enumerate(recipe.given_teachers)]
    return parts + [Part(rows | {"teacher": name}, (path,)) for path, name in teachers]


def take(recipe: Recipe, folder: Path, common: Path) -> list[str]:
    """Give a run what others left in `common`, and say what; what it has already stays."""
    taken = []
    for part in parts_of(recipe):
        for pattern in part.paths:
            for source in sorted((common / part.name).glob(_flat(pattern))):
                target = source.name.replace(SLASH, "/")
                if _link(source, folder / target):
                    taken.append(target)
    return taken


def leave(recipe: Recipe, folder: Path, common: Path) -> None:
    """Leave in `common` what a run made, finished parts only."""
    for part in parts_of(recipe):
        if not any(folder.glob(part.paths[-1])):
            continue
        for pattern in part.paths:
            for source in sorted(folder.glob(pattern)):
                _link(source, common / part.name / _flat(str(source.relative_to(folder))))


def _flat(path: str) -> str:
    return path.replace("/", SLASH)


def _link(source: Path, target: Path) -> bool:
    """Through a name of its own, so that a process that is killed leaves nothing half there; False if it is there."""
    if target.exists():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as place:
        made = Path(place) / target.name
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
    return True

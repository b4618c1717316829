"""Stages: work that is done once, kept on disk, and found again by the next run of the same command."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from sparsebert.errors import BusyError, UserError
from sparsebert.recipe import Recipe, differing_keys, parse_recipe
from sparsebert.records import write_text_atomically

T = TypeVar("T", bound=BaseModel)
RECIPE_FILE = "recipe.json"
LOCK_FILE = ".lock"


def claim(folder: Path, recipe: Recipe) -> None:
    """Make `folder` the run folder of `recipe`. Raises UserError, naming the keys, if another recipe has it."""
    file = folder / RECIPE_FILE
    if file.is_file():
        before = parse_recipe(json.loads(file.read_bytes()))
        differing = differing_keys(before, recipe)
        if differing:
            raise UserError(
                f"{folder} holds a run of another recipe; different: {', '.join(differing)}",
                fix="choose another --output, or give the same values",
            )
        return
    if folder.exists() and (not folder.is_dir() or any(_is_foreign(entry) for entry in folder.iterdir())):
        raise UserError("The output folder is not empty and not a run", got=folder, fix="choose another --output")
    write_text_atomically(file, recipe.model_dump_json(indent=1, by_alias=True) + "\n")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the run folder; the lock goes with the process. Raises BusyError if another process holds it."""
    with (folder / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError("Another command is working in the output folder", got=folder, fix="wait for it") from None
        yield


def _is_foreign(entry: Path) -> bool:
    # A process that is killed while it claims a folder leaves a half-written recipe of that name behind.
    return not entry.name.startswith(f".{RECIPE_FILE}.") and entry.name != LOCK_FILE


def stage(
    file: Path,
    kind: type[T],
    work: Callable[[], T],
    makes: Path | None = None,
    later: Sequence[tuple[Path, Path]] = (),
) -> T:
    """What `file` holds if it is there, else what `work` gives, written atomically first.

    `makes` is a folder that the work leaves besides; where that is gone, it is done anew. `later` are file and folder
    of each stage that stands on this one: once one of them is there `makes` may be gone, and where this one is done
    anew, so are they.
    """
    needed = makes if not any(other.is_file() and made.is_dir() for other, made in later) else None
    if file.is_file() and (needed is None or needed.is_dir()):
        return kind.model_validate_json(file.read_bytes())
    for other, _ in later:
        other.unlink(missing_ok=True)
    result = work()
    write_text_atomically(file, result.model_dump_json() + "\n")
    return result

"""Stages: work that is done once, kept on disk, and found again by the next run of the same command (ADR 7)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from sparsebert.files import differing_files, digests, remove_folder, write_text_atomically
from sparsebert.progress import line

T = TypeVar("T", bound=BaseModel)


class _Kept(BaseModel):
    """What the file of a stage holds. `made` has the SHA-256 of every file, by its path from the stage's folder."""

    after: str
    made: dict[str, str]
    result: dict[str, Any]
    check: str

    @property
    def digest(self) -> str:
        return _digest(self.made or self.result)

    def is_sound(self) -> bool:
        return self.check == _digest([self.after, self.made, self.result])


@dataclass(frozen=True)
class Stage:
    """Where a stage keeps its result, and the files and folders that it makes besides.

    `makes` are complete when the result is written; what is put into these folders later belongs to others. `scratch`
    is a folder that is needed only until then.
    """

    file: Path
    makes: tuple[Path, ...] = ()
    scratch: Path | None = None


@dataclass(frozen=True)
class Done(Generic[T]):
    """A finished stage. `digest` changes with what it made, or with its result where it makes nothing."""

    result: T
    digest: str


def once(stage: Stage, kind: type[T], work: Callable[[], T], after: str = "", later: Sequence[Stage] = ()) -> Done[T]:
    """What the stage left if it is there and unharmed, else what `work` gives, written atomically after what it makes.

    `after` is the digest of what the stage stands on: with another it is done again. While one of the stages that
    stand on this one, `later`, is unharmed, what this one made is not needed. Says so where work is done again.
    """
    kept = _read(stage, kind)
    if kept is None or not _holds(stage, kept, after, later):
        kept = _carry_out(stage, work, after)
    if stage.scratch is not None:
        remove_folder(stage.scratch)
    return Done(kind.model_validate(kept.result), kept.digest)


def _carry_out(stage: Stage, work: Callable[[], BaseModel], after: str) -> _Kept:
    result = json.loads(work().model_dump_json())
    made = digests(stage.makes, stage.file.parent)
    kept = _Kept(after=after, made=made, result=result, check=_digest([after, made, result]))
    write_text_atomically(stage.file, kept.model_dump_json() + "\n")
    return kept


def _holds(stage: Stage, kept: _Kept, after: str, later: Sequence[Stage]) -> bool:
    if kept.after != after:
        _say(stage, "stands on something that has changed")
        return False
    differing = differing_files(kept.made, stage.file.parent)
    if not differing or any(_is_whole(other, kept.digest) for other in later):
        return True
    _say(stage, f"is missing or damaged ({', '.join(differing)})")
    return False


def _is_whole(stage: Stage, after: str) -> bool:
    kept = _read(stage)
    return kept is not None and kept.after == after and not differing_files(kept.made, stage.file.parent)


def _read(stage: Stage, kind: type[BaseModel] | None = None) -> _Kept | None:
    """None where there is no file, or where it cannot be what was written."""
    if not stage.file.is_file():
        return None
    try:
        kept = _Kept.model_validate_json(stage.file.read_bytes())
        if kind is not None:
            kind.model_validate(kept.result)
    except ValidationError:
        kept = None
    if kept is None or not kept.is_sound():
        _say(stage, "is not readable")
        return None
    return kept


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _say(stage: Stage, why: str) -> None:
    name = f"{stage.file.parent.name}/{stage.file.name}"
    line(f"What {name} speaks of {why}, so it is made again")

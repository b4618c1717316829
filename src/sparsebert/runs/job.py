"""One run as a job: plain values in, the files of a run folder and one line out."""

from __future__ import annotations

import fcntl
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsebert.errors import BusyError, UserError
from sparsebert.files import open_lock
from sparsebert.models.source import quiet
from sparsebert.progress import silent
from sparsebert.recipe.load import parse_recipe
from sparsebert.records import Inputs
from sparsebert.runs.claim import LOCK_FILE
from sparsebert.runs.run import run

LOOK_S = 0.5


@dataclass(frozen=True)
class RunJob:
    """A run in `folder`, which its worker sees too; see `run` for what is not said here.

    `is_away` says that the worker is another process, which then says nothing on its own. `patience_s` is how long it
    waits for a process that may be dying in the folder. `expected` are the inputs where the command was given.
    """

    name: str
    recipe: dict[str, Any]
    folder: str
    command: str
    cache: str | None = None
    restart: bool = False
    keep_models: bool = True
    notes: tuple[str, ...] = ()
    is_away: bool = False
    patience_s: float = 0.0
    expected: dict[str, Any] | None = None
    report_to: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunAnswer:
    """How a run ended: `error` is none where its record says that it finished."""

    error: str | None = None
    is_busy: bool = False


def carry_out(job: RunJob) -> RunAnswer:
    """Carry the run out; mistakes of the user are an answer."""
    with _said_by(job):
        try:
            _wait_until_free(Path(job.folder), job.patience_s)
            run(
                parse_recipe(job.recipe),
                Path(job.folder),
                job.command,
                Path(job.cache) if job.cache else None,
                restart=job.restart,
                keep_models=job.keep_models,
                report_to=job.report_to,
                notes=job.notes,
                expected=None if job.expected is None else Inputs.model_validate(job.expected),
            )
        except UserError as error:
            return RunAnswer(str(error), isinstance(error, BusyError))
    return RunAnswer()


@contextmanager
def _said_by(job: RunJob) -> Iterator[None]:
    """Another process says nothing: several would speak at once, and its caller is told all that matters."""
    if not job.is_away:
        yield
        return
    with quiet(), silent(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _wait_until_free(folder: Path, patience_s: float) -> None:
    """Wait while another process holds the folder, for so long at most."""
    end = time.monotonic() + patience_s
    if patience_s <= 0 or not (folder / LOCK_FILE).is_file():
        return
    lock = open_lock(folder / LOCK_FILE)
    try:
        while time.monotonic() < end and not _is_free(lock):
            time.sleep(LOOK_S)
    finally:
        os.close(lock)


def _is_free(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(lock, fcntl.LOCK_UN)
    return True

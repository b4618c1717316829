"""Runs as jobs: plain values in, the files of a run folder and one line out."""

from __future__ import annotations

import fcntl
import json
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from sparsebert import registry
from sparsebert.errors import BusyError, UserError
from sparsebert.files import open_lock
from sparsebert.models.source import quiet
from sparsebert.progress import silent
from sparsebert.recipe.base import Recipe
from sparsebert.recipe.load import parse_recipe
from sparsebert.records import Inputs
from sparsebert.runs.claim import LOCK_FILE
from sparsebert.runs.executors.base import Executor, InProcess
from sparsebert.runs.inputs import DECIDE_INPUTS
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


@dataclass(frozen=True)
class JobMaker:
    """Makes the jobs of one command, for these workers; `read` holds the inputs that are known already."""

    command: str
    workers: Executor
    report_to: tuple[str, ...] = ()
    read: dict[str, Inputs] = field(default_factory=dict)

    def make(
        self, recipe: Recipe, folder: Path, cache: Path | None, keep_models: bool, notes: tuple[str, ...] = ()
    ) -> RunJob:
        """The job of a run in `folder`. Raises UserError for data or models that cannot be read here."""
        far = self.workers.patience_s > 0
        return RunJob(
            folder.name,
            recipe.plain(),
            str(folder),
            self.command,
            None if cache is None else str(cache),
            keep_models,
            notes,
            is_away=not isinstance(self.workers, InProcess),
            patience_s=self.workers.patience_s,
            expected=self.inputs(recipe).model_dump(mode="json") if far else None,
            report_to=self.report_to,
        )

    def inputs(self, recipe: Recipe) -> Inputs:
        """What a run of this recipe would be made from."""
        plain = recipe.plain()
        key = json.dumps([recipe.given_teachers, *(plain.get(name) for name in DECIDE_INPUTS)])
        if key not in self.read:
            run_type = registry.get("run_type", recipe.kind)()
            self.read[key] = run_type.inputs(recipe, run_type.task(recipe))
        return self.read[key]


def carry_out(job: RunJob) -> RunAnswer:
    """Carry the run out; mistakes of the user are an answer."""
    try:
        start(job)
    except UserError as error:
        return RunAnswer(str(error), isinstance(error, BusyError))
    return RunAnswer()


def start(job: RunJob, callbacks: Sequence[TrainerCallback] = ()) -> None:
    """Carry the run out with these callbacks in every training. Raises UserError."""
    with _said_by(job):
        _wait_until_free(Path(job.folder), job.patience_s)
        run(
            parse_recipe(job.recipe),
            Path(job.folder),
            job.command,
            Path(job.cache) if job.cache else None,
            keep_models=job.keep_models,
            callbacks=callbacks,
            report_to=job.report_to,
            notes=job.notes,
            expected=None if job.expected is None else Inputs.model_validate(job.expected),
        )


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

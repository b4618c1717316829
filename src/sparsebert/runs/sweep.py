"""Sweeps: one recipe over a grid of values and seeds. Every point is an ordinary run in a folder of its own."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sparsebert.errors import UserError
from sparsebert.files import folder_word, refuse_links
from sparsebert.progress import line
from sparsebert.recipe.base import Recipe
from sparsebert.recipe.load import load_recipe, read_value
from sparsebert.records import FILE_NAME, RECIPE_FILE, Record, read_record
from sparsebert.runs.board import Board, board
from sparsebert.runs.cache import shared_cache
from sparsebert.runs.claim import check_inputs, clear_run, finished_record
from sparsebert.runs.executors import Executor, Failed, executor
from sparsebert.runs.executors.base import InProcess
from sparsebert.runs.job import JobMaker, RunAnswer, RunJob, carry_out
from sparsebert.training.loggers import loggers

MOST_VALUES, MOST_POINTS = 1000, 10_000
# File systems take 255 bytes.
LONGEST_FOLDER = 240
TINY = 1e-9
QUOTES = "[{'\""
SEEDS = "give --seeds N for the seeds 0 to N-1"


@dataclass(frozen=True)
class Axis:
    """One value of the recipe and what it takes in turn."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Point:
    """One run of a sweep; its name is its folder."""

    name: str
    recipe: Recipe


def axis(text: str) -> Axis:
    """`KEY=A,B,C`, where brackets and quotes hold commas together, or `KEY=START:STOP:STEP` with STOP if steps meet it.

    Raises UserError for anything else, and for the seed, which is no axis.
    """
    key, found, values = text.partition("=")
    if not found or not key.strip() or not values.strip():
        raise UserError("A grid must look like KEY=A,B,C or KEY=START:STOP:STEP", got=text)
    key, parts = key.strip(), values.split(":")
    if key == "seed":
        raise UserError("The seeds of a sweep are no grid", got=text, fix=SEEDS)
    is_range = len(parts) == 3 and values.strip()[0] not in QUOTES
    return Axis(key, _steps(text, parts) if is_range else _listed(text, values))


def points(
    file: Path | None,
    settings: Sequence[str],
    axes: Sequence[Axis],
    seeds: Sequence[int],
) -> list[Point]:
    """All combinations, seed by seed, so that the first seed of everything comes first.

    Raises UserError for a combination that is no valid recipe, for a key that is given twice, and for values or keys
    that folders cannot tell apart.
    """
    keys = [one.key for one in axes]
    _check_keys(keys, settings)
    count = math.prod(len(one.values) for one in axes) * len(seeds)
    if count > MOST_POINTS:
        raise UserError("The sweep has too many points", got=f"{count:,}", allowed=f"{MOST_POINTS:,} and fewer")
    found = []
    for seed in seeds:
        for values in itertools.product(*(one.values for one in axes)):
            chosen = [f"{key}={_setting(value)}" for key, value in zip(keys, values, strict=True)]
            recipe = load_recipe(file, [*settings, *chosen], seed=seed)
            found.append(Point("_".join([*map(_folder_word, chosen), f"seed={seed}"]), recipe))
    check_folders(found)
    return found


def points_of(
    files: Sequence[Path | None], settings: Sequence[str], axes: Sequence[Axis], seeds: Sequence[int]
) -> list[Point]:
    """As `points`, for several recipes: the name of a point then begins with its recipe's.

    Raises UserError, too, for two recipes of one name.
    """
    if len(files) == 1:
        return points(files[0], settings, axes, seeds)
    found = []
    for seed in seeds:
        for file in files:
            found += [
                Point(f"{folder_word(str(one.recipe.name))}_{one.name}", one.recipe)
                for one in points(file, settings, axes, [seed])
            ]
    check_folders(found)
    return found


def _check_keys(keys: Sequence[str], settings: Sequence[str]) -> None:
    if len(set(keys)) != len(keys):
        raise UserError("Two grids are of the same key", got=", ".join(keys))
    for key in (setting.partition("=")[0].strip() for setting in settings):
        if key == "seed":
            raise UserError("The seeds of a sweep are no setting", got=key, fix=SEEDS)
        if key in keys:
            raise UserError("A key of the grid has a value of its own", got=key, fix="leave one of them out")


def check_folders(found: Sequence[Point]) -> None:
    """Raises UserError for points whose folders the file system could not hold or tell apart."""
    seen: set[str] = set()
    for point in found:
        if len(point.name.encode()) > LONGEST_FOLDER:
            raise UserError("A point of the sweep would have too long a folder's name", got=point.name)
        if point.name.lower() in seen:
            raise UserError("Two points of the sweep would share a folder", got=point.name, fix="sweep them apart")
        seen.add(point.name.lower())


def _setting(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True).splitlines()[0]


def sweep(
    todo: Sequence[Point],
    folder: Path,
    command: str,
    keep_models: bool,
    restart: bool = False,
    on: str | None = None,
    report_to: Sequence[str] = (),
) -> Iterator[tuple[Point, Record]]:
    """Run every point in `folder`/NAME and yield its record; a finished one is only read.

    `on` says where, see `executor`; with several workers records come in the order in which they finish. A point that
    fails with an error of the user, or whose workers die, does not stop the others; it leaves a failed record, or
    nothing where it was refused before it started, or where another process works on it. Points with the same dense
    model or teacher share them, so each is trained and asked once. Without `keep_models` only records, predictions and
    reports of what was run now stay, and of a point that failed what it takes to go on; with it a finished point whose
    models are gone is run again. `restart` runs finished points again too; `report_to` is as in `run`. Raises UserError
    for a finished point that was made from other data or models than there are now, for a folder that is a run's or has
    links in it, for a logger that is not installed, and for workers that cannot be had or do not see the folder.
    """
    loggers(report_to)
    if (folder / RECIPE_FILE).is_file():
        raise UserError("The output folder of a sweep is that of a run", got=folder, fix="choose another --output")
    if folder.is_dir():
        refuse_links(folder)
    workers = executor(on)
    workers.check(folder)
    with shared_cache(folder) as cache, board(len(todo), isinstance(workers, InProcess)) as told:
        yield from _Sweep(folder, command, cache, keep_models, restart, workers, told, report_to).records(todo)


class _Sweep:
    """The jobs of a sweep, and what comes of them."""

    def __init__(
        self,
        folder: Path,
        command: str,
        cache: Path,
        keep_models: bool,
        restart: bool,
        workers: Executor,
        told: Board,
        report_to: Sequence[str],
    ) -> None:
        self._folder, self._cache = folder, cache
        self._keep_models, self._restart = keep_models, restart
        self._maker, self._told = JobMaker(command, workers, tuple(report_to)), told
        # Points that were finished before, until it is their turn to be given.
        self._known: deque[tuple[Point, Record]] = deque()

    def records(self, todo: Sequence[Point]) -> Iterator[tuple[Point, Record]]:
        """Of all points that have one."""
        points = {point.name: point for point in todo}
        for job, answer in self._maker.workers.map(carry_out, self._jobs(todo)):
            yield from self._finished_before()
            if (record := self._record(job, answer)) is not None:
                yield points[job.name], record
        yield from self._finished_before()

    def _finished_before(self) -> Iterator[tuple[Point, Record]]:
        while self._known:
            yield self._known.popleft()

    def _jobs(self, todo: Sequence[Point]) -> Iterator[RunJob]:
        for point in todo:
            place = self._folder / point.name
            known = None if self._restart else _finished(place, point.recipe, self._keep_models, self._maker)
            if known is not None:
                self._told.found(point.name)
                self._known.append((point, known))
                continue
            notes = _beside(point.recipe, self._maker.workers.workers)
            job = self._maker.make(point.recipe, place, self._cache, self._keep_models, notes)
            self._told.begun(point.name)
            if self._is_ready(point, place):
                yield job

    def _is_ready(self, point: Point, place: Path) -> bool:
        """Here, and not in the job, which would remove what it has made itself when it begins again after a death."""
        if self._restart and place.exists():
            try:
                clear_run(place, point.recipe)
            except UserError as error:
                self._told.ended(point.name, str(error))
                return False
        return True

    def _record(self, job: RunJob, answer: RunAnswer | Failed) -> Record | None:
        """What a point left; none where it left nothing of its own."""
        error = answer.message if isinstance(answer, Failed) else answer.error
        self._told.ended(job.name, error)
        if isinstance(answer, Failed):
            for text in answer.traceback.splitlines():
                line(text)
        place = Path(job.folder)
        if error is None:
            return read_record(place)
        if isinstance(answer, Failed) or answer.is_busy or not (place / FILE_NAME).is_file():
            return None
        record = read_record(place)
        return record if record.message == error else None


def _beside(recipe: Recipe, workers: int) -> tuple[str, ...]:
    """What a reader of times must know."""
    if workers == 1 or not recipe.measure.timed:
        return ()
    return (
        f"Times were taken while up to {workers} runs of the sweep worked at once; what shared a machine is slower",
    )


def _finished(place: Path, recipe: Recipe, with_models: bool, maker: JobMaker) -> Record | None:
    """The record of a point that needs no run."""
    if (record := finished_record(place)) is None:
        return None
    if record.recipe_hash != recipe.hash:
        raise UserError("A point of the sweep was made by another recipe", got=place, fix="choose another --output")
    is_whole = not with_models or all((place / model.folder).is_dir() for model in record.models)
    if is_whole and record.inputs is not None:
        check_inputs(place, record.inputs, maker.inputs(recipe))
    return record if is_whole else None


def _listed(text: str, values: str) -> tuple[Any, ...]:
    return tuple(read_value(f"[{values}]", "The values of a grid are not YAML", text))


def _steps(text: str, parts: Sequence[str]) -> tuple[float, ...]:
    try:
        start, stop, step = map(float, parts)
    except ValueError:
        raise UserError("START, STOP and STEP of a grid must be numbers", got=text) from None
    if (
        not all(map(math.isfinite, (start, stop, step)))
        or step <= 0
        or stop < start
        or stop - start > step * MOST_VALUES
    ):
        raise UserError("A grid must go upwards in at most 1,000 steps", got=text)
    count = int((stop - start) / step + TINY) + 1
    return tuple(round(start + index * step, 9) for index in range(count))


def _folder_word(setting: str) -> str:
    key, _, value = setting.partition("=")
    return folder_word(f"{key.rsplit('.', 1)[-1]}={value}")

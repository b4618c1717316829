"""GLUE: every task, so many runs each, as a sweep; each point is an ordinary run in a folder of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsebert.errors import UserError
from sparsebert.files import home_of
from sparsebert.models.heads import saved_head
from sparsebert.models.load import load_config
from sparsebert.models.source import resolve
from sparsebert.progress import tracked
from sparsebert.recipe.base import Recipe
from sparsebert.recipe.load import load_recipe
from sparsebert.records import Record
from sparsebert.runs.context import task_of
from sparsebert.runs.glue_answers import Answers
from sparsebert.runs.glue_board import glue_board
from sparsebert.runs.glue_plan import GluePlan
from sparsebert.runs.submission import check_test_files
from sparsebert.runs.sweep import Point, check_folders, sweep
from sparsebert.tasks.glue import GlueTask, glue_tasks
from sparsebert.tasks.kind import task_kind
from sparsebert.tasks.table import SUBSET, task_spec
from sparsebert.training.loggers import loggers

KIND = "finetune"
# Many short runs: nobody wants the times of each.
UNTIMED = "measure.timed=false"
OWN_KEYS = {"task": "name tasks with --tasks", "seed": "give --runs N for the seeds 0 to N-1"}


@dataclass(frozen=True)
class GlueRun:
    """What is to be run, and how: `test` also answers the test sets with the best run of each task.

    `on` says where runs go, `report_to` where trainings are logged, as in `run`.
    """

    points: tuple[Point, ...]
    plan: GluePlan
    tasks: tuple[GlueTask, ...]
    runs: int
    test: bool = False
    keep_models: bool = False
    on: str | None = None
    report_to: tuple[str, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The first of the recipes, which differ in the task, the seed and what the plan says."""
        return self.points[0].recipe

    @property
    def folder_name(self) -> str:
        """`glue-MODEL-HASH`: the same command always finds the same folder, also with more runs a task."""
        model, first = home_of(self.recipe.model), self.recipe.seed
        hashes = [point.recipe.hash for point in self.points if point.recipe.seed == first]
        whole = hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:12]
        return f"glue-{(model.resolve() if model.is_dir() else model).name}-{whole}"

    @property
    def data(self) -> Path | None:
        """The folder of the tasks; none = the hub."""
        return None if self.recipe.data is None else home_of(self.recipe.data)


def glue_points(
    recipe: Path | str | None, plan: GluePlan, tasks: Sequence[str], runs: int, settings: Sequence[str]
) -> tuple[list[GlueTask], list[Point]]:
    """The tasks, none given = those of the plan, and all their runs, seed by seed.

    `settings` win over the plan. Raises UserError for an unknown task, for a plan of another kind of recipe, and for
    settings that are no valid recipe.
    """
    keys = [one.partition("=")[0].strip() for one in settings]
    for key in keys:
        if key in OWN_KEYS:
            raise UserError(f"The {key} of a GLUE run is no setting", fix=OWN_KEYS[key])
    wanted = glue_tasks(tasks or plan.tasks)
    base, kind = ([UNTIMED], plan.kind or KIND) if recipe is None else ([], None)
    found = []
    for seed in range(runs):
        for task in wanted:
            for choice in plan.of_task(task.name, keys):
                own = [*base, *choice.settings, *settings, f"task={task.name}"]
                made = load_recipe(recipe, own, seed=seed, kind=kind)
                found.append(Point("_".join([task.name, *choice.words, f"seed={seed}"]), made))
    if plan.kind not in (None, found[0].recipe.kind):
        raise UserError(
            f"The plan '{plan.name}' is for recipes of {plan.kind}",
            got=f"a recipe of {found[0].recipe.kind}",
            fix="give --plan FILE with keys of that recipe, or leave --plan out",
        )
    check_folders(found)
    return wanted, found


def check_glue(run: GlueRun) -> dict[str, int]:
    """The train rows of each task. Raises UserError for data that are missing or damaged, and a head of other labels.

    Nothing is trained before; all missing files are named at once. A logger that is not installed is refused too.
    """
    loggers(run.report_to)
    _check_head(run.recipe.model, run.tasks)
    if run.data is not None:
        _check_files(run.data, run.tasks)
    if run.test:
        check_test_files(run.tasks, run.data)
    first = {point.recipe.task: point.recipe for point in reversed(run.points)}
    return {recipe.task: _train_rows(recipe) for recipe in tracked(list(first.values()), "Reading the tasks")}


def _train_rows(recipe: Recipe) -> int:
    return len(task_of(recipe).train)


def carry_out_glue(
    run: GlueRun, folder: Path, command: str, restart: bool, rows: Mapping[str, int]
) -> Iterator[tuple[Point, Record]]:
    """Run what is not finished and yield every point with its record; see `sweep`.

    A point that was refused has none. `rows` are the train rows of each task, by which the time left is guessed. With
    `test` the answers of the best runs lie in `folder`/test afterwards.
    """
    with glue_board(run.points, folder, rows, run.on) as board:
        found = Answers(folder, run.data, run.keep_models, restart) if run.test else None
        for point, record in _records(run, folder, command, restart, found):
            board.ended(point, record)
            yield point, record
        if found is not None:
            found.complete(run.points, lambda points: _sweep(run, points, folder, command, keep_models=True))


def _records(
    run: GlueRun, folder: Path, command: str, restart: bool, answers: Answers | None
) -> Iterator[tuple[Point, Record]]:
    if answers is None:
        yield from _sweep(run, run.points, folder, command, run.keep_models, restart)
        return
    # The models of a run that has finished before are gone, unless it was about to be looked at.
    before = [] if restart else [point for point in run.points if answers.has_finished(point)]
    for point, record in _sweep(run, before, folder, command, run.keep_models) if before else ():
        answers.look(point, record)
        yield point, record
    left = [point for point in run.points if point not in before]
    for point, record in _sweep(run, left, folder, command, True, restart) if left else ():
        answers.look(point, record)
        yield point, record


def _check_files(folder: Path, tasks: Iterable[GlueTask]) -> None:
    if not folder.is_dir():
        raise UserError("The folder of the tasks does not exist", got=folder, fix="leave --data out to use the hub")
    missing = []
    for task in tasks:
        for split in (task_spec(task.name).train_split, task_spec(task.name).validation_splits[0]):
            if not any((folder / task.name / f"{split}{end}.parquet").is_file() for end in ("", SUBSET)):
                missing.append(f"{task.name}/{split}.parquet")
    if missing:
        raise UserError(
            f"Files of the tasks are missing: {', '.join(missing)}",
            got=folder,
            fix="save them there (datasets.load_dataset('nyu-mll/glue', TASK, split=SPLIT).to_parquet(FILE)), or name "
            "tasks that are there with --tasks",
        )


def _check_head(model: str, tasks: Sequence[GlueTask]) -> None:
    """Raises UserError for a classifier of other labels than a task has: it would be lost, and the others not."""
    config = load_config(resolve(model))
    if saved_head(config) != "classification":
        return
    specs = {task.title: task_spec(task.name) for task in tasks}
    wanted = {title: task_kind(spec.kind).num_outputs or len(spec.labels) for title, spec in specs.items()}
    others = [f"{title} ({count})" for title, count in wanted.items() if count != config.num_labels]
    if others:
        raise UserError(
            f"The model '{model}' has a head of {config.num_labels} labels, and other tasks have other numbers",
            got=", ".join(others),
            fix="give the model from before it was fine-tuned, or its encoder alone "
            "(transformers.AutoModel.from_pretrained(FOLDER).save_pretrained(OTHER)), or fitting tasks with --tasks",
        )


def _sweep(
    run: GlueRun, points: Sequence[Point], folder: Path, command: str, keep_models: bool, restart: bool = False
) -> Iterator[tuple[Point, Record]]:
    return sweep(points, folder, command, keep_models, restart, run.on, report_to=run.report_to)

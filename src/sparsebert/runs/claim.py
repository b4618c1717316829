"""Whose a run folder is: one recipe, one set of inputs, one process at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from sparsebert.errors import BusyError, UserError
from sparsebert.files import (
    PREFIX,
    clear_leftovers,
    differing_files,
    digests,
    home_of,
    open_lock,
    refuse_links,
    remove_folder,
    write_text_atomically,
)
from sparsebert.progress import line
from sparsebert.recipe.base import Recipe
from sparsebert.recipe.load import differing_keys, parse_recipe
from sparsebert.records import FILE_NAME, MASK_FILM, PREDICTIONS, RECIPE_FILE, VISITS, Inputs, Record, read_record
from sparsebert.runs.inputs import differences

T = TypeVar("T", bound=BaseModel)
INPUTS_FILE = "inputs.json"
# What belongs to a record, and lies beside it.
BESIDE = (FILE_NAME, PREDICTIONS, VISITS, MASK_FILM)
LOCK_FILE, FINISH_FILE = ".lock", "finished.json"
CHOICES = "choose another --output, or give --restart to begin anew in this one"


@contextmanager
def claimed(folder: Path, recipe: Recipe, inputs: Inputs, restart: bool = False) -> Iterator[Inputs]:
    """Hold `folder` as the run folder of a recipe and of what it is made from; gives the inputs that it began with.

    Targets may be added to a run, and taken back until it has made them. With `restart` what the run before left is
    removed first. What killed processes left is cleared. Raises BusyError if another process holds the folder;
    UserError if it is not empty and no run, has links in it, belongs to another recipe or to other inputs, which are
    then named, or holds what the new run is made from where all is to be removed.
    """
    _refuse_foreign(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        refuse_links(folder)
        if restart:
            _clear(folder, recipe)
        begun = _check(folder, recipe, inputs)
        clear_leftovers(folder)
        if begun is None:
            # The recipe is written last: it says that the claim is whole.
            write_text_atomically(folder / INPUTS_FILE, inputs.model_dump_json(indent=1) + "\n")
        if begun is None or _recipe_of(folder) != recipe:
            write_text_atomically(folder / RECIPE_FILE, recipe.model_dump_json(indent=1, by_alias=True) + "\n")
        yield begun or inputs


def clear_run(folder: Path, recipe: Recipe) -> None:
    """Remove what a run left in `folder`, as `claimed` does for a restart, which raises the same errors."""
    _refuse_foreign(folder)
    with _alone(folder):
        refuse_links(folder)
        _clear(folder, recipe)


def _clear(folder: Path, recipe: Recipe) -> None:
    refuse_own_inputs(folder, recipe)
    _remove_run(folder)


class _Finish(BaseModel):
    """Written when all else is there: SHA-256 by file name."""

    files: dict[str, str]


def mark_finished(folder: Path) -> None:
    """Say that record and predictions are complete, and how they look."""
    files = [folder / name for name in BESIDE]
    mark = _Finish(files=digests([file for file in files if file.is_file()], folder))
    write_text_atomically(folder / FINISH_FILE, mark.model_dump_json() + "\n")


def finished(folder: Path, recipe: Recipe) -> Record | None:
    """The record of a run of `recipe` that has finished, and whose models are as it left them."""
    record = finished_record(folder)
    if record is None or record.recipe_hash != recipe.hash:
        return None
    return None if any(differing_files(model.files, folder / model.folder) for model in record.models) else record


def finished_record(folder: Path) -> Record | None:
    """The record in a run folder, if it is of a run that has finished; says so if what that left is damaged."""
    if not (folder / FINISH_FILE).is_file():
        return None
    try:
        damaged = differing_files(_read(folder / FINISH_FILE, _Finish).files, folder)
    except UserError:
        damaged = [FINISH_FILE]
    if damaged:
        line(f"What {folder} was left with is missing or damaged ({', '.join(damaged)}), so it is made again")
        return None
    return read_record(folder)


def _check(folder: Path, recipe: Recipe, inputs: Inputs) -> Inputs | None:
    if not (folder / RECIPE_FILE).exists():
        return None
    before, begun = _recipe_of(folder), _read(folder / INPUTS_FILE, Inputs)
    different = differing_keys(before, recipe)
    if different and not recipe.extends(before) and not _has_made(folder, recipe):
        raise UserError(
            f"{folder} holds a run of another recipe; different: {', '.join(different)}",
            fix=f"give the same values, {CHOICES}",
        )
    check_inputs(folder, begun, inputs)
    return begun


def check_inputs(folder: Path, begun: Inputs, now: Inputs) -> None:
    """Raises UserError, naming what differs, if a run that began with `begun` would go on with something else."""
    if different := differences(begun, now):
        raise UserError(
            f"What {folder} was made from is not the same any more; different: {'; '.join(different)}", fix=CHOICES
        )


def _has_made(folder: Path, recipe: Recipe) -> bool:
    """Whether the finished run here is of this recipe: targets that were added since cannot be met, or not yet."""
    record = finished_record(folder)
    return record is not None and record.recipe_hash == recipe.hash


def _recipe_of(folder: Path) -> Recipe:
    try:
        values = json.loads((folder / RECIPE_FILE).read_bytes())
        return parse_recipe(values if isinstance(values, dict) else {"kind": values})
    except (UserError, ValueError) as error:
        what = f"{folder / RECIPE_FILE} is damaged or of another version: {error}"
        raise UserError(what, fix=CHOICES) from None


def _read(file: Path, kind: type[T]) -> T:
    if not file.is_file():
        raise UserError(
            f"{file.parent} is a run of an older version: it does not say what it was made from", fix=CHOICES
        )
    try:
        return kind.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{file} is damaged or of another version: {first['msg']}", fix=CHOICES) from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The lock goes with the process."""
    lock = open_lock(folder / LOCK_FILE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise BusyError("Another command is working in the output folder", got=folder, fix="wait for it") from None
    try:
        yield
    finally:
        os.close(lock)


def _refuse_foreign(folder: Path) -> None:
    """Raises UserError for a file, and for a folder that holds what no run has left."""
    own = (INPUTS_FILE, LOCK_FILE)
    # Other programs have files of that name too, and nothing of theirs may be removed.
    is_run = (folder / RECIPE_FILE).exists() and any((folder / name).exists() for name in (*own, FILE_NAME))
    if not folder.exists() or (folder.is_dir() and is_run):
        return
    if not folder.is_dir() or any(e.name not in own and not e.name.startswith(PREFIX) for e in folder.iterdir()):
        raise UserError("The output folder is not empty and not a run", got=folder, fix="choose another --output")


def refuse_own_inputs(folder: Path, recipe: Recipe) -> None:
    """Raises UserError for a model, a teacher or data in the very folder that is to be emptied."""
    for name in (recipe.model, *recipe.given_teachers, *recipe.given_files, recipe.data):
        place = None if name is None else home_of(name).resolve()
        if place is not None and place.exists() and place.is_relative_to(folder.resolve()):
            raise UserError(
                "--restart would remove what the new run is made from",
                got=name,
                fix="choose another --output, or move it elsewhere first",
            )


def _remove_run(folder: Path) -> None:
    """All that runs leave, models among them; what else lies there stays."""
    for entry in folder.iterdir():
        if entry.name in ("work", "plots", "logs") or (entry / "config.json").is_file():
            remove_folder(entry)
    for name in (*BESIDE, "report.html", FINISH_FILE, RECIPE_FILE, INPUTS_FILE):
        (folder / name).unlink(missing_ok=True)

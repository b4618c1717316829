"""From what the user names to models: folders, hub names, and run folders, which stand for all their models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.files import home_of
from sparsebert.models.companions import companions
from sparsebert.models.heads import unknown_head
from sparsebert.models.load import load_config, load_model
from sparsebert.models.source import ModelSource, resolve
from sparsebert.progress import line
from sparsebert.records import FILE_NAME, ModelResult, Record, read_record


def is_run(name: str) -> bool:
    """True for a run folder: it holds a record and is no model itself."""
    folder = home_of(name)
    return (folder / FILE_NAME).is_file() and not (folder / "config.json").is_file()


def sources(names: Sequence[str]) -> dict[str, ModelSource]:
    """The models meant by `names` under short names that differ, in order; a run gives its dense model first.

    Raises UserError for a name that leads nowhere.
    """
    found = [source for name in names for source in (_of_run(home_of(name)) if is_run(name) else [name])]
    briefs = [_brief(name) for name in dict.fromkeys(found)]
    labels = [name if briefs.count(_brief(name)) > 1 else _brief(name) for name in found]
    unique = [label if label not in labels[:place] else f"{label} (again)" for place, label in enumerate(labels)]
    if len(set(unique)) < len(unique):
        raise UserError("The same model is given more than twice", got=", ".join(names))
    return {label: resolve(name) for label, name in zip(unique, found, strict=True)}


def open_model(source: ModelSource) -> PreTrainedModel:
    """Load a model as what it was saved as, in its own dtype; said where its head is of a kind that is left out."""
    head = unknown_head(load_config(source))
    if head is not None:
        line(f"{source.name}: the head of {head} is left out")
    return load_model(source)


def record_beside(folder: Path) -> Record | None:
    """The record of the run that made the model in `folder`, if it lies where the run left it."""
    file = folder.resolve().parent / FILE_NAME
    return read_record(file) if file.is_file() else None


def result_beside(folder: Path) -> tuple[Record, ModelResult] | None:
    """The record of the run that made the model in `folder`, and what it says of it; none where no run names it."""
    record, name = record_beside(folder), folder.resolve().name
    found = next((model for model in record.models if model.folder == name), None) if record else None
    return (record, found) if record and found else None


def carried_files(folder: Path) -> tuple[Path, ...]:
    """What goes along with a model into another form (see `companions`), but no card of a run, which is of one form."""
    of_a_run = result_beside(folder) is not None
    return tuple(file for file in companions(folder) if not (of_a_run and str(file) == "README.md"))


def _brief(name: str) -> str:
    """The last part of a name; of a folder such as `.` that of what it stands for."""
    return Path(name).name or Path(name).resolve().name


def _of_run(folder: Path) -> list[str]:
    record = read_record(folder)
    if not record.models:
        raise UserError("The run has no finished models", got=folder, fix=record.message or "run it again")
    return [str(folder / model.folder) for model in record.models]

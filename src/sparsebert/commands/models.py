"""From what the user names to models: folders, hub names, and run folders, which stand for all their models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.models.load import Kind, load_config, load_model
from sparsebert.models.source import ModelSource, resolve
from sparsebert.records import FILE_NAME, Record, read_record

_KINDS: tuple[tuple[str, Kind], ...] = (
    ("ForSequenceClassification", "classification"),
    ("ForMaskedLM", "masked_lm"),
)


def is_run(name: str) -> bool:
    """True for a run folder: it holds a record and is no model itself."""
    folder = Path(name).expanduser()
    return (folder / FILE_NAME).is_file() and not (folder / "config.json").is_file()


def sources(names: Sequence[str]) -> dict[str, ModelSource]:
    """The models meant by `names` under short names that differ, in order; a run gives its dense model first.

    Raises UserError for a name that leads nowhere.
    """
    found = [source for name in names for source in (_of_run(Path(name).expanduser()) if is_run(name) else [name])]
    briefs = [Path(name).name for name in dict.fromkeys(found)]
    labels = [name if briefs.count(Path(name).name) > 1 else Path(name).name for name in found]
    unique = [label if label not in labels[:place] else f"{label} (again)" for place, label in enumerate(labels)]
    if len(set(unique)) < len(unique):
        raise UserError("The same model is given more than twice", got=", ".join(names))
    return {label: resolve(name) for label, name in zip(unique, found, strict=True)}


def open_model(source: ModelSource) -> PreTrainedModel:
    """Load a model as what it was saved as: with its classification or language head, else without a head."""
    config = load_config(source)
    kind = kind_of(config.architectures or ())
    if kind == "classification" and config.problem_type == "regression":
        kind = "regression"
    return load_model(source, kind=kind)


def kind_of(architectures: Sequence[str]) -> Kind:
    """The kind of model that a configuration's class names stand for."""
    for end, kind in _KINDS:
        if any(name.endswith(end) for name in architectures):
            return kind
    return "base"


def record_beside(folder: Path) -> Record | None:
    """The record of the run that made the model in `folder`, if it lies where the run left it."""
    file = folder.resolve().parent / FILE_NAME
    return read_record(file) if file.is_file() else None


def _of_run(folder: Path) -> list[str]:
    record = read_record(folder)
    if not record.models:
        raise UserError("The run has no finished models", got=folder, fix=record.message or "run it again")
    return [str(folder / model.folder) for model in record.models]

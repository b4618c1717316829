"""A model's folder as it goes to the hub or comes from it: opened once, and the list of files that belong to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PretrainedConfig

from sparsebert.deployment.exported import file_reader
from sparsebert.deployment.manifest import Manifest, check_files, is_exported, read_manifest
from sparsebert.errors import UserError
from sparsebert.files import differing_files
from sparsebert.models.companions import companions
from sparsebert.models.heads import saved_head, saved_kind
from sparsebert.models.load import load_model, load_tokenizer
from sparsebert.models.named import result_beside
from sparsebert.models.source import has_tokenizer, resolve, weight_files
from sparsebert.records import ModelResult, Record


@dataclass(frozen=True)
class ModelFolder:
    """A folder that opens: an exported one has a manifest, a model of torch a configuration.

    `files` are the paths below `path` of all that belongs to it; what else lies there is left out.
    """

    path: Path
    files: tuple[Path, ...]
    manifest: Manifest | None = None
    config: PretrainedConfig | None = None

    @property
    def predict_options(self) -> str | None:
        """What `sparsebert predict` needs beside folder and text; None = the model is not fine-tuned for a task."""
        if self.manifest is not None:
            return "" if self.manifest.kind else None
        assert self.config is not None
        if saved_head(self.config) == "masked_lm":
            return " --loss"
        return "" if saved_kind(self.config) else None


def open_folder(path: Path) -> ModelFolder:
    """Open a folder as those who predict with it do.

    Raises UserError for a folder that is no model, and for files that are missing, damaged or do not fit each other.
    """
    if not path.is_dir():
        raise UserError("There is no such folder", got=path, allowed="the folder of a model, or an exported one")
    if is_exported(path):
        manifest = read_manifest(path)
        for program in manifest.programs:
            check_files(program, path)
        file_reader(manifest, path)
        return ModelFolder(path, companions(path), manifest=manifest)
    home = resolve(str(path)).path
    model = load_model(home)
    if has_tokenizer(home):
        load_tokenizer(home)
    return ModelFolder(path, (*companions(path), *map(Path, weight_files(path))), config=model.config)


def result_of(folder: ModelFolder) -> tuple[Record, ModelResult] | None:
    """The record of the run that made the model, and what it says of it, if it lies where the run left it.

    Raises UserError where the files are no more those that the run measured: its numbers are of another model.
    """
    made = None if folder.manifest is not None else result_beside(folder.path)
    if made is None:
        return None
    other = differing_files(made[1].files, folder.path.resolve())
    if other:
        raise UserError(
            f"The files in {folder.path} are not those that its run measured",
            got=", ".join(other),
            fix="run it again, or put the model into another folder",
        )
    return made

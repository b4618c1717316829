"""What an exported folder holds: programs, how texts are read for them, what they answer, and what was checked."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from sparsebert.errors import UserError
from sparsebert.files import differing_files, write_text_atomically
from sparsebert.records import Environment, Part, Score
from sparsebert.runtimes.program import Engine, ProgramPrecision
from sparsebert.tasks.thresholds import checked_thresholds

FILE_NAME = "deployment.json"
AGAIN = "export the model again"


class ProgramFile(Part):
    """One program. Outputs were compared with those of torch in float32 on `texts` texts, from the saved file."""

    runtime: str
    engine: Engine
    precision: ProgramPrecision
    file: str = Field(description="relative to the folder")
    files: dict[str, str] = Field(description="SHA-256 of all of its files, relative to the folder")
    bytes_on_disk: int
    divergences: dict[str, float] = Field(
        default={}, description="from torch on train rows, of each way of quantising that was tried; the least is taken"
    )
    kept: dict[str, float] = Field(
        default={},
        description="matrices that int8 leaves in float32: how far rounding each alone moves the answers to train rows",
    )
    largest_difference: float
    relative_difference: float = Field(description="of the largest output of torch")
    texts: int
    agreement: float | None = Field(
        default=None, description="part of the texts given the same class, or the same labels, if any"
    )
    scores: tuple[Score, ...] = ()

    @property
    def way(self) -> str | None:
        """The way of quantising that was taken, where several were tried."""
        return min(self.divergences, key=self.divergences.__getitem__) if self.divergences else None


class Manifest(Part):
    """The folder. `kind` is that of the task; none = the outputs are hidden states, or logits of tokens."""

    schema_version: Literal[1] = 1
    model: str
    kind: str | None = None
    labels: tuple[str, ...] = ()
    thresholds: tuple[float, ...] | None = Field(
        default=None, description="from which probability on each label is given; none = one half, or one label a text"
    )
    inputs: tuple[str, ...]
    max_length: int
    vocab_size: int
    segments: int
    pad_token_id: int
    pad_token_type_id: int
    environment: Environment
    scores: tuple[Score, ...] = Field(default=(), description="of the model in torch, in float32")
    programs: tuple[ProgramFile, ...]
    notes: tuple[str, ...] = ()


def is_exported(folder: Path) -> bool:
    """Whether a folder is an exported one."""
    return (folder / FILE_NAME).is_file()


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write it into `folder`."""
    write_text_atomically(folder / FILE_NAME, manifest.model_dump_json(indent=2, exclude_none=True) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Read it. Raises UserError for one that is damaged or of a newer version."""
    file = folder / FILE_NAME
    try:
        found = Manifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{file} cannot be read: {where}: {first['msg']}", fix=AGAIN) from None
    if found.thresholds is not None:
        checked_thresholds(found.thresholds, len(found.labels) or 1, str(file))
    return found


def check_files(program: ProgramFile, folder: Path) -> None:
    """Raises UserError for a program whose files are gone, or are not those that were checked."""
    other = differing_files(program.files, folder)
    if other:
        raise UserError(
            f"The program {program.runtime} is not the one that was exported", got=", ".join(other), fix=AGAIN
        )

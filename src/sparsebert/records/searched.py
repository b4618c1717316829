"""What a search tried, and what it chose: one JSON a search, beside the records of its trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from sparsebert.errors import UserError
from sparsebert.files import write_text_atomically
from sparsebert.records.measured import Part
from sparsebert.records.record import Environment

SEARCH_FILE = "search.json"
Direction = Literal["maximize", "minimize"]
Ending = Literal["finished", "pruned", "failed", "running"]


class Aim(Part):
    """One objective by its name, and whether more of it is better."""

    name: str
    direction: Direction


class SearchTrial(Part):
    """One setting that was tried. Only a finished trial has scores; `told` is its place in the order of finishing."""

    number: int | None = Field(description="in the order of starting, from 0; none = the recipe itself, off the space")
    state: Ending
    values: dict[str, Any] = Field(description="of the recipe, by dotted key")
    scores: dict[str, float] = Field(default={}, description="by objective, on the held-out rows")
    record: str | None = Field(default=None, description="its run's folder, from the folder of the search")
    told: int | None = None
    message: str | None = None

    @property
    def name(self) -> str:
        """As reports call it."""
        return "the recipe's own values" if self.number is None else f"trial {self.number}"

    @property
    def folder(self) -> str:
        """A word for it in names of folders."""
        return "own" if self.number is None else f"trial-{self.number:04}"


class Chosen(Part):
    """A setting that was chosen: its trial, its recipe's file, and its runs on all train rows."""

    trial: int | None
    recipe: str
    records: tuple[str, ...] = Field(default=(), description="folders of its runs, from the folder of the search")


class Importance(Part):
    """How much of what the objective varies by each key explains; adds up to 1."""

    evaluator: str
    trials: int
    shares: dict[str, float]


class SearchRecord(Part):
    """One search. `sampler`, `pruner` and `space` say all of their options, so that defaults of packages do not."""

    schema_version: int = 1
    created: str
    command: str
    recipe: dict[str, Any]
    space: dict[str, dict[str, Any]]
    objectives: tuple[Aim, ...] = Field(min_length=1)
    of: str | None = Field(default=None, description="the model that is scored; none = the last of each record")
    wanted: int = Field(description="trials asked for")
    sampler: dict[str, Any]
    pruner: dict[str, Any] | None = None
    storage: str
    workers: str = "one after the other"
    held_out_rows: int
    trials: tuple[SearchTrial, ...]
    front: tuple[int | None, ...] = Field(default=(), description="numbers of the trials that no other one beats")
    chosen: tuple[Chosen, ...] = ()
    importance: Importance | None = None
    environment: Environment
    notes: tuple[str, ...] = ()

    def trial(self, number: int | None) -> SearchTrial:
        """A trial by its number."""
        return next(one for one in self.trials if one.number == number)

    @property
    def finished(self) -> list[SearchTrial]:
        """The trials with scores, in the order in which they finished."""
        done = [one for one in self.trials if one.state == "finished"]
        return sorted(done, key=lambda one: (one.told is None, one.told))


def write_search(record: SearchRecord, folder: Path) -> Path:
    """Write `search.json` into `folder` atomically. Returns the path."""
    path = folder / SEARCH_FILE
    write_text_atomically(path, record.model_dump_json(indent=1, exclude_none=False) + "\n")
    return path


def read_search(folder: Path) -> SearchRecord:
    """Read the search in a folder. Raises UserError if there is none, or if it is not readable."""
    file = folder / SEARCH_FILE
    if not file.is_file():
        raise UserError("No search found", got=folder, fix="give the folder of a `sparsebert search`")
    try:
        return SearchRecord.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"The search is not readable: {first['msg']} at {where}", got=file) from None

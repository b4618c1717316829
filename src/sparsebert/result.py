"""What the functions of the package give back: the record of a run, and its models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparsebert.errors import UserError, unknown
from sparsebert.records import ModelResult, Record, read_record
from sparsebert.records.searched import SearchRecord

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sparsebert.measurement.bench import BenchRow


@dataclass(frozen=True)
class FinishedModel:
    """One model of a run: what was measured of it, and the folder that `from_pretrained` takes."""

    result: ModelResult
    folder: Path

    @property
    def name(self) -> str:
        """As reports call it, such as `4x`."""
        return self.result.name

    def load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The model and its tokenizer."""
        from sparsebert.models.load import load_model, load_tokenizer

        return load_model(self.folder), load_tokenizer(self.folder)


@dataclass(frozen=True)
class BenchResult:
    """Times of models in interleaved rounds, and what they say in words."""

    rows: tuple[BenchRow, ...]
    verdicts: tuple[str, ...]

    def _repr_html_(self) -> str:
        from sparsebert.reports.escape import in_html

        return "".join(f"<p>{in_html(said)}</p>" for said in self.verdicts)


@dataclass(frozen=True)
class SearchResult:
    """What a search tried and chose, in its folder."""

    record: SearchRecord
    folder: Path
    report: Path

    @property
    def recipe(self) -> Path:
        """The recipe that was chosen, the first of several: a file that every command takes."""
        return self.folder / self.record.chosen[0].recipe

    @property
    def runs(self) -> tuple[RunResult, ...]:
        """The runs of what was chosen, on all train rows, setting by setting and seed by seed."""
        return tuple(open_run(self.folder / place) for one in self.record.chosen for place in one.records)


@dataclass(frozen=True)
class RunResult:
    """A finished run in its folder."""

    record: Record
    folder: Path

    @property
    def models(self) -> Mapping[str, FinishedModel]:
        """By name, the dense one first where there is one."""
        return {one.name: FinishedModel(one, self.folder / one.folder) for one in self.record.models}

    def best(self, max_drop: float = 1.0) -> FinishedModel:
        """The smallest model file whose main score is at most `max_drop` points (0-100) below the dense model's.

        The dense model itself where no other is. It is chosen on the validation split that the scores are of. Raises
        UserError for a run without a dense model or without scores.
        """
        if not self.record.models:
            raise UserError("The run has no models", got=self.folder, fix=self.record.message or "run it again")
        from sparsebert.reports.families import main_score

        models = self.record.models
        scores = {one.name: main_score(self.record, one.scores) for one in models}
        dense = scores[models[0].name]
        if models[0].name != "dense" or dense is None:
            raise UserError("The run has no dense model with a score, so no model has a drop", got=self.folder)
        within = [
            one
            for one in models
            if (score := scores[one.name]) is not None and is_within(max_drop, dense.value, score.value)
        ]
        return self.models[min(within, key=lambda one: one.size.file_bytes).name]

    def __getitem__(self, name: str) -> FinishedModel:
        """One model by its name. Raises UserError for another name."""
        if name not in self.models:
            raise unknown("model of the run", name, self.models)
        return self.models[name]

    def _repr_html_(self) -> str:
        from sparsebert.reports import as_html, families, family_table

        return as_html(family_table(families([self.record])))


def is_within(max_drop: float, dense: float, value: float) -> bool:
    """Whether a score is at most `max_drop` points (0-100) below the dense model's."""
    # Rounding must not refuse a drop of just what was asked for.
    return 100 * (dense - value) <= max_drop + 1e-9


def open_run(folder: Path | str) -> RunResult:
    """A run that has finished before. Raises UserError where there is no record."""
    return RunResult(read_record(Path(folder)), Path(folder).resolve())

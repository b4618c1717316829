"""Searches as reports see them: each trial with its record, and a folder of other runs as if it were a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsebert.errors import UserError
from sparsebert.recipe.load import flat_values
from sparsebert.records import FILE_NAME, Evaluation, ModelResult, Record, Score, read_record, record_files
from sparsebert.records.searched import SEARCH_FILE, Aim, SearchRecord, SearchTrial, read_search
from sparsebert.reports import values as v
from sparsebert.reports.families import main_score
from sparsebert.reports.rows import score_in_points


@dataclass(frozen=True)
class TrialRun:
    """A finished trial: `values` of the recipe by dotted key, its score (0-100 if `metric`), its evaluations."""

    name: str
    number: int | None
    values: dict[str, Any]
    score: v.Value
    scores: dict[str, float]
    evaluations: tuple[Evaluation, ...]
    baseline: float | None


@dataclass(frozen=True)
class Searched:
    """What one folder holds. `search` is none where it is of runs that no search made.

    `aim` is the first objective; `metric` says whether that is a metric of the task, shown in points.
    """

    label: str
    folder: Path
    search: SearchRecord | None
    runs: tuple[TrialRun, ...]
    aim: Aim
    metric: bool

    @property
    def best(self) -> TrialRun:
        """The run with the best score, the first of equals."""
        sign = 1 if self.aim.direction == "maximize" else -1
        return max(self.runs, key=lambda run: sign * run.score.mid)


def is_search(folder: Path) -> bool:
    """Whether a folder is that of a search."""
    return (folder / SEARCH_FILE).is_file()


def read_searched(folders: Sequence[Path]) -> list[Searched]:
    """Searches and folders of other runs, as they are called by their folders' names.

    Raises UserError for a folder without a finished trial, and for two that look for something else.
    """
    found = [_search_in(folder) if is_search(folder) else _runs_in(folder) for folder in folders]
    aims = {one.aim.name for one in found}
    if len(aims) > 1:
        raise UserError("Searches with different objectives cannot be drawn together", got=", ".join(sorted(aims)))
    return found


def _search_in(folder: Path) -> Searched:
    search = read_search(folder)
    aim = search.objectives[0]
    pairs = [(trial, _record_of(folder, trial)) for trial in search.finished]
    is_metric = any(_score(record, search.of, aim.name) is not None for _, record in pairs)
    runs = [_trial_run(trial, record, search, 100 if is_metric else 1) for trial, record in pairs]
    if not runs:
        raise UserError("No trial of the search has finished", got=folder)
    return Searched(_label(folder), folder, search, tuple(runs), aim, is_metric)


def _record_of(folder: Path, trial: SearchTrial) -> Record | None:
    place = folder / (trial.record or "")
    return read_record(place) if trial.record and (place / FILE_NAME).is_file() else None


def _trial_run(trial: SearchTrial, record: Record | None, search: SearchRecord, scale: float) -> TrialRun:
    aim = search.objectives[0].name
    model, score = _model(record, search.of), _score(record, search.of, aim)
    values = dict(flat_values(record.recipe)) if record is not None else {}
    return TrialRun(
        name=trial.name,
        number=trial.number,
        values=values | trial.values,
        score=v.Value(scale * trial.scores[aim]) if score is None else score_in_points(score),
        scores=trial.scores,
        evaluations=_evaluations(model),
        baseline=None if score is None or score.baseline is None else 100 * score.baseline,
    )


def _runs_in(folder: Path) -> Searched:
    files = record_files(folder)
    pairs = [(file, read_record(file)) for file in files]
    runs = []
    for file, record in pairs:
        model = _model(record, None)
        score = None if model is None else main_score(record, model.scores)
        if score is None:
            continue
        base = None if score.baseline is None else 100 * score.baseline
        values, own = dict(flat_values(record.recipe)), {score.metric: score.value}
        runs.append(TrialRun(file.parent.name, None, values, score_in_points(score), own, _evaluations(model), base))
    if not runs:
        raise UserError("No run of the folder has a score", got=folder)
    aim = Aim(name=str(pairs[0][1].main_metric), direction="maximize")
    return Searched(_label(folder), folder, None, tuple(runs), aim, metric=True)


def _label(folder: Path) -> str:
    return folder.resolve().name


def _model(record: Record | None, name: str | None) -> ModelResult | None:
    models = [] if record is None else [model for model in record.models if name in (None, model.name)]
    return models[-1] if models else None


def _score(record: Record | None, name: str | None, metric: str) -> Score | None:
    model = _model(record, name)
    found = () if model is None else (one for one in model.scores if one.metric == metric and one.split != "train")
    return next(iter(found), None)


def _evaluations(model: ModelResult | None) -> tuple[Evaluation, ...]:
    return () if model is None or model.training is None else model.training.evaluations

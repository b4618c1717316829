"""What the runs of one GLUE task say, model by model: scores on dev over seeds, and which setting was chosen there."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sparsebert.recipe.load import flat_values
from sparsebert.records import TRAIN, Evaluation, ModelResult, Record, Score, TrainingRun
from sparsebert.tasks.glue import GLUE, GlueTask
from sparsebert.tasks.table import SUBSET

# Keys of recipes that make no other setting.
_NO_CHOICE = ("seed", "name", "task")


@dataclass(frozen=True)
class OverRuns:
    """A score over the runs of a task, one a seed; and the best of all runs, of which there are `best_of`."""

    median: float
    low: float
    high: float
    runs: int
    best: float
    best_of: int


@dataclass(frozen=True)
class TaskRun:
    """One model of one finished run of a task; `setting` tells apart what was trained otherwise."""

    record: Record
    model: ModelResult
    setting: str

    @property
    def task(self) -> GlueTask:
        """The task."""
        return GLUE[self.record.task]

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.record.seed

    def on_dev(self, metric: str, split: str | None = None) -> list[Score]:
        """Scores of a metric on the dev splits, or on one of them, by its official name; also where it is a part."""
        found = {
            score.split.removesuffix(SUBSET): score
            for score in self.model.scores
            if score.metric == metric and score.split != TRAIN
        }
        return [score for name, score in found.items() if split in (None, name)]

    def value(self, metrics: Sequence[str] = (), split: str | None = None) -> float | None:
        """The mean over metrics, none given = those of GLUE, each a mean over splits; None where one has no value."""
        values = [self.on_dev(metric, split) for metric in metrics or self.task.metrics]
        if not all(values):
            return None
        return statistics.fmean(statistics.fmean(score.value for score in scores) for scores in values)

    def baseline(self, metrics: Sequence[str] = (), split: str | None = None) -> float | None:
        """The same of always giving the most frequent label of the train rows; None where one is not known."""
        means = []
        for metric in metrics or self.task.metrics:
            values = [score.baseline for score in self.on_dev(metric, split)]
            if not values or None in values:
                return None
            means.append(statistics.fmean(value for value in values if value is not None))
        return statistics.fmean(means)

    def on_train(self, metric: str) -> float | None:
        """A metric, or the mean `loss`, on the whole train set."""
        return next((one.value for one in self.model.scores if one.split == TRAIN and one.metric == metric), None)

    @property
    def trainings(self) -> list[TrainingRun]:
        """What was trained of it, in order."""
        return [*([self.model.training] if self.model.training else []), *self.model.phases.values()]

    def highest(self) -> Evaluation | None:
        """The evaluation with the highest main metric while it was trained."""
        metric = self.task.metrics[0]
        seen = [one for run in self.trainings for one in run.evaluations if metric in one.scores]
        return max(seen, key=lambda one: one.scores[metric], default=None)


@dataclass(frozen=True)
class TaskScores:
    """All runs of one model name on one task; `chosen` is the setting with the best median on dev, `tried` all."""

    task: GlueTask
    runs: tuple[TaskRun, ...]
    chosen: str
    tried: tuple[str, ...]

    @cached_property
    def shown(self) -> dict[int, TaskRun]:
        """The runs of the chosen setting, by seed."""
        return {run.seed: run for run in self.runs if run.setting == self.chosen}

    def over_runs(self, metrics: Sequence[str] = (), split: str | None = None) -> OverRuns | None:
        """Median and spread over the seeds of the chosen setting, and the best of all runs."""
        return over_runs(
            [run.value(metrics, split) for run in self.shown.values()],
            [run.value(metrics, split) for run in self.runs],
        )

    @property
    def best(self) -> TaskRun | None:
        """The run with the highest score on dev, of all."""
        valued = [run for run in self.runs if run.value() is not None]
        return max(valued, key=lambda run: run.value() or 0.0, default=None)

    @property
    def parts(self) -> list[tuple[str, str | None]]:
        """Every metric that was scored, and of a task with several dev sets on which; None = on the only one."""
        found = {score.metric: None for score in self.some.model.scores if score.split != TRAIN}
        if len(self.task.dev_rows) == 1:
            return [(metric, None) for metric in found]
        return [(metric, score.split.removesuffix(SUBSET)) for metric in found for score in self.some.on_dev(metric)]

    @property
    def some(self) -> TaskRun:
        """Any of the runs shown: what they have in common is read off it."""
        return next(iter(self.shown.values()))

    @property
    def choice(self) -> str:
        """`learning_rate=2e-05 chosen on dev among 4`; empty where nothing was chosen."""
        return f"{self.chosen} chosen on dev among {len(self.tried)}" if len(self.tried) > 1 else ""


def over_runs(shown: Sequence[float | None], all_runs: Sequence[float | None] | None = None) -> OverRuns | None:
    """Median, minimum and maximum of the values that there are, and the best of `all_runs`; None where there is none.

    Without `all_runs` the best is of those shown.
    """
    values = [value for value in shown if value is not None]
    every = values if all_runs is None else [value for value in all_runs if value is not None]
    if not values:
        return None
    return OverRuns(statistics.median(values), min(values), max(values), len(values), max(every), len(every))


def scores_by_model(records: Sequence[Record]) -> dict[str, dict[str, TaskScores]]:
    """By model name, in order of appearance, the scores by task, in the order of the tables.

    Failed records and those of other tasks are left out. Records of one task whose recipes differ in more than the seed
    are different settings, of which the one with the best median on dev is chosen, for each model on its own.
    """
    runs = [run for task in GLUE for run in _runs_of(task, records)]
    names = list(dict.fromkeys(run.model.name for run in runs))
    return {
        name: {
            task: _chosen(GLUE[task], own)
            for task in GLUE
            if (own := [run for run in runs if run.record.task == task and run.model.name == name])
        }
        for name in names
    }


def _runs_of(task: str, records: Sequence[Record]) -> Iterator[TaskRun]:
    own = [record for record in records if record.task == task and record.status == "finished"]
    settings = _settings(own)
    for record, setting in zip(own, settings, strict=True):
        for model in record.models:
            yield TaskRun(record, model, setting)


def _settings(records: Sequence[Record]) -> list[str]:
    """What tells their recipes apart, as words; empty where nothing does."""
    flat = [_flat(record) for record in records]
    keys = sorted({key for values in flat for key in values})
    differing = [key for key in keys if len({json.dumps(values.get(key), sort_keys=True) for values in flat}) > 1]
    return [", ".join(f"{key.rsplit('.', 1)[-1]}={_word(values.get(key))}" for key in differing) for values in flat]


def _flat(record: Record) -> Mapping[str, object]:
    return {key: value for key, value in flat_values(record.recipe) if key not in _NO_CHOICE}


def _word(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _chosen(task: GlueTask, runs: Sequence[TaskRun]) -> TaskScores:
    tried = tuple(dict.fromkeys(run.setting for run in runs))
    medians = {setting: over_runs([run.value() for run in runs if run.setting == setting]) for setting in tried}
    valued = {setting: found.median for setting, found in medians.items() if found is not None}
    best = max(valued, key=lambda setting: valued[setting]) if valued else tried[0]
    return TaskScores(task, tuple(runs), best, tried)

"""One trial of a search: an ordinary run in a folder of its own, which a pruner may end while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sparsebert.errors import BusyError, UserError
from sparsebert.files import remove_folder
from sparsebert.processes import Failed, attempt
from sparsebert.recipe.base import Recipe
from sparsebert.recipe.load import parse_recipe
from sparsebert.runs.job import RunJob, start
from sparsebert.runs.optuna_study import StudyPlace, make_pruner, open_study
from sparsebert.training.watch import PREFIX


class PrunedError(UserError):
    """The pruner has ended a training."""


@dataclass(frozen=True)
class Pruning:
    """Which scores of a training go to the pruner, and where it is found."""

    place: StudyPlace
    options: Mapping[str, Any]
    trial: int
    metric: str


@dataclass(frozen=True)
class TrialJob:
    """What a worker needs to carry out a trial."""

    number: int | None
    run: RunJob
    pruning: Pruning | None = None

    @property
    def recipe(self) -> Recipe:
        """What is tried."""
        return parse_recipe(self.run.recipe)

    @property
    def folder(self) -> Path:
        """Where it leaves its record."""
        return Path(self.run.folder)


@dataclass(frozen=True)
class TrialEnd:
    """How a trial ended. `busy`: another process is at it, and will say."""

    state: Literal["finished", "pruned", "failed", "busy"]
    message: str | None = None


def run_trial(job: TrialJob) -> TrialEnd:
    """Carry out a trial, or read it where it has finished before; whatever goes wrong is told, not raised."""
    end = attempt(_run, job)
    if isinstance(end, Failed):
        remove_folder(job.folder / "work")
        return TrialEnd("failed", end.message)
    return end


def _run(job: TrialJob) -> TrialEnd:
    try:
        start(job.run, () if job.pruning is None else (EarlyVerdict(job.pruning),))
    except BusyError as error:
        return TrialEnd("busy", str(error))
    except PrunedError as error:
        remove_folder(job.folder / "work")
        return TrialEnd("pruned", str(error))
    return TrialEnd("finished")


class EarlyVerdict(TrainerCallback):
    """Tells the pruner each score of a training, and ends the training where that says so.

    Scores are counted: the first, second and so on of a training are compared with those of the others, however many
    steps lie between them.
    """

    def __init__(self, pruning: Pruning) -> None:
        self._pruning = pruning

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Raises PrunedError if the trial is to end."""
        asked = self._pruning
        value = (metrics or {}).get(PREFIX + asked.metric)
        if value is None:
            return
        count = sum(PREFIX + asked.metric in entry for entry in state.log_history)
        if is_hopeless(asked, count, value):
            raise PrunedError(
                f"Ended by the pruner ({asked.options['kind']}) at step {state.global_step}: {asked.metric} "
                f"{value:.4f} at evaluation {count}"
            )


def is_hopeless(asked: Pruning, count: int, value: float) -> bool:
    """Whether the pruner ends a trial whose score number `count` is `value`."""
    from optuna.trial import Trial

    study = open_study(asked.place, pruner=make_pruner(asked.options))
    [frozen] = [one for one in study.get_trials(deepcopy=False) if one.number == asked.trial]
    # Optuna hands out the object of a running trial to the process only that asked for it.
    trial = Trial(study, frozen._trial_id)
    # A training that goes on from a checkpoint scores the last step again.
    if count not in frozen.intermediate_values:
        trial.report(value, count)
    return trial.should_prune()

"""What a search has asked for and been told: settings out of a study, ends of trials into it, and all of it on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert.environment import environment
from sparsebert.errors import UserError
from sparsebert.progress import line
from sparsebert.recipe.load import with_values
from sparsebert.recipe.space import own_values
from sparsebert.records import Environment, read_record
from sparsebert.records.searched import Chosen, Ending, SearchRecord, SearchTrial, write_search
from sparsebert.runs.job import JobMaker
from sparsebert.runs.objectives import pareto_front, scored_model
from sparsebert.runs.optuna_study import StudyPlace, distributions, importance, label, make_sampler, plain_values
from sparsebert.runs.search_definition import Definition
from sparsebert.runs.trials import Pruning, TrialEnd, TrialJob

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

TRIALS = "trials"
# Attributes of the study and of its trials.
OWN = "own"
RECORD, TOLD, MESSAGE = "record", "told", "message"
_STATES: dict[str, Ending] = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}


@dataclass
class StudyLog:
    """The one writer of a study in this process."""

    definition: Definition
    place: StudyPlace
    study: Study
    folder: Path
    maker: JobMaker
    _asked: dict[int, Trial] = field(default_factory=dict)
    _environment: Environment = field(default_factory=environment)
    _chosen: tuple[Chosen, ...] = ()
    _notes: tuple[str, ...] = ()

    def enqueue_own(self) -> None:
        """The recipe's own values are the first trial, so that a search never ends below them."""
        own = own_values(self.definition.recipe, self.definition.plan.space)
        if own is not None and not self.study.get_trials(deepcopy=False):
            self.study.enqueue_trial({key: label(value) for key, value in own.items()})

    def jobs(self, cache: Path) -> Iterator[TrialJob]:
        """What was begun and not told, then what is new, each asked for when it is taken."""
        for trial in _trials(self.study, "RUNNING"):
            if (job := self._begin(self._known(trial.number), cache)) is not None:
                line(f"Trial {trial.number} goes on")
                yield job
        if OWN not in self.study.user_attrs and own_values(self.definition.recipe, self.definition.plan.space) is None:
            yield self._job(None, {}, cache)
        space = distributions(self.definition.plan.space)
        while (number := len(_trials(self.study)) - len(_trials(self.study, "WAITING"))) < self.definition.plan.trials:
            self.study.sampler = make_sampler(self.definition.sampler, number)
            trial = self.study.ask(space)
            trial.set_user_attr(RECORD, f"{TRIALS}/{trial.number:04}")
            self._asked[trial.number] = trial
            if (job := self._begin(trial, cache)) is not None:
                yield job

    def _known(self, number: int) -> Trial:
        """A running trial that another process asked for, which is gone."""
        from optuna.trial import Trial

        if number not in self._asked:
            [frozen] = [one for one in _trials(self.study) if one.number == number]
            self._asked[number] = Trial(self.study, frozen._trial_id)
        return self._asked[number]

    def _begin(self, trial: Trial, cache: Path) -> TrialJob | None:
        """The job of a trial; None where it needs no run, as what comes out is known."""
        space = self.definition.plan.space
        if trial.params.keys() != space.keys():
            self._fail(trial.number, "It was interrupted before it had all of its values")
            return None
        same = next((one for one in _trials(self.study, "COMPLETE") if one.params == trial.params), None)
        if same is not None:
            trial.set_user_attr(RECORD, same.user_attrs[RECORD])
            self._finish(trial.number, same.values, f"The same setting as trial {same.number}")
            return None
        try:
            return self._job(trial.number, plain_values(space, trial.params), cache)
        except UserError as error:
            self._fail(trial.number, str(error))
            return None

    def _job(self, number: int | None, values: dict[str, Any], cache: Path) -> TrialJob:
        definition = self.definition
        pruning = None
        if definition.pruner is not None and number is not None:
            pruning = Pruning(self.place, definition.pruner, number, definition.metric)
        recipe = with_values(definition.recipe, values)
        folder = self.folder / TRIALS / ("own" if number is None else f"{number:04}")
        return TrialJob(number, self.maker.make(recipe, folder, cache, definition.plan.keep_models), pruning)

    def tell(self, job: TrialJob, end: TrialEnd) -> None:
        """Put down how a trial ended. Raises UserError if the first record shows that no trial will have a score."""
        if end.state == "busy":
            line(f"Trial {job.number}: {end.message}")
            return
        scores, message = (None, end.message) if end.state != "finished" else self._scores(job.folder)
        if job.number is None:
            self.study.set_user_attr(
                OWN, {"state": end.state if scores else "failed", "values": scores, MESSAGE: message}
            )
            self.write()
        elif scores is not None:
            self._finish(job.number, scores, message)
        elif end.state == "pruned":
            self._close(job.number, "PRUNED", None, message)
        else:
            self._fail(job.number, str(message))

    def _scores(self, folder: Path) -> tuple[list[float] | None, str | None]:
        """The objectives of a finished trial, or none and why."""
        record = read_record(folder)
        is_first = not any(one.state == "finished" for one in self.trials())
        try:
            model = scored_model(record, self.definition.plan.of)
        except UserError as error:
            if is_first:
                raise
            return None, str(error)
        values = [one.read(record, model) for one in self.definition.objectives]
        pairs = zip(self.definition.objectives, values, strict=True)
        absent = [objective.aim.name for objective, value in pairs if value is None]
        if absent:
            return None, f"It has no value of {', '.join(absent)} of the model {model.name}"
        return [value for value in values if value is not None], None

    def _finish(self, number: int, scores: Sequence[float], message: str | None) -> None:
        self._close(number, "COMPLETE", scores, message)

    def _fail(self, number: int, message: str) -> None:
        self._close(number, "FAIL", None, message)

    def _close(self, number: int, state: str, scores: Sequence[float] | None, message: str | None) -> None:
        from optuna.trial import TrialState

        trial = self._known(number)
        trial.set_user_attr(TOLD, sum(one.state.is_finished() for one in _trials(self.study)))
        if message is not None:
            trial.set_user_attr(MESSAGE, message)
        # A pruned trial keeps its last score in Optuna.
        self.study.tell(
            number, None if scores is None else list(scores), state=TrialState[state], skip_if_finished=True
        )
        self.write()
        self._say(number)

    def _say(self, number: int) -> None:
        told = self.record().trial(number)
        total = self.definition.plan.trials
        values = ", ".join(f"{key}={_short(value)}" for key, value in told.values.items())
        if told.state == "finished":
            scores = ", ".join(f"{name} {value:.4g}" for name, value in told.scores.items())
            line(f"Trial {number + 1} of {total}: {scores}; {values}")
        else:
            why = str(told.message).rstrip(".")
            line(f"Trial {number + 1} of {total} {told.state}: {why}; {values}", style="red")

    def choose(self, chosen: Sequence[Chosen], notes: Sequence[str]) -> None:
        """What was chosen, and what is to be said of it."""
        self._chosen, self._notes = tuple(chosen), tuple(notes)

    def trials(self) -> tuple[SearchTrial, ...]:
        """All trials in the order of starting; the recipe itself first, where it lies off the space."""
        names = [one.aim.name for one in self.definition.objectives]
        found = [self._plain(trial, names) for trial in _trials(self.study) if trial.state.name != "WAITING"]
        own = self.study.user_attrs.get(OWN)
        if own is None:
            return tuple(found)
        scores = dict(zip(names, own["values"], strict=True)) if own["values"] else {}
        first = SearchTrial(
            number=None, values={}, state=own["state"], scores=scores, record=f"{TRIALS}/own", message=own[MESSAGE]
        )
        return (first, *found)

    def _plain(self, trial: FrozenTrial, names: Sequence[str]) -> SearchTrial:
        done = trial.state.name == "COMPLETE"
        return SearchTrial(
            number=trial.number,
            state=_STATES[trial.state.name],
            values=plain_values(self.definition.plan.space, trial.params),
            scores=dict(zip(names, trial.values, strict=True)) if done else {},
            record=trial.user_attrs.get(RECORD),
            told=trial.user_attrs.get(TOLD),
            message=trial.user_attrs.get(MESSAGE),
        )

    def front(self) -> list[SearchTrial]:
        """The trials that no other one beats, best in the first objective first."""
        done = [one for one in self.trials() if one.state == "finished"]
        aims = [one.aim for one in self.definition.objectives]
        places = pareto_front([list(one.scores.values()) for one in done], [aim.direction for aim in aims])
        sign = -1 if aims[0].direction == "maximize" else 1
        return sorted((done[place] for place in places), key=lambda one: sign * one.scores[aims[0].name])

    def record(self) -> SearchRecord:
        """The search as it stands."""
        definition, plan = self.definition, self.definition.plan
        return SearchRecord(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            command=self.maker.command.encode(errors="replace").decode(),
            recipe=definition.recipe.plain(),
            space={key: part.model_dump(mode="json") for key, part in plan.space.items()},
            objectives=tuple(one.aim for one in definition.objectives),
            of=plan.of,
            wanted=plan.trials,
            sampler=dict(definition.sampler),
            pruner=None if definition.pruner is None else dict(definition.pruner),
            storage=self.place.kind,
            workers=plan.on or "one after the other",
            held_out_rows=definition.rows,
            trials=self.trials(),
            front=tuple(one.number for one in self.front()),
            chosen=self._chosen,
            importance=importance(self.study),
            environment=self._environment,
            notes=self._notes,
        )

    def write(self) -> SearchRecord:
        """Put all of it on disk."""
        record = self.record()
        write_search(record, self.folder)
        return record


def _trials(study: Study, *states: str) -> list[FrozenTrial]:
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=tuple(TrialState[one] for one in states) or None)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

"""Search for the best values of a recipe: ask for a setting, run it, tell how good it was; the best is run again.

Each trial is an ordinary run. They are scored on train rows that were held out; the validation split is looked at once
in the end, by the setting that was chosen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import yaml

from sparsebert.errors import UserError
from sparsebert.files import remove_folder, write_text_atomically
from sparsebert.progress import busy, line
from sparsebert.records.searched import SEARCH_FILE, Chosen, SearchRecord, SearchTrial
from sparsebert.runs.cache import shared_cache
from sparsebert.runs.claim import refuse_own_inputs
from sparsebert.runs.executors import Executor, Failed, executor
from sparsebert.runs.job import JobMaker
from sparsebert.runs.optuna_study import JOURNAL, StudyPlace, delete_study, make_pruner, open_study, study_place
from sparsebert.runs.search_definition import (
    ANEW,
    Definition,
    SearchPlan,
    check_folder,
    check_same,
    define,
    final_recipe,
    looks_at_validation,
)
from sparsebert.runs.study_log import TRIALS, StudyLog
from sparsebert.runs.trials import TrialEnd, TrialJob, run_trial

FINALS, REPORT = "chosen", "report.html"
MOST_CHOSEN = 5
Work = Callable[[TrialJob], TrialEnd]
DEFINITION = "definition"


def search(plan: SearchPlan, folder: Path, command: str, restart: bool = False, work: Work = run_trial) -> SearchRecord:
    """Try `plan.trials` settings in `folder`, run the best again on all train rows, and give what came out.

    The same call again goes on: finished trials are not run twice, one that was killed is run again, and more trials
    may be asked for. A trial that fails leaves a failed record or none, and the others go on. With several objectives
    all settings are chosen that no other one beats, at most five of them. Raises UserError for what cannot be, before
    anything is written; for a search in the folder that is another one; and where no trial has finished.
    """
    with busy("Reading the model and the data"):
        definition = define(plan)
    check_folder(folder)
    crew = executor(plan.on)
    crew.check(folder)
    place = study_place(plan.storage, folder, crew.workers)
    if restart:
        refuse_own_inputs(folder, plan.recipe)
        _remove(folder, place)
    log = _open(definition, place, folder, JobMaker(command, crew, plan.report_to))
    with shared_cache(folder / TRIALS) as cache:
        for job, end in crew.map(work, log.jobs(cache)):
            log.tell(job, TrialEnd("failed", end.message) if isinstance(end, Failed) else end)
    return _conclude(log, crew, work)


def _remove(folder: Path, place: StudyPlace) -> None:
    delete_study(place)
    for name in (TRIALS, FINALS, "plots"):
        remove_folder(folder / name)
    for file in (*folder.glob("best*.yaml"), *(folder / name for name in (REPORT, JOURNAL, SEARCH_FILE))):
        file.unlink(missing_ok=True)


def _open(definition: Definition, place: StudyPlace, folder: Path, maker: JobMaker) -> StudyLog:
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        study = open_study(place, [one.aim.direction for one in definition.objectives], make_pruner(definition.pruner))
        stored = study.user_attrs.get(DEFINITION)
        if stored is not None:
            check_same(stored, definition, folder)
        elif (folder / TRIALS).is_dir():
            raise UserError("The folder holds trials of a search whose study is gone", got=folder, fix=ANEW)
    except UserError:
        if made:
            folder.rmdir()
        raise
    log = StudyLog(definition, place, study, folder, maker)
    if stored is None:
        study.set_user_attr(DEFINITION, json.dumps(definition.decides))
        log.enqueue_own()
    log.write()
    return log


def _conclude(log: StudyLog, crew: Executor, work: Work) -> SearchRecord:
    """Write the recipes of what was chosen, and run them."""
    front = log.front()
    if not front:
        told = next((one.message for one in log.trials() if one.message), "")
        raise UserError("No trial of the search has finished", got=log.folder, fix=f"the first said: {told}")
    picked = spread_out(front, MOST_CHOSEN)
    names = ["best.yaml"] if len(picked) == 1 else [f"best-{place}.yaml" for place in range(1, len(picked) + 1)]
    for trial, name in zip(picked, names, strict=True):
        _write_recipe(log, trial, log.folder / name)
    done: dict[int | None, list[tuple[int, str]]] = {}
    for job, end in crew.map(work, _finals(log, picked)):
        if isinstance(end, Failed) or end.state != "finished":
            line(f"A run of the setting that was chosen failed: {end.message}", style="red")
        else:
            done.setdefault(job.number, []).append((job.recipe.seed, str(job.folder.relative_to(log.folder))))
    chosen = [
        Chosen(trial=trial.number, recipe=name, records=tuple(place for _, place in sorted(done.get(trial.number, []))))
        for trial, name in zip(picked, names, strict=True)
    ]
    log.choose(chosen, list(_notes(log, front, picked, crew)))
    return log.write()


def spread_out(front: Sequence[SearchTrial], most: int) -> list[SearchTrial]:
    """At most so many of a front, the ends among them, evenly by their place in it."""
    if len(front) <= most:
        return list(front)
    return [front[round(place * (len(front) - 1) / (most - 1))] for place in range(most)]


def _write_recipe(log: StudyLog, trial: SearchTrial, file: Path) -> None:
    recipe = final_recipe(log.definition, trial.values, log.definition.plan.recipe.seed)
    scores = ", ".join(f"{name} {value:.4g}" for name, value in trial.scores.items())
    text = yaml.safe_dump(recipe.plain(), sort_keys=False, allow_unicode=True)
    write_text_atomically(file, f"# Found by sparsebert search: {trial.name}, {scores} on held-out train rows.\n{text}")


def _finals(log: StudyLog, picked: Sequence[SearchTrial]) -> Iterator[TrialJob]:
    first = log.definition.plan.recipe.seed
    for seed in range(first, first + log.definition.plan.repeats):
        for trial in picked:
            recipe = final_recipe(log.definition, trial.values, seed)
            folder = log.folder / FINALS / f"{trial.folder}-seed-{seed}"
            yield TrialJob(trial.number, log.maker.make(recipe, folder, None, keep_models=True))


def _notes(log: StudyLog, front: Sequence[SearchTrial], picked: Sequence[SearchTrial], crew: Executor) -> Iterator[str]:
    definition, trials = log.definition, log.trials()
    states = [f"{sum(one.state == state for one in trials)} {state}" for state in ("finished", "pruned", "failed")]
    what = ", ".join(one.aim.name for one in definition.objectives)
    yield (
        f"Chosen among {len(trials)} settings ({', '.join(states)}) by {what} on {definition.rows} train rows "
        "that were held out; the score by which it was chosen is the best of these, so it flatters"
    )
    if len(picked) < len(front):
        yield f"{len(picked)} of the {len(front)} settings on the Pareto front were run again, spread along it"
    if definition.plan.repeats:
        yield _about_validation(log, picked)
    if any(one.timed for one in definition.objectives) and crew.workers > 1:
        yield "Times of trials were measured while other trials ran beside them; those of what was chosen too"


def _about_validation(log: StudyLog, picked: Sequence[SearchTrial]) -> str:
    if looks_at_validation(final_recipe(log.definition, picked[0].values, 0)):
        return "The recipe keeps the checkpoint that is best on validation: its score there is the best of several"
    home = log.folder / FINALS
    scored = {place.name.rpartition("-seed-")[0] for place in home.iterdir()} if home.is_dir() else set()
    if not scored:
        return "No run of what was chosen has begun, so validation was not looked at"
    if len(scored) > len(picked):
        return f"Validation has been looked at for {len(scored)} settings of this search, as trials were added to it"
    return (
        "Validation was not looked at before what was chosen was run again, without the rows that the search held out; "
        "a training that holds rows out of its own does so still"
    )

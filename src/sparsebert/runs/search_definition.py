"""What a search is: all that decides its trials, checked before anything is written, and compared when it goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsebert import registry
from sparsebert.data.hold_out import HELD_OUT_SPLIT
from sparsebert.errors import UserError
from sparsebert.files import PREFIX
from sparsebert.recipe.base import Recipe
from sparsebert.recipe.load import flat_values, with_values
from sparsebert.recipe.space import Space, check_space, value_at
from sparsebert.records import FILE_NAME, RECIPE_FILE, Inputs
from sparsebert.records.searched import SEARCH_FILE
from sparsebert.runs.inputs import differences
from sparsebert.runs.objectives import Objective, objectives_of
from sparsebert.runs.optuna_study import JOURNAL, pruner_options, quiet_optuna, sampler_options
from sparsebert.training.loggers import loggers

HOLD_OUT = 0.1
WATCHED = "training.evaluate"
ANEW = "choose another --output, or give --restart to begin anew in this one"


@dataclass(frozen=True)
class SearchPlan:
    """What is asked of a search. `of` names the model that is scored; `on` where trials run, none = here.

    `report_to` is where trainings are logged, as in `run`.
    """

    recipe: Recipe
    space: Space
    objectives: tuple[str, ...] = ()
    of: str | None = None
    trials: int = 20
    seed: int = 0
    sampler: str = "tpe"
    prune: str | None = None
    storage: str | None = None
    on: str | None = None
    repeats: int = 3
    keep_models: bool = False
    report_to: tuple[str, ...] = ()


@dataclass(frozen=True)
class Definition:
    """A plan that was found sound.

    `recipe` is what trials change: scored on `rows` held-out rows, without times that no objective needs.
    """

    plan: SearchPlan
    recipe: Recipe
    objectives: tuple[Objective, ...]
    rows: int
    inputs: Inputs
    sampler: Mapping[str, Any]
    pruner: Mapping[str, Any] | None

    @property
    def decides(self) -> dict[str, Any]:
        """All that may not change while a search goes on, as plain values."""
        return {
            "recipe": {**self.recipe.plain(), "name": None},
            "space": {key: part.model_dump(mode="json") for key, part in self.plan.space.items()},
            "objectives": [one.aim.name for one in self.objectives],
            "of": self.plan.of,
            "sampler": dict(self.sampler),
            "pruner": None if self.pruner is None else dict(self.pruner),
            "inputs": self.inputs.model_dump(mode="json"),
        }

    @property
    def metric(self) -> str:
        """The objective that a pruner looks at."""
        return self.objectives[0].aim.name


def default_name(plan: SearchPlan) -> str:
    """A folder's name that changes with the recipe, the space and the objectives."""
    space = {key: part.model_dump(mode="json") for key, part in plan.space.items()}
    decides = json.dumps([plan.recipe.hash, space, plan.objectives, plan.of], sort_keys=True)
    return f"search-{hashlib.sha256(decides.encode()).hexdigest()[:12]}"


def define(plan: SearchPlan) -> Definition:
    """Check a plan, and read its data and model. Raises UserError for all that cannot be; writes nothing."""
    quiet_optuna()
    loggers(plan.report_to)
    if plan.trials < 1:
        raise UserError("A search needs at least one trial", got=plan.trials)
    if plan.repeats < 0:
        raise UserError("Repeats are counted from 0", got=plan.repeats)
    sampler, pruner = sampler_options(plan.sampler, plan.seed), pruner_options(plan.prune)
    check_space(plan.recipe, plan.space)
    recipe = plan.recipe.model_copy(update={"hold_out": plan.recipe.hold_out or HOLD_OUT, "score_train": False})
    run_type = registry.get("run_type", recipe.kind)()
    task = run_type.task(recipe)
    if task.validation_name != HELD_OUT_SPLIT:
        raise UserError("A search scores its trials on labelled rows of one task", got=f"a recipe of {recipe.kind}")
    objectives = objectives_of(plan.objectives, task.spec.metrics, recipe.measure.timed)
    if pruner is not None:
        _check_pruning(recipe, objectives, task.spec.metrics)
    measure = recipe.measure.model_copy(update={"timed": any(one.timed for one in objectives)})
    recipe = recipe.model_copy(update={"measure": measure})
    rows, inputs = len(task.validation), run_type.inputs(recipe, task)
    return Definition(plan, recipe, objectives, rows, inputs, sampler, pruner)


def _check_pruning(recipe: Recipe, objectives: Sequence[Objective], metrics: Sequence[str]) -> None:
    names = [one.aim.name for one in objectives]
    if len(names) > 1:
        raise UserError("A pruner works for one objective only", got=", ".join(names))
    if names[0] not in metrics:
        raise UserError("A pruner needs an objective that is scored while training", got=names[0])
    if value_at(recipe, WATCHED) is None:
        raise UserError(
            f"A pruner looks at scores while training, and the recipe has no {WATCHED}",
            fix=f"use a recipe of finetune with --set {WATCHED}={{}}, or no --prune",
        )


def check_folder(folder: Path) -> None:
    """Raises UserError for a folder that is a run's, or that holds what no search has left."""
    if not folder.exists():
        return
    if (folder / RECIPE_FILE).is_file() or (folder / FILE_NAME).is_file():
        raise UserError("The output folder of a search is that of a run", got=folder, fix="choose another --output")
    # What a search leaves that is killed as it begins.
    begun = (JOURNAL, PREFIX)
    foreign = not folder.is_dir() or any(not entry.name.startswith(begun) for entry in folder.iterdir())
    if foreign and not (folder / SEARCH_FILE).is_file():
        raise UserError("The output folder is not empty and not a search", got=folder, fix="choose another --output")


def check_same(stored: str, now: Definition, folder: Path) -> None:
    """Raises UserError, naming what differs, if a search that began as `stored` (JSON) would go on as another."""
    before: dict[str, Any] = json.loads(stored)
    after = now.decides
    data = differences(Inputs.model_validate(before.pop("inputs")), Inputs.model_validate(after.pop("inputs")))
    old, new = dict(flat_values(before)), dict(flat_values(after))
    different = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if different or data:
        raise UserError(f"{folder} holds another search; different: {', '.join([*different, *data])}", fix=ANEW)


def final_recipe(definition: Definition, values: Mapping[str, Any], seed: int) -> Recipe:
    """A setting as it is used: trained on all train rows, scored on validation, timed as the recipe says."""
    chosen = with_values(definition.plan.recipe, values)
    return chosen.model_copy(update={"hold_out": None, "seed": seed})


def looks_at_validation(recipe: Recipe) -> bool:
    """Whether a training itself chooses by the validation split."""
    plain = dict(flat_values(recipe.plain()))
    return any(key.endswith("evaluate.split") and value == "validation" for key, value in plain.items())

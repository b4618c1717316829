"""Everything of a search that is Optuna's: where a study is kept, what proposes settings, what ends trials early.

Samplers and pruners are named with all of their options, as defaults of Optuna change between its versions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsebert.errors import UserError, unknown
from sparsebert.recipe.space import Choices, Space, SpacePart, ValueRange
from sparsebert.records.searched import Importance

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

JOURNAL = "study.log"
SAMPLERS: dict[str, dict[str, Any]] = {
    "tpe": {
        "multivariate": True,
        "group": False,
        "constant_liar": True,
        "n_startup_trials": 10,
        "n_ei_candidates": 24,
    },
    "random": {},
}
PRUNERS: dict[str, dict[str, Any]] = {
    "median": {"n_startup_trials": 5, "n_warmup_steps": 0, "interval_steps": 1, "n_min_trials": 1},
    "halving": {"min_resource": 1, "reduction_factor": 4, "min_early_stopping_rate": 0, "bootstrap_count": 0},
}
# Fewer say nothing about what a score depends on.
FEWEST_FOR_IMPORTANCE = 10
IMPORTANCE = {"target_quantile": 0.1, "region_quantile": 1.0, "evaluate_on_local": True}


@dataclass(frozen=True)
class StudyPlace:
    """Where a study is kept: a journal file, or the URL of a data base that Optuna can use; and its name there."""

    where: str
    name: str

    @property
    def is_file(self) -> bool:
        """Whether it is a journal."""
        return "://" not in self.where

    @property
    def kind(self) -> str:
        """In words without addresses and passwords."""
        return "journal file" if self.is_file else self.where.partition("://")[0]


def study_place(storage: str | None, folder: Path, workers: int) -> StudyPlace:
    """The place that was asked for; none = a journal in the folder of the search.

    Raises UserError for SQLite with several workers.
    """
    if storage is None:
        return StudyPlace(str(folder / JOURNAL), "search")
    if storage.startswith("sqlite") and workers > 1:
        raise UserError(
            "SQLite locks up when several processes write to it",
            got=f"{workers} workers",
            fix="leave --storage away (a journal file), or give a data base with a server",
        )
    return StudyPlace(storage, folder.resolve().name)


def open_study(place: StudyPlace, directions: list[str] | None = None, pruner: BasePruner | None = None) -> Study:
    """The study, made if there is none and `directions` are given. Raises UserError where it cannot be opened."""
    optuna = quiet_optuna()
    with _storage_errors(place):
        storage = _storage(place)
        if directions is None:
            return optuna.load_study(study_name=place.name, storage=storage, pruner=pruner)
        return optuna.create_study(
            study_name=place.name, storage=storage, directions=directions, load_if_exists=True, pruner=pruner
        )


def delete_study(place: StudyPlace) -> None:
    """Remove a study, if it is there."""
    if place.is_file:
        Path(place.where).unlink(missing_ok=True)
        return
    optuna = quiet_optuna()
    with _storage_errors(place):
        if place.name in optuna.get_all_study_names(_storage(place)):
            optuna.delete_study(study_name=place.name, storage=_storage(place))


def quiet_optuna() -> Any:
    """Optuna without the lines of its own log. Raises UserError where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UserError("A search needs optuna", fix="pip install 'sparsebert[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def sampler_options(name: str, seed: int) -> dict[str, Any]:
    """All options of a sampler, its kind and seed among them. Raises UserError for an unknown one."""
    if name not in SAMPLERS:
        raise unknown("sampler", name, SAMPLERS)
    return {"kind": name, "seed": seed, **SAMPLERS[name]}


def make_sampler(options: Mapping[str, Any], number: int) -> BaseSampler:
    """The sampler for one trial.

    Its seed comes from that of the search and the trial's number: one whose random numbers went on from trial to trial
    would begin again when a search goes on, and propose what was tried.
    """
    from optuna.samplers import RandomSampler, TPESampler

    seed = int(np.random.SeedSequence([options["seed"], number]).generate_state(1)[0])
    rest = {key: value for key, value in options.items() if key not in ("kind", "seed")}
    return {"tpe": TPESampler, "random": RandomSampler}[options["kind"]](seed=seed, **rest)


def pruner_options(name: str | None) -> dict[str, Any] | None:
    """All options of a pruner, its kind among them; none for none. Raises UserError for an unknown one."""
    if name is None:
        return None
    if name not in PRUNERS:
        raise unknown("pruner", name, PRUNERS)
    return {"kind": name, **PRUNERS[name]}


def make_pruner(options: Mapping[str, Any] | None) -> BasePruner:
    """The pruner of a study."""
    from optuna.pruners import MedianPruner, NopPruner, SuccessiveHalvingPruner

    if options is None:
        return NopPruner()
    rest = {key: value for key, value in options.items() if key != "kind"}
    return {"median": MedianPruner, "halving": SuccessiveHalvingPruner}[options["kind"]](**rest)


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space as Optuna has it."""
    return {key: _distribution(part) for key, part in space.items()}


def _distribution(part: SpacePart) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(part, Choices):
        return CategoricalDistribution([label(one) for one in part.choices])
    if part.whole:
        return IntDistribution(int(part.low), int(part.last), log=part.log, step=int(part.step or 1))
    return FloatDistribution(float(part.low), float(part.last), log=part.log, step=part.step)


def label(choice: Any) -> Any:
    """A choice as Optuna stores it: lists and mappings as JSON."""
    return json.dumps(choice, sort_keys=True) if isinstance(choice, list | tuple | dict) else choice


def plain_values(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the recipe from what Optuna proposed."""
    return {key: _value(space[key], found) for key, found in params.items()}


def _value(part: SpacePart, found: Any) -> Any:
    if isinstance(part, ValueRange):
        return found
    # Python takes true for 1.
    return next(one for one in part.choices if label(one) == found and type(label(one)) is type(found))


def importance(study: Study) -> Importance | None:
    """Which keys the objective depends on, by PED-ANOVA (arXiv:2304.10255).

    None for several objectives, and where too few trials tell.
    """
    optuna = quiet_optuna()
    done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    enough = len(done) >= FEWEST_FOR_IMPORTANCE and len(study.directions) == 1
    if not enough or len({trial.value for trial in done}) < 2:
        return None
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(**IMPORTANCE)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    options = ", ".join(f"{key} {value}" for key, value in IMPORTANCE.items())
    return Importance(evaluator=f"PED-ANOVA ({options})", trials=len(done), shares=shares)


def _storage(place: StudyPlace) -> BaseStorage:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(place.where)) if place.is_file else RDBStorage(place.where)


@contextmanager
def _storage_errors(place: StudyPlace) -> Iterator[None]:
    """Raises UserError for what a storage cannot do; addresses, which may hold passwords, are not repeated."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError, ImportError, OSError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"The storage of the search cannot be used: {said}", got=place.kind) from None
    except KeyError:
        raise UserError("The storage has no such study", got=place.name) from None

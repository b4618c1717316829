"""The logic of a search, on trials that train nothing: what is asked, told, chosen, taken up again and refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest

from made_search import MadeTrials
from sparsebert.errors import UserError
from sparsebert.recipe.load import load_recipe
from sparsebert.recipe.space import read_space
from sparsebert.records.searched import SearchRecord, SearchTrial, read_search
from sparsebert.runs.hyperparameters import search, spread_out
from sparsebert.runs.objectives import pareto_front
from sparsebert.runs.optuna_study import StudyPlace, make_pruner, open_study, pruner_options
from sparsebert.runs.search_definition import SearchPlan
from sparsebert.runs.trials import Pruning, is_hopeless
from tiny_run import save_tiny, write_task

RATE = "training.learning_rate=1e-6:1e-2:log"
SPACE = (RATE, "training.lr_schedule=linear,cosine")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    save_tiny(folder / "model")
    write_task(folder / "data")
    return folder


def plan(home: Path, *space: str, settings: tuple[str, ...] = (), **given: Any) -> SearchPlan:
    named = {"model": str(home / "model"), "task": "mine", "data": str(home / "data")}
    recipe = load_recipe(None, settings, kind="finetune", **named)
    return SearchPlan(recipe, read_space(space or SPACE), **{"trials": 4, "repeats": 0, **given})


def run(home: Path, folder: Path, work: MadeTrials | None = None, restart: bool = False, **given: Any) -> SearchRecord:
    space = given.pop("space", SPACE)
    return search(plan(home, *space, **given), folder, "the command", restart, work or MadeTrials())


def told(record: SearchRecord) -> list[tuple[Any, ...]]:
    return [(one.number, one.state, one.values, one.scores) for one in record.trials]


def test_the_recipes_own_values_come_first_and_the_best_is_chosen(home: Path, tmp_path: Path):
    work = MadeTrials()
    record = run(home, tmp_path / "a", work, trials=12, repeats=2)
    assert record.trials[0].values == {"training.learning_rate": 5e-5, "training.lr_schedule": "linear"}
    assert record.trials[0].scores == {"accuracy": pytest.approx(0.8864, abs=1e-4)}
    [chosen] = record.chosen
    best = max(record.trials, key=lambda one: one.scores["accuracy"])
    assert chosen.trial == best.number and best.scores["accuracy"] >= 0.8864
    assert chosen.records == tuple(f"chosen/trial-{best.number:04}-seed-{seed}" for seed in (0, 1))
    finals = [job for job in work.done if job.number == chosen.trial][1:]
    assert [(job.recipe.hold_out, job.recipe.seed, job.run.keep_models) for job in finals] == [
        (None, 0, True),
        (None, 1, True),
    ]
    trial = work.done[0].recipe
    assert trial.hold_out == 0.1 and not trial.measure.timed and finals[0].recipe.measure.timed
    found = load_recipe(tmp_path / "a" / "best.yaml")
    assert found.hash == finals[0].recipe.hash
    assert read_search(tmp_path / "a") == record
    assert record.held_out_rows == 6 and "not looked at before" in record.notes[-1]
    assert record.sampler == {
        **{"kind": "tpe", "seed": 0, "multivariate": True, "group": False, "constant_liar": True},
        **{"n_startup_trials": 10, "n_ei_candidates": 24},
    }


def test_a_recipe_off_the_space_is_run_beside_the_trials(home: Path, tmp_path: Path):
    work = MadeTrials(best_rate=5e-5)
    record = run(home, tmp_path / "a", work, space=("training.learning_rate=1e-3:1e-2:log",))
    assert work.trials == [None, 0, 1, 2, 3]
    assert record.trials[0].number is None and record.trials[0].record == "trials/own"
    assert record.front == (None,) and record.chosen[0].trial is None
    assert load_recipe(tmp_path / "a" / "best.yaml").plain()["training"]["learning_rate"] == 5e-5


def test_the_same_call_again_runs_nothing_and_more_trials_go_on(home: Path, tmp_path: Path):
    whole = run(home, tmp_path / "whole", trials=14)
    first = run(home, tmp_path / "parts", trials=6)
    again = MadeTrials()
    assert told(run(home, tmp_path / "parts", again, trials=6)) == told(first) and again.done == []
    more = MadeTrials()
    last = run(home, tmp_path / "parts", more, trials=14)
    assert more.trials == [*range(6, 14)]
    assert told(last) == told(whole)
    assert len({str(one.values) for one in last.trials}) == 14


def test_a_killed_trial_is_run_again_with_its_values(home: Path, tmp_path: Path):
    whole = run(home, tmp_path / "whole", trials=5)
    with pytest.raises(KeyboardInterrupt):
        run(home, tmp_path / "killed", MadeTrials(killed_at=3), trials=5)
    assert [one.state for one in read_search(tmp_path / "killed").trials] == ["finished"] * 3
    again = MadeTrials()
    assert told(run(home, tmp_path / "killed", again, trials=5)) == told(whole)
    assert again.trials == [3, 4]


def test_a_trial_that_fails_is_told_and_the_others_go_on(home: Path, tmp_path: Path):
    record = run(home, tmp_path / "a", MadeTrials(fails=(0, 2)))
    assert [one.state for one in record.trials] == ["failed", "finished", "failed", "finished"]
    assert record.trials[0].message == "The training loss became nan at step 3." and record.trials[0].scores == {}
    assert [one.told for one in record.trials] == [0, 1, 2, 3]
    assert "2 finished, 0 pruned, 2 failed" in record.notes[0]


def test_no_trial_with_a_score(home: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"No trial of the search has finished.*nan at step 3"):
        run(home, tmp_path / "a", MadeTrials(fails=(0, 1)), trials=2)


def test_the_same_setting_is_not_run_twice(home: Path, tmp_path: Path):
    work = MadeTrials()
    record = run(home, tmp_path / "a", work, space=("training.lr_schedule=linear,cosine",), trials=6)
    assert len(work.trials) == 2
    repeated = record.trials[-1]
    assert repeated.message is not None and repeated.message.startswith("The same setting as trial ")
    assert repeated.state == "finished" and repeated.record in ("trials/0000", "trials/0001")


def test_another_search_is_refused_and_nothing_changes(home: Path, tmp_path: Path):
    folder = tmp_path / "a"
    run(home, folder)
    before = (folder / "search.json").read_text()
    others: dict[str, dict[str, Any]] = {
        "space.training.learning_rate.high": {"space": ("training.learning_rate=1e-6:1e-3:log", SPACE[1])},
        "recipe.training.batch_size": {"settings": ("training.batch_size=8",)},
        "objectives": {"objectives": ("parameters",)},
        "sampler.seed": {"seed": 1},
        "of": {"of": "finetuned"},
    }
    for said, given in others.items():
        with pytest.raises(UserError, match="holds another search; different: ") as error:
            run(home, folder, **given)
        assert said in str(error.value) and "--restart" in str(error.value)
    assert (folder / "search.json").read_text() == before
    assert len(run(home, folder, seed=1, trials=2, restart=True).trials) == 2


def test_other_data_are_refused(home: Path, tmp_path: Path):
    write_task(tmp_path / "data", train=70)
    recipe = plan(home).recipe.model_copy(update={"data": str(tmp_path / "data")})
    moved = SearchPlan(recipe, read_space(SPACE), trials=1, repeats=0)
    search(moved, tmp_path / "a", "", work=MadeTrials())
    (tmp_path / "data" / "train.csv").write_text((home / "data" / "train.csv").read_text())
    with pytest.raises(UserError, match="the train data have 58 rows, had 62"):
        search(moved, tmp_path / "a", "", work=MadeTrials())


def test_folders_of_others(home: Path, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty and not a search"):
        run(home, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
    run(home, tmp_path / "a")
    (tmp_path / "a" / "study.log").unlink()
    with pytest.raises(UserError, match="whose study is gone"):
        run(home, tmp_path / "a")


def test_restart_removes_nothing_that_it_needs(home: Path, tmp_path: Path):
    run(home, tmp_path / "a", trials=1)
    save_tiny(tmp_path / "a" / "chosen" / "model")
    recipe = plan(home).recipe.model_copy(update={"model": str(tmp_path / "a" / "chosen" / "model")})
    with pytest.raises(UserError, match="--restart would remove what the new run is made from"):
        search(SearchPlan(recipe, read_space(SPACE)), tmp_path / "a", "", True, MadeTrials())
    assert (tmp_path / "a" / "search.json").is_file()


REFUSED: dict[str, dict[str, Any]] = {
    "at least one trial": {"trials": 0},
    "Unknown objective 'acuracy'": {"objectives": ("acuracy",)},
    "An objective is given twice": {"objectives": ("accuracy", "accuracy")},
    "measures no times": {"objectives": ("latency_ms",), "settings": ("measure.timed=false",)},
    "Unknown sampler 'tpee'": {"sampler": "tpee"},
    "Unknown pruner 'medium'": {"prune": "medium"},
    "for one objective only": {"objectives": ("accuracy", "size_mb"), "prune": "median"},
    "scored while training; got size_mb": {"objectives": ("size_mb",), "prune": "median"},
    "has no training.evaluate": {"settings": ("training.evaluate=null",), "prune": "halving"},
    "SQLite locks up": {"storage": "sqlite:///x.db", "on": "local:2"},
    "The storage of the search cannot be used": {"storage": "nodb://here"},
}


@pytest.mark.parametrize("said", REFUSED)
def test_refused_before_anything_is_written(said: str, home: Path, tmp_path: Path):
    with pytest.raises(UserError) as error:
        run(home, tmp_path / "a", **REFUSED[said])
    assert said in str(error.value)
    assert not (tmp_path / "a").exists()


def test_a_model_that_no_record_has_ends_the_search(home: Path, tmp_path: Path):
    work = MadeTrials()
    with pytest.raises(UserError, match="Unknown model of the run '2x'; allowed: finetuned"):
        run(home, tmp_path / "a", work, of="2x")
    assert len(work.done) == 1


def test_without_optuna(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'sparsebert\[search\]'"):
        run(home, tmp_path / "a")


def test_a_data_base_keeps_several_studies_apart(home: Path, tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'all.db'}"
    with warnings.catch_warnings():
        # The driver of SQLite leaves closing to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        for name in ("a", "b"):
            run(home, tmp_path / name, trials=2, storage=url)
        assert sorted(optuna.get_all_study_names(url)) == ["a", "b"]
        record = run(home, tmp_path / "a", trials=3, storage=url)
    assert len(record.trials) == 3 and record.storage == "sqlite"


def test_importance_needs_trials_and_is_named(home: Path, tmp_path: Path):
    assert run(home, tmp_path / "a", trials=2).importance is None
    found = run(home, tmp_path / "a", trials=16).importance
    assert found is not None and found.trials == 16 and found.evaluator.startswith("PED-ANOVA (target_quantile 0.1")
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.shares["training.learning_rate"] > found.shares["training.lr_schedule"]


def test_a_front_by_hand():
    points = [(0.9, 10.0), (0.8, 5.0), (0.85, 12.0), (0.9, 10.0), (0.7, 5.0), (0.95, 30.0)]
    assert pareto_front(points, ("maximize", "minimize")) == [0, 1, 5]
    assert pareto_front([(1.0,), (3.0,), (3.0,)], ("maximize",)) == [1]
    assert pareto_front([(1.0,), (3.0,)], ("minimize",)) == [0]


def test_two_objectives_give_a_front(home: Path, tmp_path: Path):
    given = {"objectives": ("accuracy", "latency_ms"), "trials": 12, "repeats": 1}
    work = MadeTrials()
    record = run(home, tmp_path / "a", work, **given)
    points = {one.number: (one.scores["accuracy"], one.scores["latency_ms"]) for one in record.trials}
    beaten = [
        number
        for number, (score, time) in points.items()
        if any(s >= score and t <= time and (s, t) != (score, time) for s, t in points.values())
    ]
    front = {points[number] for number in record.front}
    assert front == {points[number] for number in points.keys() - set(beaten)} and len(record.front) == len(front)
    assert beaten and len(front) > 1
    assert [aim.direction for aim in record.objectives] == ["maximize", "minimize"]
    assert work.done[0].recipe.measure.timed
    assert len(record.chosen) == min(5, len(record.front)) and record.chosen[0].recipe == "best-1.yaml"
    assert record.importance is None


def test_at_most_five_of_a_front_with_both_ends():
    front = [SearchTrial(number=number, state="finished", values={}) for number in range(9)]
    assert [one.number for one in spread_out(front, 5)] == [0, 2, 4, 6, 8]
    assert spread_out(front[:3], 5) == front[:3]


def test_the_median_pruner_ends_what_is_below_the_others(tmp_path: Path):
    place = StudyPlace(str(tmp_path / "study.log"), "search")
    options = pruner_options("median")
    assert options is not None
    study = open_study(place, ["maximize"], make_pruner(options))
    for value in (0.6, 0.7, 0.8, 0.9, 0.7):
        trial = study.ask()
        assert not is_hopeless(Pruning(place, options, trial.number, "accuracy"), 1, value)
        study.tell(trial, value)
    trial = study.ask()
    # The median of the five is 0.7.
    assert not is_hopeless(Pruning(place, options, trial.number, "accuracy"), 1, 0.75)
    assert is_hopeless(Pruning(place, options, trial.number, "accuracy"), 2, 0.65) is False
    worse = study.ask()
    asked = Pruning(place, options, worse.number, "accuracy")
    assert is_hopeless(asked, 1, 0.65) and is_hopeless(asked, 1, 0.65)

"""How tasks of GLUE are trained: the plans that ship, what they become, and plans that cannot be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sparsebert.errors import UserError
from sparsebert.recipe.finetune import FinetuneRecipe
from sparsebert.runs.glue import GlueRun, glue_points
from sparsebert.runs.glue_plan import glue_plan, shipped_plans
from sparsebert.tasks.glue import GLUE

RATES = [5e-5, 4e-5, 3e-5, 2e-5]


def recipes_of(plan: str | Path, *settings: str, tasks: tuple[str, ...] = (), runs: int = 1) -> dict[str, Any]:
    return {one.name: one.recipe for one in glue_points(None, glue_plan(plan), tasks, runs, settings)[1]}


def written(folder: Path, text: str) -> Path:
    (folder / "mine.yaml").write_text(text)
    return folder / "mine.yaml"


def test_all_that_ship_say_where_they_are_from():
    assert shipped_plans() == ["cramming", "devlin", "family", "gordon", "quick"]
    assert all(glue_plan(name).source for name in shipped_plans())


def test_quick_is_what_finetune_does():
    found = recipes_of("quick")
    assert list(found) == [f"{task}_seed=0" for task in GLUE]
    recipe = found["rte_seed=0"]
    assert recipe == FinetuneRecipe(task="rte", measure={"timed": False})  # type: ignore[arg-type]


def test_devlin_chooses_among_four_rates_for_three_epochs():
    found = recipes_of("devlin", tasks=("cola",))
    assert list(found) == [f"cola_learning-rate={rate:g}_seed=0" for rate in RATES]
    training = [recipe.training for recipe in found.values()]
    assert [one.learning_rate for one in training] == RATES
    assert {(one.epochs, one.batch_size, one.evaluate) for one in training} == {(3, 32, None)}


def test_cramming_trains_cola_longer_and_leaves_wnli_out():
    found = recipes_of("cramming")
    assert "wnli_seed=0" not in found and len(found) == 8
    epochs = {name: (one.training.epochs, one.training.batch_size) for name, one in found.items()}
    assert epochs["cola_seed=0"] == (15, 16) and epochs["rte_seed=0"] == (5, 16)
    assert {one.training.learning_rate for one in found.values()} == {4e-5}


def test_gordon_has_five_tasks_and_scores_the_train_set():
    found = recipes_of("gordon")
    assert {one.task for one in found.values()} == {"cola", "mnli", "qnli", "qqp", "sst2"} and len(found) == 20
    assert all(one.score_train and one.training.epochs == 3 for one in found.values())


def test_family_makes_two_smaller_models_of_every_task_with_times():
    found = recipes_of("family")
    assert list(found) == [f"{task}_seed=0" for task in GLUE]
    assert {one.kind for one in found.values()} == {"compress"}
    assert {tuple(target.label for target in one.targets) for one in found.values()} == {("2x", "4x")}
    assert all(one.measure.timed and one.dense.max_steps == -1 == one.finetune.max_steps for one in found.values())
    epochs = {name: (one.dense.epochs, one.finetune.epochs) for name, one in found.items()}
    assert epochs["mnli_seed=0"] == (3, 2) and epochs["rte_seed=0"] == (6, 10)


def test_runs_come_seed_by_seed_and_a_given_value_is_not_chosen():
    found = recipes_of("devlin", "training.learning_rate=1e-4", tasks=("rte", "cola"), runs=2)
    assert list(found) == ["cola_seed=0", "rte_seed=0", "cola_seed=1", "rte_seed=1"]
    assert {one.training.learning_rate for one in found.values()} == {1e-4}
    assert [one.seed for one in found.values()] == [0, 0, 1, 1]


def test_more_runs_go_on_in_the_same_folder():
    plan = glue_plan("quick")
    folders = [
        GlueRun(tuple(points), plan, tuple(tasks), runs).folder_name
        for wanted, runs in ((["rte"], 1), (["rte"], 3), (["cola"], 1))
        for tasks, points in [glue_points(None, plan, wanted, runs, [])]
    ]
    assert folders[0] == folders[1] != folders[2] and folders[0].startswith("glue-all-MiniLM-L6-v2-")


def test_a_plan_of_ones_own(tmp_path: Path):
    file = written(
        tmp_path,
        """
        settings: {training: {epochs: 1, evaluate: null}}
        choices: {training.learning_rate: [1e-5, 2e-5], training.lr_schedule: [linear, cosine]}
        overrides:
          rte: {settings: {training.epochs: 9, training.learning_rate: 3e-5}}
        """,
    )
    found = recipes_of(file, tasks=("cola", "rte"))
    assert [name for name in found if name.startswith("cola")] == [
        f"cola_learning-rate={rate}_lr-schedule={schedule}_seed=0"
        for rate in ("1e-5", "2e-5")
        for schedule in ("linear", "cosine")
    ]
    rte = found["rte_lr-schedule=linear_seed=0"].training
    assert (rte.epochs, rte.learning_rate) == (9, 3e-5)


def test_a_recipe_of_another_kind(tmp_path: Path):
    recipe = written(tmp_path, "kind: compress\ntargets: [{kind: sparsity, value: 0.5}]\n")
    plan = glue_plan("quick")
    [point] = glue_points(recipe, plan, ["rte"], 1, [])[1]
    assert point.recipe.kind == "compress" and point.recipe.measure.timed
    with pytest.raises(UserError, match="Unknown recipe key 'training'"):
        glue_points(recipe, glue_plan("devlin"), ["rte"], 1, [])
    own = tmp_path / "own.yaml"
    own.write_text("kind: finetune\nsettings: {dense.epochs: 1}")
    with pytest.raises(UserError, match="The plan 'own' is for recipes of finetune; got a recipe of compress"):
        glue_points(recipe, glue_plan(own), ["rte"], 1, [])


def test_the_plan_of_the_documentation_is_one(tmp_path: Path):
    page = (Path(__file__).parents[1] / "docs" / "glue.md").read_text()
    [text] = re.findall(r"```yml\n(.*?)```", page, re.DOTALL)
    found = recipes_of(written(tmp_path, text), tasks=("cola",))
    assert [one.training.learning_rate for one in found.values()] == [2e-5, 5e-5]
    assert {one.training.epochs for one in found.values()} == {15}


BAD = {
    "setings: {}": "Unknown key of a plan 'setings'.*Did you mean 'settings'",
    "overrides: {rte: {settigs: {}}}": "Unknown key of a plan 'overrides.rte.settigs'",
    "overrides: {snli: {}}": "Unknown GLUE task 'snli'",
    "tasks: [rte, snli]": "Unknown GLUE task 'snli'",
    "choices: {training.epochs: []}": "nothing to choose among for training.epochs",
    "choices: {training.epochs: 3}": "choices.training.epochs",
    "- a list": "must hold a mapping",
    "settings: {a: !!python/name:os.system }": "not readable",
}


@pytest.mark.parametrize("text", BAD)
def test_plans_that_cannot_be(tmp_path: Path, text: str):
    with pytest.raises(UserError, match=BAD[text]):
        glue_plan(written(tmp_path, text))


def test_too_many_settings_to_try(tmp_path: Path):
    many = ", ".join(str(value) for value in range(1, 12))
    file = written(tmp_path, f"choices: {{training.epochs: [{many}], training.batch_size: [{many}]}}")
    with pytest.raises(UserError, match="tries too many settings"):
        recipes_of(file, tasks=("rte",))


def test_an_unknown_plan():
    with pytest.raises(UserError, match=r"Unknown plan for GLUE, and no file 'delvin'.*Did you mean 'devlin'"):
        glue_plan("delvin")


@pytest.mark.parametrize(("setting", "said"), [("task=rte", "--tasks"), ("seed=1", "--runs N")])
def test_tasks_and_seeds_are_no_settings(setting: str, said: str):
    with pytest.raises(UserError, match=said):
        recipes_of("quick", setting)


def test_a_part_that_is_given_whole_leaves_nothing_of_it_to_choose():
    assert len(glue_plan("devlin").of_task("rte")) == 4
    assert [one.chosen for one in glue_plan("devlin").of_task("rte", ["training"])] == [{}]

"""Claims: a run folder belongs to one recipe, one set of inputs and one process; what killed ones left is cleared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from example_record import example_record
from sparsebert.errors import UserError
from sparsebert.files import PREFIX
from sparsebert.recipe.base import Recipe
from sparsebert.recipe.compress import CompressRecipe
from sparsebert.recipe.load import parse_recipe
from sparsebert.recipe.schema import Target, Training
from sparsebert.records import RECIPE_FILE, Inputs, SplitOf, write_record
from sparsebert.runs.claim import INPUTS_FILE, LOCK_FILE, claimed, mark_finished
from test_stages import DAMAGES

INPUTS = Inputs(
    model={"config.json": "a1", "model.safetensors": "b2"},
    teachers={"them": {"config.json": "c3"}},
    data={"train": SplitOf(rows=8, sha256="d4"), "validation": SplitOf(rows=4, sha256="e5")},
    labels=("no", "yes"),
    packages={"torch": "2.13.0", "numpy": "2.0"},
    threads=2,
    cpu="here",
)


def claim(folder: Path, recipe: Recipe | None = None, inputs: Inputs = INPUTS, restart: bool = False) -> Inputs:
    with claimed(folder, recipe or CompressRecipe(), inputs, restart) as begun:
        return begun


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_claim_writes_the_recipe_and_lets_it_in_again(tmp_path: Path):
    recipe = CompressRecipe(seed=3, targets=(Target(kind="speedup", value=2),))
    claim(tmp_path / "run", recipe)
    assert parse_recipe(json.loads((tmp_path / "run" / RECIPE_FILE).read_text())) == recipe
    assert Inputs.model_validate_json((tmp_path / "run" / INPUTS_FILE).read_bytes()) == INPUTS
    (tmp_path / "run" / "other.txt").write_text("kept")
    claim(tmp_path / "run", recipe)
    assert (tmp_path / "run" / "other.txt").read_text() == "kept"


def test_claim_refuses_another_recipe_and_names_the_keys(tmp_path: Path):
    claim(tmp_path)
    before = content(tmp_path)
    with pytest.raises(UserError, match=r"another recipe; different: dense\.epochs, seed; .*choose another --output"):
        claim(tmp_path, CompressRecipe(seed=1, dense=Training(epochs=3)))
    assert content(tmp_path) == before


OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "weights": ({"model": {"config.json": "a1", "model.safetensors": "x"}}, "different: the model (model.safetensors)"),
    "a teacher": ({"teachers": {"them": {"config.json": "x"}}}, "different: the teacher them (config.json)"),
    "rows": (
        {"data": {"train": {"rows": 9, "sha256": "x"}, "validation": {"rows": 4, "sha256": "e5"}}},
        "different: the train data have 9 rows, had 8",
    ),
    "labels of rows": (
        {"data": {"train": {"rows": 8, "sha256": "d4"}, "validation": {"rows": 4, "sha256": "x"}}},
        "different: the validation data",
    ),
    "a third label": ({"labels": ("maybe", "no", "yes")}, "different: the labels are maybe, no, yes, were no, yes"),
    "a package": (
        {"packages": {"torch": "2.14.0"}},
        "different: numpy is gone, was 2.0; torch is 2.14.0, was 2.13.0",
    ),
}


@pytest.mark.parametrize("what", OTHER)
def test_claim_refuses_other_inputs_and_names_them(what: str, tmp_path: Path):
    claim(tmp_path)
    before = content(tmp_path)
    values, said = OTHER[what]
    with pytest.raises(UserError) as caught:
        claim(tmp_path, inputs=Inputs.model_validate(INPUTS.model_dump() | values))
    assert said in str(caught.value) and "--restart" in str(caught.value)
    assert content(tmp_path) == before


def test_threads_and_processor_are_those_that_it_began_with(tmp_path: Path):
    claim(tmp_path)
    assert claim(tmp_path, inputs=INPUTS.model_copy(update={"threads": 1, "cpu": "there"})) == INPUTS


def test_restart_begins_anew_and_leaves_what_no_run_made(tmp_path: Path):
    claim(tmp_path)
    for name in ("work/dense.json", "dense/config.json", "plots/a.png", "record.json", "report.html", "mine/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")
    claim(tmp_path, CompressRecipe(seed=1), restart=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK_FILE, INPUTS_FILE, "mine", RECIPE_FILE]


def targets(*values: float) -> Recipe:
    return CompressRecipe(targets=tuple(Target(kind="speedup", value=value) for value in values))


def test_targets_may_be_added(tmp_path: Path):
    claim(tmp_path, targets(2))
    claim(tmp_path, targets(2, 4))
    assert json.loads((tmp_path / RECIPE_FILE).read_text())["targets"][1]["value"] == 4
    for fewer in (targets(4), targets(2), targets(3, 4)):
        with pytest.raises(UserError, match="another recipe"):
            claim(tmp_path, fewer)


def test_claim_takes_an_empty_folder_and_refuses_a_foreign_one(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    claim(tmp_path / "empty")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("mine")
    (tmp_path / "cook").mkdir()
    (tmp_path / "cook" / RECIPE_FILE).write_text('{"flour": 500}')
    for folder in (tmp_path / "foreign", tmp_path / "foreign" / "thesis.tex", tmp_path / "cook"):
        for restart in (False, True):
            with pytest.raises(UserError, match=r"not empty and not a run; got .*choose another --output"):
                claim(folder, restart=restart)
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["thesis.tex"]
    assert [path.name for path in (tmp_path / "cook").iterdir()] == [RECIPE_FILE]


def test_what_killed_processes_left_is_cleared(tmp_path: Path):
    (tmp_path / f"{PREFIX}k3jd9").write_text('{"sche')
    claim(tmp_path)
    (tmp_path / "work" / f"{PREFIX}abc" / "model").mkdir(parents=True)
    (tmp_path / "work" / f"{PREFIX}def").write_text("half")
    claim(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [LOCK_FILE, INPUTS_FILE, RECIPE_FILE, "work"]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", [RECIPE_FILE, INPUTS_FILE])
def test_a_damaged_claim_is_one_line(file: str, damage: str, tmp_path: Path):
    claim(tmp_path)
    DAMAGES[damage](tmp_path / file)
    if (file, damage) == (RECIPE_FILE, "gone"):
        # As a process leaves it that is killed while it claims.
        claim(tmp_path)
        return
    with pytest.raises(UserError, match=r"--restart|another recipe|not the same any more"):
        claim(tmp_path)
    claim(tmp_path, restart=True)
    claim(tmp_path)


def test_a_recipe_of_another_version_is_one_line(tmp_path: Path):
    claim(tmp_path)
    (tmp_path / RECIPE_FILE).write_text(json.dumps(CompressRecipe().plain() | {"schema": 99}))
    with pytest.raises(UserError, match="recipe schema 99 is not readable"):
        claim(tmp_path)


LINKS: Sequence[str] = (LOCK_FILE, RECIPE_FILE, "work", "work/deep/masks.safetensors")


@pytest.mark.parametrize("name", LINKS)
def test_links_are_not_followed(name: str, tmp_path: Path):
    target = tmp_path / "precious"
    target.write_text("mine")
    run = tmp_path / "run"
    claim(run)
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(target)
    for restart in (False, True):
        with pytest.raises(UserError, match=r"must not hold links|must not be a link"):
            claim(run, restart=restart)
    assert target.read_text() == "mine"


def test_two_commands_do_not_work_in_one_folder(tmp_path: Path):
    folder = tmp_path / "run"
    with (
        claimed(folder, CompressRecipe(), INPUTS),
        pytest.raises(UserError, match="Another command is working") as caught,
    ):
        claim(folder)
    assert str(folder) in str(caught.value)
    claim(folder)


def test_targets_that_could_not_be_met_may_be_taken_back(tmp_path: Path):
    claim(tmp_path, targets(2))
    write_record(example_record().model_copy(update={"recipe_hash": targets(2).hash}), tmp_path)
    mark_finished(tmp_path)
    claim(tmp_path, targets(2, 4))
    claim(tmp_path, targets(2))
    assert len(json.loads((tmp_path / RECIPE_FILE).read_text())["targets"]) == 1
    with pytest.raises(UserError, match="another recipe"):
        claim(tmp_path, targets(4))


@pytest.mark.parametrize("kind", ["model", "data", "teacher"])
def test_restart_removes_nothing_that_the_new_run_is_made_from(kind: str, tmp_path: Path):
    claim(tmp_path / "run")
    own = tmp_path / "run" / "dense"
    own.mkdir()
    (own / "config.json").write_text("{}")
    phases = [{"name": "one", "teacher": str(own)}]
    recipe = parse_recipe({"phases": phases} if kind == "teacher" else {kind: str(own)})
    before = content(tmp_path / "run")
    with pytest.raises(UserError, match=r"--restart would remove what the new run is made from; got .*dense"):
        claim(tmp_path / "run", recipe, restart=True)
    assert (own / "config.json").is_file() and content(tmp_path / "run") == before

"""Recipes of each kind: their keys are their own, each goes to its command, and a type of the user's own runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sparsebert.errors import UserError
from sparsebert.recipe.load import load_recipe, parse_recipe
from sparsebert.records import read_record
from sparsebert.runs.run import run
from tiny_run import assert_refused, run_cli, save_tiny, write_task

OWN = '''
from pydantic import Field

from sparsebert.models.load import save_model
from sparsebert.recipe.base import Recipe
from sparsebert.runs.run_type import Entry, Made, RunType


class CopyRecipe(Recipe, frozen=True):
    """A copy of the model."""

    copies: int = Field(default=1, ge=1)


class Copy(RunType[CopyRecipe]):
    recipe = CopyRecipe

    def check(self, context):
        return context.recipe.copies

    def make(self, context):
        from sparsebert.pruning.shapes import shape_of

        entries = []
        for number in range(context.recipe.copies):
            context.steps.begin("copying")
            model, folder = context.fresh(), context.folder / f"copy{number}"
            save_model(model, context.tokenizer, folder)
            shape = shape_of(model, range(3), model)
            entries.append(Entry(folder.name, folder, model, context.predict(model), {"shape": shape}))
        return Made(entries)
'''


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({}, "compress"),
        ({"phases": [{"name": "a"}]}, "train"),
        ({"trees": {"depth": 2}}, "fff"),
        ({"kind": "fff", "trees": {}}, "fff"),
    ],
)
def test_a_recipe_that_does_not_say_its_kind_is_known_by_its_keys(values: dict[str, object], kind: str):
    assert parse_recipe(values).kind == kind


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        (["criterion=random", "phases=[{name: a}]"], "train", "Unknown recipe key 'criterion'"),
        (["criterion=random", "phases=[{name: a}]"], "train", "It is a key of compress and fff."),
        (["kind=my:Own"], "compress", "is of kind my:Own; use `sparsebert sweep`, or run_recipe of sparsebert.api."),
        (["kind=train"], "compress", "The recipe is of kind train; use `sparsebert train`."),
        (["trees.depth=2"], "compress", "The recipe has trees, so it is one of fff; use `sparsebert fff`."),
        ([], "train", "The recipe has no phases"),
        ([], "fff", "The recipe has no trees"),
        (["kind=compres"], None, "Unknown run type 'compres'; allowed: compress, train, fff"),
        (["kind=3"], None, "The kind of a recipe is a word; got 3"),
        (["kind=no_module:Name"], None, "The run type 'no_module:Name' cannot be imported"),
        (["trees.depth=1", "criterion=obss"], "fff", "Unknown unit criterion 'obss'; allowed: obs, "),
        (["measure.x=1"], None, "Unknown recipe key 'measure.x'; allowed: batch"),
        (["phases=[{rules: [{start: {step: 1}, sparsity: 0.5}]}]"], None, "allowed: steps, epochs, percent"),
    ],
)
def test_what_does_not_fit_is_one_error(settings: list[str], kind: str | None, words: str):
    with pytest.raises(UserError) as caught:
        load_recipe(None, settings, kind=kind)
    assert words in str(caught.value)


def test_a_run_type_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_runs.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "model")
    write_task(tmp_path / "data", 16, 8)
    given = ["kind=my_runs:Copy", "model=model", "task=mine", "data=data", "measure.timed=false"]
    recipe = load_recipe(None, [*given, "copies=2"])
    record = run(recipe, tmp_path / "out", "a test")
    assert record.kind == "my_runs:Copy" and [model.name for model in record.models] == ["copy0", "copy1"]
    assert read_record(tmp_path / "out") == record and (tmp_path / "out" / "report.html").is_file()
    with pytest.raises(UserError, match=r"Unknown recipe key .copeis.*Did you mean .copies"):
        load_recipe(None, [*given, "copeis=2"])
    del sys.modules["my_runs"]


BROKEN = """
from typing import Any

from sparsebert.models.load import save_model
from sparsebert.recipe.base import Recipe
from sparsebert.runs.run_type import Entry, Made, RunType


class NoRunType:
    pass


class NoRecipe(RunType):
    def check(self, context):
        return 1

    def make(self, context):
        return Made([])


class DictRecipe(NoRecipe):
    recipe = dict


class NotWritten(RunType):
    recipe = Recipe


class NoModels(NoRecipe):
    recipe = Recipe


class Twice(NoModels):
    def make(self, context):
        model, folder = context.fresh(), context.folder / "a"
        save_model(model, context.tokenizer, folder)
        return Made([Entry("a", folder, model, context.predict(model))] * self.count)

    count = 2


class NoShape(Twice):
    count = 1


INSTANCE = NoModels()
"""


@pytest.mark.parametrize(
    ("name", "words", "begun"),
    [
        ("NoRunType", "is of another kind; got NoRunType; allowed: a class derived from", False),
        ("INSTANCE", "is of another kind; got NoModels; allowed: a class derived from", False),
        ("NoRecipe", "has no recipe; give it an attribute `recipe`, a class made from Recipe", False),
        ("DictRecipe", "has no recipe; got <class 'dict'>", False),
        ("NotWritten", "has methods that are not written: check, make", False),
        ("NoModels", "made no models", True),
        ("Twice", "made two models of one name or folder; got a, a", True),
        ("NoShape", "The facts of the model 'a' do not fit: shape: Field required", True),
    ],
)
def test_a_run_type_that_is_not_whole_is_one_error(
    name: str, words: str, begun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "broken_runs.py").write_text(BROKEN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "model")
    write_task(tmp_path / "data", 16, 8)
    given = [f"kind=broken_runs:{name}", "model=model", "task=mine", "data=data", "measure.timed=false"]
    with pytest.raises(UserError) as caught:
        run(load_recipe(None, given), tmp_path / "out", "a test")
    assert words in str(caught.value)
    assert (tmp_path / "out").exists() == begun
    if begun:
        assert read_record(tmp_path / "out").message == str(caught.value)
        assert not (tmp_path / "out" / "finished.json").exists()
    del sys.modules["broken_runs"]


def test_keys_of_another_kind_leave_nothing_behind(tmp_path: Path):
    save_tiny(tmp_path / "model")
    said = run_cli("train", tmp_path / "model", "--recipe", "random", "--set", "max_drop=1", "-o", tmp_path / "out")
    assert_refused(said, ["Unknown recipe key 'max_drop'", "It is a key of compress."])
    assert not (tmp_path / "out").exists()


def test_a_single_text_column_needs_no_list():
    assert parse_recipe({"columns": {"text": "body"}}).columns.text == ("body",)

"""Stages: a folder belongs to one recipe, and finished work is found again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import BaseModel

from sparsebert.compress.family import LatencyTable
from sparsebert.compress.stages import RECIPE_FILE, alone, claim, stage
from sparsebert.errors import UserError
from sparsebert.oneshot.budgets import CostTable
from sparsebert.parts import Target, Training
from sparsebert.recipe import Recipe, parse_recipe


class Number(BaseModel):
    value: float


def test_claim_writes_the_recipe_and_lets_it_in_again(tmp_path: Path):
    recipe = Recipe(seed=3, targets=(Target(kind="speedup", value=2),))
    claim(tmp_path / "run", recipe)
    assert parse_recipe(json.loads((tmp_path / "run" / RECIPE_FILE).read_text())) == recipe
    (tmp_path / "run" / "other.txt").write_text("kept")
    claim(tmp_path / "run", recipe)
    assert (tmp_path / "run" / "other.txt").read_text() == "kept"


def test_claim_refuses_another_recipe_and_names_the_keys(tmp_path: Path):
    claim(tmp_path, Recipe())
    before = (tmp_path / RECIPE_FILE).read_bytes()
    with pytest.raises(UserError, match=r"another recipe; different: dense\.epochs, seed; choose another --output"):
        claim(tmp_path, Recipe(seed=1, dense=Training(epochs=3)))
    assert (tmp_path / RECIPE_FILE).read_bytes() == before


def test_claim_takes_an_empty_folder_and_refuses_a_foreign_one(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    claim(tmp_path / "empty", Recipe())
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("mine")
    for folder in (tmp_path / "foreign", tmp_path / "foreign" / "thesis.tex"):
        with pytest.raises(UserError, match=r"not empty and not a run; got .*choose another --output"):
            claim(folder, Recipe())
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["thesis.tex"]


def test_a_stage_is_done_again_where_what_it_made_is_gone(tmp_path: Path):
    values = iter([1.0, 2.0])

    def work() -> Number:
        (tmp_path / "made").mkdir()
        return Number(value=next(values))

    assert [stage(tmp_path / "done.json", Number, work, makes=tmp_path / "made").value for _ in range(2)] == [1.0, 1.0]
    (tmp_path / "made").rmdir()
    assert stage(tmp_path / "done.json", Number, work, makes=tmp_path / "made").value == 2.0


def test_a_claim_that_was_killed_can_be_made_again(tmp_path: Path):
    (tmp_path / f".{RECIPE_FILE}.k3jd9").write_text('{"sche')
    claim(tmp_path, Recipe())
    assert (tmp_path / RECIPE_FILE).is_file()


def test_a_recipe_of_another_version_is_one_line(tmp_path: Path):
    (tmp_path / RECIPE_FILE).write_text(json.dumps(Recipe().plain() | {"schema": 99}))
    with pytest.raises(UserError, match="recipe schema 99 is not readable"):
        claim(tmp_path, Recipe())


def test_stage_works_once(tmp_path: Path):
    calls: list[int] = []

    def work() -> Number:
        calls.append(1)
        return Number(value=1 / 3)

    file = tmp_path / "deep" / "number.json"
    assert stage(file, Number, work) == stage(file, Number, work) == Number(value=1 / 3)
    assert calls == [1]
    assert [path.name for path in file.parent.iterdir()] == ["number.json"]


def test_stage_that_fails_leaves_nothing(tmp_path: Path):
    def fail() -> Number:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path / "number.json", Number, fail)
    assert list(tmp_path.iterdir()) == []


def test_a_latency_table_comes_back_as_it_was(tmp_path: Path):
    table = CostTable(attention={0: 0.0, 12: 1 / 3}, ffn={0: 0.0, 3072: 0.1 + 0.2}, layer=1e-7, fixed=2 / 3)
    written = stage(tmp_path / "table.json", LatencyTable, lambda: LatencyTable(table=table))
    read = stage(tmp_path / "table.json", LatencyTable, lambda: LatencyTable(table=CostTable({}, {}, 0.0)))
    assert read.table == written.table == table
    assert read.table.cost(6, 3072) == table.cost(6, 3072)


def test_two_commands_do_not_work_in_one_folder(tmp_path):
    claim(tmp_path / "run", Recipe())
    with alone(tmp_path / "run"), pytest.raises(UserError, match="Another command is working") as caught:  # noqa: SIM117
        with alone(tmp_path / "run"):
            pass
    assert str(tmp_path / "run") in str(caught.value)
    with alone(tmp_path / "run"):
        pass

"""What runs of a sweep share: what decides it, and that nothing of it is lost or mixed up."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsebert.errors import UserError
from sparsebert.recipe.base import Recipe
from sparsebert.recipe.load import parse_recipe
from sparsebert.records import Inputs
from sparsebert.runs.cache import SharedPart, add_to_cache, shared_cache, shared_parts, take_from_cache
from sparsebert.runs.sweep import Point, sweep
from test_claim import INPUTS

PHASE = {"name": "prune", "teacher": "dense", "rules": [{"schedule": "cubic"}]}


def recipe(**values: object) -> Recipe:
    return parse_recipe({"sparsity": 0.5, "phases": [PHASE], **values})


def parts(inputs: Inputs = INPUTS, **values: object) -> list[SharedPart]:
    return shared_parts(recipe(**values), inputs)


def names(inputs: Inputs = INPUTS, **values: object) -> list[str]:
    return [part.name for part in parts(inputs, **values)]


def made(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(file)
    return folder


def test_what_decides():
    assert names(sparsity=0.9) == names() and len(set(names())) == 2
    for change in ({"seed": 1}, {"dense": {"max_steps": 3}}, {"max_length": 9}):
        assert not set(names(**change)) & set(names())
    for made_from in ({"model": {"config.json": "x"}}, {"labels": ("a", "b")}, {"threads": 1}, {"packages": {}}):
        assert not set(names(INPUTS.model_copy(update=made_from))) & set(names())
    # Where model and data lie does not matter, as long as they are the same.
    assert names(model="elsewhere", data="copy") == names()
    assert names(measure={"rounds": 5})[0] == names()[0] and names(measure={"rounds": 5})[1] != names()[1]
    given = {"phases": [{**PHASE, "teacher": "them"}]}
    assert names(**given)[2:] == names(**given, seed=1)[2:] != names(**given, max_length=9)[2:]


def test_a_run_takes_what_another_of_the_same_kind_left(tmp_path):
    first = made(tmp_path / "a", "dense/model", "work/dense.json", "work/teacher/logits", "work/latency-1x8.json")
    add_to_cache(parts(), first, tmp_path / "cache")
    expected = ["work/teacher", "dense", "work/dense.json", "work/latency-1x8.json"]
    assert take_from_cache(parts(sparsity=0.9), tmp_path / "b", tmp_path / "cache") == expected
    for file in ("dense/model", "work/dense.json", "work/teacher/logits", "work/latency-1x8.json"):
        assert (tmp_path / "b" / file).samefile(first / file)
    # What it was given is known to the next start too.
    assert take_from_cache(parts(sparsity=0.9), tmp_path / "b", tmp_path / "cache") == expected
    assert take_from_cache(parts(seed=1), tmp_path / "c", tmp_path / "cache") == [] and not (tmp_path / "c").exists()


def test_unfinished_work_is_not_left(tmp_path):
    add_to_cache(parts(), made(tmp_path / "a", "dense/model", "work/teacher/logits"), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_what_a_run_has_stays(tmp_path):
    add_to_cache(parts(), made(tmp_path / "a", "dense/model", "work/dense.json"), tmp_path / "cache")
    own = made(tmp_path / "b", "dense/other")
    assert take_from_cache(parts(), own, tmp_path / "cache") == ["work/dense.json"]
    assert [file.name for file in (own / "dense").iterdir()] == ["other"]


def test_the_last_to_leave_clears_up(tmp_path):
    made(tmp_path, "run/record.json")
    with shared_cache(tmp_path) as outer:
        with shared_cache(tmp_path) as inner:
            made(inner, "part/dense.json")
        assert (outer / "part" / "dense.json").is_file()
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_what_was_made_outlives_a_failure(tmp_path):
    def interrupted() -> None:
        with shared_cache(tmp_path) as place:
            made(place, "part/dense.json")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "cache" / "part" / "dense.json").is_file()


def test_nothing_stays_where_nothing_ran(tmp_path):
    with shared_cache(tmp_path / "sweep"):
        pass
    assert not (tmp_path / "sweep").exists()


def test_a_link_as_a_lock_is_not_followed(tmp_path):
    target = tmp_path / "precious"
    target.write_text("mine")
    (tmp_path / "sweep" / "cache").mkdir(parents=True)
    (tmp_path / "sweep" / "cache" / ".lock").symlink_to(target)
    with pytest.raises(UserError, match="must not be a link"), shared_cache(tmp_path / "sweep"):
        pass
    assert target.read_text() == "mine"


@pytest.mark.parametrize("kind", ["run", "link"])
def test_a_sweep_takes_no_folder_of_a_run_and_none_with_links(kind: str, tmp_path: Path):
    folder = made(tmp_path / "sweep", "report.html")
    (tmp_path / "elsewhere").mkdir()
    if kind == "run":
        made(folder, "recipe.json")
    else:
        (folder / "plots").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"is that of a run|must not hold links"):
        list(sweep([Point("a", recipe())], folder, "test", keep_models=False))
    assert (folder / "report.html").read_text() == "report.html" and not any((tmp_path / "elsewhere").iterdir())

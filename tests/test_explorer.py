"""What the explorer's page is made of: the runs that are found, their points, pictures, facts and commands."""

from __future__ import annotations

import json
import os
import shlex
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from example_record import example_record, full_record, train_record, tree_record
from exploring import curve_run, runs_of, several, with_bad_company
from sparsebert.explorer.charts import ChartData, model_charts
from sparsebert.explorer.commands import Making, making
from sparsebert.explorer.facts import model_facts
from sparsebert.explorer.library import Library
from sparsebert.explorer.matrices import MOST_CELLS
from sparsebert.explorer.models import ShownModel, shown_models
from sparsebert.explorer.points import points, setting_text
from sparsebert.records import FILE_NAME, VISITS, EnergyUse, write_record
from sparsebert.sparse.coarse import coarse


def models_of(home: Path) -> dict[str, ShownModel]:
    return {model.key: model for model in shown_models(Library([home]).look().runs)}


def charts_of(model: ShownModel) -> dict[str, ChartData]:
    return {chart.kind: chart for chart in model_charts(model).charts}


def test_a_library_names_runs_and_tells_what_it_cannot_show(tmp_path: Path) -> None:
    home = with_bad_company(tmp_path / "runs")
    shelf = Library([home, home / "obs0", tmp_path]).look()
    assert [run.name for run in shelf.runs] == ["failed", "magnitude", "obs0", "obs1", "sparse", "trees"]
    assert shelf.going == ("going",)
    nothing, other, short = shelf.problems
    assert nothing.startswith(f"{tmp_path}: No record found")
    assert "another schema; got 99" in other and str(home / "other") in other
    assert "not readable" in short and str(home / "short") in short


def test_one_run_is_called_by_its_folder_and_a_file_by_its_name(tmp_path: Path) -> None:
    write_record(full_record(), tmp_path / "mine")
    assert [run.name for run in Library([tmp_path / "mine"]).look().runs] == ["mine"]
    (tmp_path / "mine" / FILE_NAME).rename(tmp_path / "mine" / "kept.json")
    assert [run.name for run in Library([tmp_path / "mine" / "kept.json"]).look().runs] == ["kept.json"]


def test_only_what_is_new_is_read_and_the_version_says_so(tmp_path: Path) -> None:
    library = Library([runs_of(tmp_path, one=full_record())])
    before = library.look()
    again = library.look()
    assert again.version == before.version and again.runs[0].record is before.runs[0].record
    write_record(full_record(1), tmp_path / "two")
    more = library.look()
    assert more.version != before.version and more.runs[0].record is before.runs[0].record
    write_record(full_record(2), tmp_path / "one")
    os.utime(tmp_path / "one" / FILE_NAME, ns=(1, 1))
    assert [run.record.seed for run in library.look().runs] == [2, 1]
    (tmp_path / "two" / FILE_NAME).unlink()
    assert [run.name for run in library.look().runs] == ["one"]


def test_a_run_that_has_begun_is_no_problem(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{}", encoding="utf-8")
    shelf = Library([tmp_path]).look()
    assert shelf.going == (tmp_path.name,) and shelf.problems == () and shelf.runs == ()


def test_models_come_run_by_run_and_after_them_medians(tmp_path: Path) -> None:
    keys = list(models_of(several(tmp_path)))
    assert keys[:4] == ["magnitude/dense", "magnitude/2x", "magnitude/4x", "magnitude/8x"]
    assert keys[-4:] == [f"sst2, compress: obs, search · 2 runs/{name}".replace("sst2, ", "") for name in SHAPES]
    assert len(keys) == 3 * 4 + 1 + 3 + 4


SHAPES = ("dense", "2x", "4x", "8x")


def test_a_point_has_its_numbers_with_their_ranges(tmp_path: Path) -> None:
    found = {one["key"]: one for one in points(list(models_of(several(tmp_path)).values()))}
    small, dense = found["obs0/4x"], found["obs0/dense"]
    assert small["score"] == [90.6, 88.6, 92.4] and small["metric"] == "Accuracy"
    assert small["change"][0] == pytest.approx(-0.68) and dense["change"] == [0.0]
    assert (small["seed"], small["asked"], small["method"]) == ("0", "4× faster", "compress: obs, search")
    times = [one for one in small["times"] if one["scope"] == "model"]
    assert {one["setting"] for one in times} == {
        "1 text × 128 tokens, 2 threads",
        "1 text × 25 tokens, 2 threads",
        "32 texts × 128 tokens, 2 threads",
        "32 texts × 25 tokens, 2 threads",
    }
    speedup = times[0]["speedup"]
    assert speedup[1] == pytest.approx(0.98 * speedup[0], rel=1e-4) and speedup[2] > speedup[0]
    assert "energy_j" not in small and json.dumps(found, allow_nan=False)
    median = found["compress: obs, search · 2 runs/4x"]
    scores = sorted(found[f"{run}/4x"]["score"][0] for run in ("obs0", "obs1"))
    assert median["score"] == [pytest.approx(sum(scores) / 2, abs=1e-3), *scores] and median["seed"] == "0, 1"


def test_what_a_records_targets_are_about_is_worked_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = list(models_of(several(tmp_path)).values())
    module, asked = import_module("sparsebert.reports.families"), list[str]()
    real = module._headline_setting
    monkeypatch.setattr(module, "_headline_setting", lambda record: asked.append(record.command) or real(record))
    points(models)
    assert len(asked) == len({id(record) for model in models for record in model.family.records}) == 5


def test_energy_is_a_number_only_where_it_was_measured(tmp_path: Path) -> None:
    record = full_record()
    use = EnergyUse(source="a counter", rounds=3, round_s=1.0, median_j=12.0, q25_j=11.0, q75_j=13.0)
    timings = tuple(
        one.model_copy(update={"energy": use}) if one.scope == "model" else one for one in record.models[1].timings
    )
    changed = record.models[1].model_copy(update={"timings": timings})
    runs_of(tmp_path, one=record.model_copy(update={"models": (record.models[0], changed, *record.models[2:])}))
    found = points(list(models_of(tmp_path).values()))
    assert [one.get("energy_j") for one in found] == [None, [12.0, 11.0, 13.0], None, None]


def test_a_setting_is_said_in_words() -> None:
    assert setting_text(1, 128, 1) == "1 text × 128 tokens, 1 thread"
    assert setting_text(32, 25, 2) == "32 texts × 25 tokens, 2 threads"


def test_heads_and_neurons_are_those_of_the_record(tmp_path: Path) -> None:
    model = models_of(several(tmp_path))["obs0/8x"]
    charts, shape = charts_of(model), model.first[1].shape
    heads = [row for row in charts["heads"].rows if row[0] == 1]
    assert [row[1] - 1 for row in heads if row[2]] == list(shape.kept_heads[0])
    assert [row[3] for row in heads] == pytest.approx(list(shape.head_importance[0]), rel=1e-4)
    assert charts["heads"].more["dropped"] == [4, 6] and "layer 4: dropped" in charts["heads"].words
    assert [row[1] for row in charts["neurons"].rows] == list(shape.neurons)
    assert charts["neurons"].more["said"] == {"4": "layer dropped", "6": "layer dropped"}


def test_heads_that_are_only_counted_are_said_to_be(tmp_path: Path) -> None:
    model = models_of(runs_of(tmp_path, one=example_record()))["one/8x"]
    heads = charts_of(model)["heads"]
    assert "does not say which" in heads.caption and {row[3] for row in heads.rows} == {None}
    assert [sum(row[2] for row in heads.rows if row[0] == layer) for layer in range(1, 7)] == [4, 2, 3, 0, 1, 0]


def test_zeros_and_training_are_those_of_the_record(tmp_path: Path) -> None:
    record = train_record()
    more = {"rule0/reactivated": 12.0}
    rows = tuple(row.model_copy(update={"more": more}) if row.sparsity else row for row in record.models[0].timeline)
    record = record.model_copy(update={"models": (record.models[0].model_copy(update={"timeline": rows}),)})
    charts = charts_of(models_of(runs_of(tmp_path, one=record))["one/sparse"])
    assert set(charts) == {"zeros", "timeline"}
    assert charts["zeros"].rows[0] == ("1", "attention query", 0.8) and len(charts["zeros"].rows) == 36
    timeline = charts["timeline"]
    assert timeline.columns == ("step", "phase", "sparsity", "loss", "reactivated (rule 1)")
    assert timeline.rows[0] == (200, "warm", None, pytest.approx(0.56667, abs=1e-5), None)
    assert timeline.rows[-1][:2] == (1000, "prune") and timeline.rows[-1][4] == 12.0
    assert timeline.more == {"starts": [600]}


def test_trees_are_drawn_from_the_visits_beside_the_record(tmp_path: Path) -> None:
    model = models_of(several(tmp_path))["trees/fff-1x10"]
    trees = [chart for chart in model_charts(model).charts if chart.kind == "visits"]
    assert [tree.title for tree in trees] == [
        "Layer 5, tree 1: 7 nodes, 3 unused",
        "Layer 6, tree 1: 7 nodes, 3 unused",
    ]
    # Eight tokens at the root; all of them go left, six to its left child.
    assert trees[0].rows == (
        (1, 1, 1.0, 0.0),
        (2, 1, 2.0, 0.0),
        (2, 2, 0.0, 1.0),
        (3, 1, 3.0, 0.0),
        (3, 2, 1.0, 0.0),
        (3, 3, 0.0, 1.0),
        (3, 4, 0.0, 1.0),
    )
    (tmp_path / "trees" / VISITS).write_bytes(b"no tensors")
    drawn = model_charts(model)
    assert "visits" not in [chart.kind for chart in drawn.charts] and "damaged or cut short" in drawn.problems[0]


def test_a_cell_of_a_matrix_is_the_share_of_its_zeros() -> None:
    zero = np.zeros((30, 2), dtype=bool)
    zero[0, 1] = zero[29] = True
    # Thirty rows in 24 cells: six of them have two rows.
    found = coarse(zero, MOST_CELLS)
    assert found.shape == (MOST_CELLS, 2) and found[0].tolist() == [0.0, 1.0]
    heights = np.diff(np.append(np.arange(24) * 30 // 24, 30))
    assert (found * heights[:, None]).sum() == pytest.approx(3) and found[-1].tolist() == [1 / heights[-1]] * 2


def test_places_of_zeros_are_read_from_the_weights_beside_the_record(tmp_path: Path) -> None:
    record = train_record()
    names = list(record.models[0].sparsity_by_tensor)
    model = models_of(runs_of(tmp_path, one=record))["one/sparse"]
    assert "places" not in charts_of(model)
    (tmp_path / "one" / "sparse").mkdir()
    file = tmp_path / "one" / "sparse" / "model.safetensors"
    save_file({names[0]: np.eye(2, dtype=np.float32), names[7]: np.ones((3, 1), dtype=np.float16)}, file)
    places = charts_of(model)["places"]
    assert places.rows == (
        ("1", "attention query", 1, 0.0, 1.0),
        ("1", "attention query", 2, 1.0, 0.0),
        ("2", "attention key", 1, 0.0),
        ("2", "attention key", 2, 0.0),
        ("2", "attention key", 3, 0.0),
    )
    assert places.columns == ("layer", "matrix", "row of cells", "1", "2")
    file.write_bytes(b"short")
    # What needs no such file is drawn all the same.
    drawn = model_charts(model)
    assert "damaged or cut short" in drawn.problems[0]
    assert [chart.kind for chart in drawn.charts] == ["zeros", "timeline"]


def test_facts_are_the_line_of_the_report(tmp_path: Path) -> None:
    facts = model_facts(models_of(several(tmp_path))["obs0/4x"])
    told = dict(facts.facts)
    assert told["Run"].text == "obs0" and told["Asked for"].text == "4× faster"
    assert (told["Accuracy, n = 872"].text, told["Accuracy, n = 872"].small) == ("90.6%", "88.6–92.4")
    assert told["Always the majority class"].text == "50.9%" and told["Same as dense"].text == "95.1%"
    assert "faster than dense" in facts.verdict and facts.command.startswith("sparsebert compress")
    titles = [table.title for table in facts.tables]
    assert titles[:2] == ["Training and checks", "Timings"] and titles[-1] == "Environment"
    assert all(row[0].text == "4x" for table in facts.tables[:2] for part in table.sections for row in part.rows)


def test_times_of_several_processors_are_told_apart(tmp_path: Path) -> None:
    record = full_record(1)
    other = record.environment.model_copy(update={"cpu": "Other CPU"})
    runs_of(tmp_path, one=full_record(), two=record.model_copy(update={"environment": other}))
    found = {one["key"]: one["times"][0]["setting"] for one in points(list(models_of(tmp_path).values()))}
    assert found["one/4x"] == "1 text × 128 tokens, 2 threads, Example CPU @ 2.60GHz"
    assert found["two/4x"] == "1 text × 128 tokens, 2 threads, Other CPU"


def test_a_command_that_was_typed_gets_a_further_target() -> None:
    record = full_record()
    assert making(record) == Making(record.command, (2.0, 4.0, 8.0))
    # A recipe's file held the targets: options would take their place, and the folder would refuse.
    typed = record.model_copy(update={"command": "sparsebert compress --recipe mine.yaml -o 'a b'"})
    words = ["sparsebert", "compress", "--recipe", "mine.yaml", "-o", "a b"]
    assert shlex.split(making(typed).words) == [*words, "--speedup", "2", "--speedup", "4", "--speedup", "8"]


@pytest.mark.parametrize("command", ["python mine.py", "sparsebert compress --max-drop 1", "sparsebert compress 'x"])
def test_a_command_of_another_kind_says_what_its_recipe_says(command: str) -> None:
    record = full_record(3, criterion="magnitude", data="some data", measure={"runtime": "onnx", "rounds": 5})
    made = making(record.model_copy(update={"command": command}))
    words = shlex.split(made.words)
    assert words[:3] == ["sparsebert", "compress", record.recipe["model"]] and made.asked == ()
    options = list(zip(words[3::2], words[4::2], strict=True))
    assert sorted(options) == [
        ("--criterion", "magnitude"),
        ("--data", "some data"),
        ("--runtime", "onnx"),
        ("--seed", "3"),
        ("--set", "measure.rounds=5"),
        ("--task", "sst2"),
    ]


def test_what_this_version_does_not_take_is_in_no_command() -> None:
    """As `dropout`, which once was true or false."""
    record = full_record()
    older = record.recipe | {"dense": {"dropout": True, "epochs": 3.0, "gone": 1}}
    words = making(record.model_copy(update={"command": "mine", "recipe": older})).words
    assert "dense.epochs=3.0" in words and "dropout" not in words and "gone" not in words


def test_a_training_becomes_a_command_with_what_both_have() -> None:
    words = shlex.split(making(train_record(1)).words)
    assert words == ["sparsebert", "compress", words[2], "--task", "sst2", "--seed", "1"]
    assert making(tree_record()).words.startswith("sparsebert compress")


def test_curves_of_removal_have_a_row_for_every_score(tmp_path: Path) -> None:
    curve_run(tmp_path / "curve", [0.8, 0.7, 0.4])
    (model,) = shown_models(Library([tmp_path]).look().runs)
    (chart,) = (one for one in model_charts(model).charts if one.kind == "curves")
    assert chart.more["splits"] == ["validation", "train"]
    found = [dict(zip(chart.columns, row, strict=True)) for row in chart.rows]
    assert [(row["removed"], row["whole sparsity"], row["score"]) for row in found if row["split"] == "validation"] == [
        (0.0, 0.0, 80.0),
        (0.1, 0.05, 70.0),
        (0.2, 0.1, 40.0),
    ]
    assert {row["what is removed"] for row in found} == {"single weights by |w|"}
    other = shown_models(Library([several(tmp_path / "others")]).look().runs)[0]
    assert "curves" not in [one.kind for one in model_charts(other).charts]

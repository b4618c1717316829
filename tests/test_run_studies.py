"""Studies of runs by their records: pretraining loss against scores, and how masks move."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy.stats import linregress

from example_record import example_record
from exploring import filmed
from sparsebert import study
from sparsebert.records import MASK_FILM, Inputs, Score, write_record
from sparsebert.studies.study import StudyOptions
from tiny_run import assert_refused, run_cli

LOSSES = (6.2, 5.9, 6.6, 6.0)
SCORES = (80.0, 84.0, 77.0, 82.0)


def digest(place: int) -> str:
    return str(place) * 64


def pretrained(home: Path, place: int, loss: float) -> Path:
    """The record of a pretraining run, and of its one model."""
    record = example_record()
    scores = tuple(
        Score(metric=metric, value=value, split="held_out_text", examples=10)
        for metric, value in (("masked_accuracy", 0.1), ("loss", loss))
    )
    model = record.models[0].model_copy(update={"scores": scores, "files": {"model.safetensors": digest(place)}})
    more = {"kind": "pretrain", "models": (model,), "main_metric": "masked_accuracy"}
    write_record(record.model_copy(update=more), home / f"encoder{place}")
    return home / f"encoder{place}"


def finetuned(home: Path, place: int, score: float, seed: int = 0, task: str = "mine") -> Path:
    """The record of a fine-tuning that began with that encoder."""
    record = example_record(seed)
    own = Score(metric=str(record.main_metric), value=score / 100, split="validation", examples=10)
    model = record.models[0].model_copy(update={"scores": (own,)})
    weights = {"model.safetensors": digest(place)}
    inputs = Inputs(model=weights, data={}, labels=("a", "b"), packages={}, threads=1, cpu="test")
    more = {"kind": "finetune", "task": task, "models": (model,), "inputs": inputs}
    folder = home / f"{task}-{place}-{seed}"
    write_record(record.model_copy(update=more), folder)
    return folder


def everything(home: Path) -> list[str]:
    runs = [pretrained(home, place, loss) for place, loss in enumerate(LOSSES)]
    runs += [finetuned(home, place, score) for place, score in enumerate(SCORES)]
    return [str(run) for run in runs]


def test_the_line_is_that_of_scipy_with_students_interval(tmp_path: Path) -> None:
    said = run_cli("study", "pretraining-loss", *everything(tmp_path), "--json")
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    (row,) = found["rows"]
    fit = linregress(LOSSES, SCORES)
    # Student's t with two degrees of freedom leaves 2.5 % above 4.302653.
    low, high = (fit.slope + side * 4.302653 * fit.stderr for side in (-1, 1))
    assert (row["task"], row["runs"], row["least"], row["largest"]) == ("mine", 4, 5.9, 6.6)
    assert [row[key] for key in ("slope", "low", "high")] == pytest.approx([fit.slope, low, high], rel=1e-5)
    assert row["correlation"] == pytest.approx(fit.rvalue)
    assert found["answer"].startswith("A nat less goes with +9.48 points (+4.03 to +14.9) on mine: ")
    assert found["answer"].endswith("known to be a gain on mine.")
    points, line = found["chart"]["panels"][0]["lines"]
    assert points["x"] == sorted(LOSSES) and points["y"] == [84.0, 82.0, 80.0, 77.0] and not points["joined"]
    assert line["reference"] and line["y"] == pytest.approx([fit.intercept + fit.slope * x for x in (5.9, 6.6)])


def test_seeds_are_points_of_their_own_and_tasks_have_lines_of_their_own(tmp_path: Path) -> None:
    runs = everything(tmp_path)
    runs += [str(finetuned(tmp_path, place, 50.0, task="level")) for place in range(4)]
    runs += [str(finetuned(tmp_path, 0, 79.0, seed=1)), str(finetuned(tmp_path, 0, 60.0, task="few"))]
    found = study("pretraining-loss", runs)
    assert [(row.heading, row.values[1]) for row in found.rows] == [("mine", 5), ("level", 4)]
    # A score that never changes is correlated with nothing.
    assert found.rows[1].values[-1] is None and found.rows[1].values[4] == pytest.approx(0)


def test_too_few_encoders_are_no_line(tmp_path: Path) -> None:
    runs = everything(tmp_path)
    said = run_cli("study", "pretraining-loss", *runs[:2], *runs[4:])
    assert_refused(said, ["2 of runs of pretrain, 2 models that began with one"])
    assert_refused(run_cli("study", "pretraining-loss", *runs[:2]), ["4 runs or more"])


def test_movement_is_read_from_the_film_of_each_run(tmp_path: Path) -> None:
    filmed(tmp_path / "one")
    found = study("mask-movement", [str(tmp_path / "one")], StudyOptions())
    (row,) = found.rows
    # Of 16 weights 4 went, then 4 more while 2 came back.
    assert row.heading == "one" and row.values[1:] == (3, 0.375, 0.5, 0.125, None, 6)
    assert "12.5% came back, and they move until the end." in found.answer
    assert [line.label for line in found.chart.panels[0].lines] == ["pruned", "went", "came back"]
    (tmp_path / "one" / MASK_FILM).unlink()
    assert_refused(run_cli("study", "mask-movement", tmp_path / "one"), ["keep a film of their masks; got one"])


def test_masks_that_stand_still_are_at_rest_from_their_last_move(tmp_path: Path) -> None:
    filmed(tmp_path / "one", still=(8, 10))
    (row,) = study("mask-movement", [str(tmp_path / "one")], StudyOptions()).rows
    assert row.values[1:] == (5, 0.375, 0.5, 0.125, 6, 10)

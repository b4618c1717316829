"""The verdict in words where chance has a part: collapse is no gain, and what chance explains is no difference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from example_record import example_record, train_record
from sparsebert.records import Decisions, Record, Score
from sparsebert.reports.families import families
from sparsebert.reports.rows import FamilyRow, family_rows
from sparsebert.reports.values import Value
from sparsebert.reports.verdict import score_words, sentences, speed_words


def row(**values: Any) -> FamilyRow:
    """The 4x model, 0.7 points of accuracy below its dense model's 91.3."""
    return replace(family_rows(families([example_record()]))[2], **values)


def scored(record: Record, name: str, value: float, classes: int = 2, **more: float) -> Record:
    """The record with another score of a model; of 40 true of each class, `classes` of them ever said."""
    score = {"metric": "accuracy", "value": value, "split": "validation", "examples": 80, **more}
    decided = Decisions(classes=("no", "yes"), confusion=((40, 0), (40 * (2 - classes), 40 * (classes - 1))))
    update = {"scores": (Score.model_validate(score),), "decisions": decided}
    models = tuple(m.model_copy(update=update) if m.name == name else m for m in record.models)
    return record.model_copy(update={"models": models})


def words(*records: Record, name: str = "4x") -> str:
    return dict(sentences(families(records)[0]))[name]


def test_a_model_that_says_always_the_same_has_gained_nothing():
    record = scored(scored(example_record(), "dense", 0.586), "4x", 0.643, 1, change_low=0.01, change_high=0.1)
    said = words(record)
    assert 'predicts one class, "no", for every example (accuracy 64.3%)' in said and "gained" not in said


def test_a_model_no_better_than_the_majority_has_gained_nothing():
    record = scored(
        scored(example_record(), "dense", 0.586),
        "4x",
        0.657,
        low=0.55,
        high=0.76,
        baseline=0.643,
        change_low=0.01,
        change_high=0.12,
    )
    said = words(record)
    assert "no better than always giving the majority class (accuracy 65.7%)" in said and "gained" not in said


def test_what_a_collapsed_model_lost_is_said_too():
    record = scored(example_record(), "4x", 0.5, low=0.4, high=0.6, baseline=0.5, change_low=-0.5, change_high=-0.3)
    assert "41.3 points of accuracy lost" in words(record)
    assert "no better than always giving the majority class (accuracy 50.0%)" in words(record)


def test_a_change_within_chance_is_no_difference():
    assert score_words(row()) == "0.7 points of accuracy lost"
    chance = row(change_points=Value(-0.68, -2.1, 0.4), within_chance_runs=1)
    assert score_words(chance) == "no difference in accuracy shown (−0.7 points, −2.1 to +0.4)"
    sure = row(change_points=Value(-2.1, -3.4, -0.8))
    assert score_words(sure) == "2.1 points of accuracy lost (−3.4 to −0.8)"
    same = row(change_points=Value(0.0, 0.0, 0.0), within_chance_runs=1)
    assert score_words(same) == "no accuracy lost"


@pytest.mark.parametrize(
    ("change", "within", "expected"),
    [
        (Value(-0.2, -1.0, 0.5, runs=3), 0, "no difference in accuracy shown (−0.2 points, −1.0 to +0.5)"),
        (Value(-0.9, -1.2, -0.5, runs=3), 2, "no difference in accuracy shown (−0.9 points, −1.2 to −0.5)"),
        (Value(-2.9, -3.2, -2.5, runs=3), 1, "2.9 points of accuracy lost (−3.2 to −2.5)"),
    ],
)
def test_of_several_runs_most_decide(change: Value, within: int, expected: str):
    assert score_words(row(change_points=change, within_chance_runs=within, runs=3, family_runs=3)) == expected


def test_runs_that_collapsed_are_counted():
    collapsed = [scored(example_record(seed), "4x", 0.5, 1) for seed in (0, 1)]
    said = words(*collapsed, example_record(2))
    assert 'predicts one class, "no", for every example in 2 of 3 runs' in said


def test_a_record_without_intervals_says_what_it_said():
    assert words(example_record()) == (
        "3.6× faster than dense on this machine, encoder 3.92×, 0.7 points of accuracy lost, 35% smaller file."
    )


def test_a_wide_range_of_speed_is_told_with_it():
    said = speed_words(row(model_speedup=None, encoder_speedup=Value(6.6, 3.9, 9.6)), "dense")
    assert said == "about 3.9–9.6× faster encoder than dense on this machine (too noisy to say)"
    less = speed_words(row(model_speedup=None, encoder_speedup=Value(6.6, 5.9, 7.6)), "dense")
    assert less == "6.6× faster encoder than dense on this machine (noisy: 5.90× to 7.60×)"
    several = speed_words(row(model_speedup=None, encoder_speedup=Value(6.6, 3.9, 7.6, runs=3)), "dense")
    assert several == "6.6× faster encoder than dense on this machine (3.90× to 7.60× over 3 runs)"


def test_the_whole_model_comes_before_the_encoder():
    said = speed_words(row(model_speedup=Value(3.0, 2.95, 3.1), encoder_speedup=Value(6.6, 3.9, 9.6)), "dense")
    assert said == "3.0× faster than dense on this machine, encoder about 3.9–9.6×"
    assert speed_words(row(model_speedup=None, encoder_speedup=None), "dense") == (
        "encoder speed against dense not measured"
    )


def test_what_is_missing_for_a_change_is_named():
    assert "change of accuracy not measured: no dense model was scored" in words(train_record(), name="sparse")

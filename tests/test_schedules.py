"""Schedules: hand-worked values, exact ends, and moments resolved once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.recipe.schema import When
from sparsebert.sparse.schedules import Times, moment, moments, schedule_of, window

TIMES = Times(total=200, per_epoch=50)
CURVES = ("linear", "cubic", "sigmoid", "cosine", "exponential")
# From 0 at step 100 to 0.8 at step 200; a quarter, a half and three quarters of the way.
BY_HAND = {
    "linear": (0.2, 0.4, 0.6),
    "cubic": (0.8 * (1 - 27 / 64), 0.8 * (1 - 1 / 8), 0.8 * (1 - 1 / 64)),
    "sigmoid": (0.0362, 0.4, 0.7638),
    "cosine": (0.4 * (1 - 2**-0.5), 0.4, 0.4 * (1 + 2**-0.5)),
    "exponential": (1 - 0.2**0.25, 1 - 0.2**0.5, 1 - 0.2**0.75),
}


def made(kind: str, **values):
    return registry.make("schedule", kind, {"initial": 0.0, "final": 0.8, "start": 100, "stop": 200, **values})


@pytest.mark.parametrize("kind", CURVES)
def test_values_by_hand(kind: str):
    schedule = made(kind)
    assert [schedule(step) for step in (125, 150, 175)] == pytest.approx(BY_HAND[kind], abs=1e-4)


@pytest.mark.parametrize("kind", [*CURVES, "one_shot"])
def test_ends_are_exact(kind: str):
    schedule = made(kind, initial=0.1, final=0.7)
    assert (schedule(0), schedule(99), schedule(200), schedule(10**6)) == (0.1, 0.1, 0.7, 0.7)


@pytest.mark.parametrize("kind", CURVES)
def test_a_window_without_length_is_a_jump(kind: str):
    schedule = made(kind, start=5, stop=5)
    assert [schedule(step) for step in (4, 5, 6)] == [0, 0.8, 0.8]


def test_constant_from_the_start_and_one_shot():
    assert registry.make("schedule", "constant", {"value": 0.3})(0) == 0.3
    assert [made("one_shot")(step) for step in (99, 100)] == [0.0, 0.8]


@given(st.sampled_from(CURVES), st.integers(0, 299), st.floats(0, 0.9), st.floats(0, 0.9))
def test_never_backwards(kind: str, step: int, one: float, other: float):
    schedule = made(kind, initial=min(one, other), final=max(one, other))
    assert schedule(step) <= schedule(step + 1) + 1e-12


def test_the_cases_cover_every_schedule():
    assert set(registry.names("schedule")) == {*CURVES, "constant", "one_shot"} and len(registry.names("schedule")) == 7


def test_moments_in_steps_epochs_and_percent():
    assert [moment(spec, TIMES) for spec in ({"steps": 7}, {"epochs": 1.5}, {"percent": 25})] == [7, 75, 50]
    assert When(percent=100).in_steps(201, 1) == 201


def test_a_window_may_end_with_the_training():
    assert window(When(percent=50), When(epochs=4), TIMES) == (100, 200)
    assert window(When(percent=50), When(steps=200), Times(200, None)) == (100, 200)


def test_masks_change_at_the_start_every_few_steps_and_at_the_stop():
    due = moments(10, 21, 5)
    assert [step for step in range(40) if due(step)] == [10, 15, 20, 21]


def test_a_number_or_a_mapping():
    assert schedule_of(2.5, TIMES)(0) == 2.5
    ramp = schedule_of({"kind": "linear", "initial": 0, "final": 1, "stop": {"percent": 50}}, TIMES)
    assert [ramp(step) for step in (0, 50, 100, 150)] == [0, 0.5, 1, 1]


BAD = {
    "backwards": (lambda: made("cubic", start=5, stop=4), "stops before it starts"),
    "window": (lambda: window(When(steps=5), When(steps=4), TIMES), "stops before it starts; got start 5, stop 4"),
    "start after the end": (lambda: window(When(steps=201), When(steps=300), TIMES), "after the training ends"),
    "stop after the end": (lambda: window(When(steps=0), When(epochs=4.1), TIMES), "stop 205 .* allowed: at most 200"),
    "no epochs": (lambda: moment({"epochs": 2}, Times(200, None)), "has no epochs; got 2 epochs; give steps"),
    "two units": (lambda: moment({"steps": 1, "epochs": 1}, TIMES), "exactly one of steps, epochs and percent"),
    "kind": (lambda: schedule_of({"kind": "cubik"}, TIMES), "Did you mean 'cubic'"),
    "past the end": (
        lambda: schedule_of({"kind": "linear", "initial": 0, "final": 1, "stop": {"steps": 201}}, TIMES),
        r"after the training ends; got start 0, stop 201 \(steps\); allowed: at most 200",
    ),
    "no moment": (lambda: schedule_of({"kind": "linear", "initial": 0, "final": 1, "stop": 20}, TIMES), "no moment"),
    "no number": (lambda: schedule_of("high", TIMES), "neither a number nor a schedule; got high"),
    "key": (lambda: schedule_of({"kind": "linear", "initial": 0, "final": 1, "end": 3}, TIMES), "end"),
    "exponential to 1": (lambda: made("exponential", final=1.0), "below 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_refused(name: str):
    make, words = BAD[name]
    with pytest.raises(UserError, match=words):
        make()

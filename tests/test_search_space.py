"""What may be searched: ranges and choices, from files and from the command line, checked before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsebert.errors import UserError
from sparsebert.recipe.load import load_recipe, with_values
from sparsebert.recipe.space import (
    Choices,
    ValueRange,
    check_space,
    own_values,
    read_space,
    shipped_spaces,
    value_at,
)
from sparsebert.runs.optuna_study import distributions, label, plain_values

FINETUNE = load_recipe(None, kind="finetune")

READ = {
    "training.learning_rate=1e-5:1e-3:log": ValueRange(low=1e-5, high=1e-3, log=True),
    "training.max_steps=100:5000": ValueRange(low=100, high=5000),
    "training.dropout=0:0.5:0.1": ValueRange(low=0, high=0.5, step=0.1),
    "training.warmup=0.0,0.1": Choices(choices=(0.0, 0.1)),
    "training.lr_schedule=linear,cosine": Choices(choices=("linear", "cosine")),
    "columns=own.module:one,other.module:two": Choices(choices=("own.module:one", "other.module:two")),
    "training.dropout=null,0.1": Choices(choices=(None, 0.1)),
    "training.evaluate={every: {steps: 5}},null": Choices(choices=({"every": {"steps": 5}}, None)),
}


@pytest.mark.parametrize("text", READ)
def test_what_is_typed(text: str):
    [(key, part)] = read_space([text]).items()
    assert key == text.partition("=")[0] and part == READ[text]
    if key != "columns":
        check_space(FINETUNE, {key: part})


def test_whole_numbers_are_those_without_a_point():
    assert read_space(["a=1:5"])["a"].whole and not read_space(["a=1.0:5"])["a"].whole


def test_a_file_and_what_is_typed_over_it(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "training.learning_rate: {low: 1e-5, high: 1e-3, log: true}\ntraining.warmup: {choices: [0, 0.1]}\n"
    )
    space = read_space(["training.warmup=0.0:0.3", str(file)])
    assert space["training.learning_rate"] == ValueRange(low=1e-5, high=1e-3, log=True)
    assert space["training.warmup"] == ValueRange(low=0.0, high=0.3)


def test_the_spaces_that_ship_fit_a_fine_tuning():
    assert shipped_spaces() == ["numenta-big", "numenta-small"]
    for name in shipped_spaces():
        check_space(FINETUNE, read_space([name]))
    small = read_space(["numenta-small"])
    assert small["training.learning_rate"] == ValueRange(low=1e-5, high=1e-2, log=True)
    assert small["training.max_steps"].whole


BAD = {
    "a=3:3": "the range 3 to 3 is empty",
    "a=5:1": "its low end must be below its high end",
    "a=0:1:log": "must lie above 0, got 0",
    "a=1:2:5": "the step must be above 0 and fit into the range",
    "a=1:y": "a: high: ",
    "a=1:true": "a range is of numbers",
    "a=x:y": "at least 2 items",
    "a=1": "at least 2 items",
    "a=1,1": "two choices are the same",
    "a=": "allowed: KEY=LOW:HIGH",
    "numenta": "Did you mean 'numenta-",
    "gone.yaml": "The search space is not to be found",
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_space(text: str):
    with pytest.raises(UserError) as error:
        read_space([text])
    assert BAD[text] in str(error.value)


BAD_FILES = {
    "- 1\n": "a mapping of keys",
    "a: 3\n": "a needs `low` and `high`, or `choices`",
    "a: {low: 1, high: 2, stepp: 1}\n": "Did you mean 'step'?",
    "a: {low: 1}\n": "a: high: Field required",
    "a: [\n": "is not readable",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_what_is_no_file_of_a_space(text: str, tmp_path: Path):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        read_space([str(tmp_path / "bad.yaml")])
    assert BAD_FILES[text] in str(error.value)


def test_nothing_and_the_same_key_twice():
    with pytest.raises(UserError, match="needs something to search"):
        read_space([])
    with pytest.raises(UserError, match="of the same key"):
        read_space(["a=1:2", "a=1:3"])


REFUSED = {
    "training.learning_rat=1e-5:1e-3": "Did you mean 'learning_rate'?",
    "training.learning_rate=0.0:0.1": "greater than 0, got 0",
    "training.warmup=0.0:1.0": "training.warmup: Input should be less than 1",
    "training.lr_schedule=linear,cosin": "got cosin",
    "phases.0.rules.0.sparsity=0.1:0.5": "Unknown recipe key 'phases'",
    "seed=0:5": "decides what trials are scored on",
    "columns.text=a,b": "decides what trials are scored on",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_the_recipe_refuses_at_either_end(text: str):
    with pytest.raises(UserError) as error:
        check_space(FINETUNE, read_space([text]))
    assert REFUSED[text] in str(error.value)


def test_parts_of_rules_can_be_searched():
    recipe = load_recipe("magnitude-cubic")
    space = read_space(["phases.0.rules.0.sparsity=0.5:0.9", "phases.0.rules.0.schedule=cubic,{kind: sigmoid}"])
    check_space(recipe, space)
    made = with_values(recipe, {"phases.0.rules.0.schedule": {"kind": "sigmoid"}, "phases.0.rules.0.sparsity": 0.7})
    assert value_at(made, "phases.0.rules.0.schedule.kind") == "sigmoid"
    assert value_at(made, "phases.0.rules.0.sparsity") == 0.7 and value_at(made, "phases.9.name") is None


def test_the_recipes_own_values_in_the_space_or_not():
    inside = read_space(["training.learning_rate=1e-5:1e-3:log", "training.batch_size=16,32"])
    assert own_values(FINETUNE, inside) == {"training.learning_rate": 5e-5, "training.batch_size": 32}
    assert own_values(FINETUNE, read_space(["training.learning_rate=1e-4:1e-3"])) is None
    assert own_values(FINETUNE, read_space(["training.batch_size=8:64:16"])) is None
    assert own_values(FINETUNE, read_space(["training.epochs=1.0:5"])) is None


@given(st.integers(-50, 50), st.integers(1, 60), st.integers(1, 7))
def test_a_range_holds_what_optuna_draws_of_it(low: int, width: int, step: int):
    part = ValueRange(low=low, high=low + width, step=min(step, width))
    drawn = distributions({"a": part})["a"]
    values = range(low, low + width + 1, min(step, width))
    assert (drawn.low, drawn.high) == (values[0], values[-1])  # pyright: ignore[reportAttributeAccessIssue]
    assert [one for one in range(low - 2, low + width + 3) if part.holds(one)] == list(values)


def test_choices_go_through_optuna_and_back():
    space = {"a": Choices(choices=(True, 1, None, {"kind": "l1"}))}
    for choice in space["a"].choices:
        back = plain_values(space, {"a": label(choice)})["a"]
        assert back == choice and type(back) is type(choice)

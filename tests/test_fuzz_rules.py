"""Rules with parts and options of all kinds: each can be carried out, or is refused in one line before training."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from fuzz import assert_short, fuzzed
from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.recipe.load import load_recipe, parse_recipe
from sparsebert.recipe.schema import Component, Rule
from sparsebert.runs.context import RunContext, set_up
from sparsebert.runs.train import check_phases
from tiny_run import save_tiny, write_task

ANY = Component(kind="any")
KINDS = [kind for kind, _ in Rule(gate=ANY, penalty=ANY).components()]
MOMENTS = st.fixed_dictionaries({}, optional={unit: st.integers(-1, 120) for unit in ("steps", "epochs", "percent")})
VALUES = (
    st.sampled_from(
        [0, 1, -1, 2, 4, 0.5, 1.5, 1e-9, 10**11, "1e-2", "x", True, None, [], [4, 4], {}, {"kind": "cubic"}]
    )
    | st.integers(-9, 70)
    | st.floats(allow_nan=False, width=16)
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    """Model and data, with a folder that nothing must be written to."""
    folder = tmp_path_factory.mktemp("rules")
    given_ = {
        "model": str(save_tiny(folder / "model", "base")),
        "task": "mine",
        "data": str(write_task(folder / "data")),
    }
    return set_up(load_recipe(None, **given_), folder / "out")


@st.composite
def parts(draw: Callable[..., Any], kind: str) -> Any:
    """The name of a part, or one with some of its options, and now and then one that it does not have."""
    name = draw(st.sampled_from(registry.names(kind)))
    names = [*sorted(inspect.signature(registry.get(kind, name)).parameters), "other"]
    options = draw(st.dictionaries(st.sampled_from(names), VALUES | MOMENTS, max_size=2))
    return draw(st.sampled_from([name, {**options, "kind": name}]))


RULES = st.fixed_dictionaries(
    {"sparsity": st.sampled_from([0, 0.3, 0.5, 0.9, 0.999])},
    optional={
        **{kind: parts(kind) for kind in KINDS},
        "scope": st.sampled_from([["attention"], ["ffn"], ["all"], ["embeddings"], ["*query*"], ["x"]]),
        "initial": st.sampled_from([0, 0.2, 0.99]),
        "start": MOMENTS,
        "stop": MOMENTS,
        "every": MOMENTS,
    },
)


@fuzzed
@given(phases=st.lists(st.lists(RULES, max_size=2), min_size=1, max_size=2))
def test_rules_of_all_kinds(phases: list[Any], bench: RunContext) -> None:
    named = [
        {"name": f"phase {number}", "rules": rules, "training": {"max_steps": 20}}
        for number, rules in enumerate(phases)
    ]
    try:
        recipe = parse_recipe(bench.recipe.plain() | {"phases": named})
        check_phases(replace(bench, recipe=recipe))
        event("can be carried out")
    except UserError as error:
        assert_short(error)
        event("refused")
    assert not Path(bench.folder).exists()

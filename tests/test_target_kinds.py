"""Target kinds: values by hand, of a dense model of three layers of 42 and 30 outside them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from example_record import example_record
from sparsebert import registry
from sparsebert.pruning.target_kinds import CountedTarget, DenseCost, TimedTarget, weakest_first
from sparsebert.recipe.compress import CompressRecipe
from sparsebert.recipe.schema import Measure, Target
from sparsebert.records import read_record, write_record
from sparsebert.reports import families, family_table

DENSE = DenseCost(layers=126.0, fixed=30.0)
# kind: value, budget, what a model of cost 72 reaches (42 in its layers), words.
BY_HAND = {
    "speedup": (3.0, 72.0, 3.0, "3× faster"),
    "latency_ms": (72.0, 72.0, 72.0, "72 ms"),
    "size": (0.5, 78.0, 72 / 156, "50% of bytes"),
    "sparsity": (0.75, 31.5, 1 - 42 / 126, "75% sparse"),
}


@pytest.mark.parametrize("name", registry.names("target"))
def test_budgets_and_values_by_hand(name: str):
    kind = registry.get("target", name)
    value, budget, reached, words = BY_HAND[name]
    assert kind.budget(value, DENSE) == pytest.approx(budget)
    assert kind.value_at(72.0, DENSE) == pytest.approx(reached)
    assert kind.text(value) == words and kind.long_text(value).startswith(words)
    assert kind.reached(2.0, 4.0) == (2.0 if kind.falling else 0.5)
    assert isinstance(kind, TimedTarget) != isinstance(kind, CountedTarget)


def test_corrections_by_hand():
    speedup, latency = registry.get("target", "speedup"), registry.get("target", "latency_ms")
    # Half of the speedup asked for: half of what the layers may cost.
    assert speedup.corrected(72.0, 30.0, 0.5) == pytest.approx(51.0)
    assert latency.corrected(72.0, 30.0, 1.25) == pytest.approx(57.6)
    assert (speedup.measured(2.0, 9.0), latency.measured(2.0, 9.0)) == (2.0, 9.0)


def test_the_weakest_of_each_kind_is_first_in_the_places_of_its_kind():
    asked = [("speedup", 4), ("size", 0.3), ("speedup", 2), ("size", 0.6), ("latency_ms", 5), ("latency_ms", 9)]
    ordered = weakest_first([Target(kind=kind, value=value) for kind, value in asked])
    assert [(one.kind, one.value) for one in ordered] == [
        ("speedup", 2),
        ("size", 0.6),
        ("speedup", 4),
        ("size", 0.3),
        ("latency_ms", 9),
        ("latency_ms", 5),
    ]


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("speed", 2.0, "Unknown target 'speed'; allowed: speedup, latency_ms, size, sparsity; Did you mean 'speedup'?"),
        ("speedup", 1.0, "target speedup must lie between 1 and 1000, got 1"),
        ("size", 1.5, "target size must lie between 0 and 1, got 1.5"),
        ("json:dumps", 2.0, "The target 'json:dumps' is of another kind; got function; allowed: an instance of "),
    ],
)
def test_what_cannot_be_a_target(kind: str, value: float, words: str):
    with pytest.raises(ValidationError, match=re.escape(words)):
        Target(kind=kind, value=value)


OWN = """
from sparsebert.pruning.target_kinds import SizeTarget

class Cut(SizeTarget):
    suffix, falling = "-cut", False

CUT = Cut()
{more}
"""


def test_one_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_targets.py").write_text(OWN.format(more=""), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    target = Target(kind="my_targets:CUT", value=0.5)
    assert target.label == "0.5-cut" and target.rules.budget(0.5, DENSE) == 78.0
    assert [one.value for one in weakest_first([target, Target(kind="my_targets:CUT", value=0.3)])] == [0.3, 0.5]
    del sys.modules["my_targets"]


def test_reading_a_record_imports_nothing_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    record = example_record()
    model = record.models[1].model_copy(update={"target_kind": "my_targets:CUT", "target_value": 0.5})
    recipe = record.recipe | {"targets": [{"kind": "my_targets:CUT", "value": 0.5}]}
    write_record(record.model_copy(update={"models": (record.models[0], model), "recipe": recipe}), tmp_path)
    (tmp_path / "my_targets.py").write_text(OWN.format(more="raise SystemExit('imported')"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    table = family_table(families([read_record(tmp_path)]))
    assert table.sections[0].rows[1][0].small.startswith("my_targets:CUT 0.5")
    assert "my_targets" not in sys.modules


def test_they_are_read_without_torch():
    code = (
        "import sys; from sparsebert.recipe.schema import Target; Target(kind='size', value=0.5).label; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_recipe_names_the_runtime_of_its_targets():
    assert CompressRecipe().measure.runtime == "eager"
    assert Measure(runtime="onnx").runtime == "onnx"
    with pytest.raises(ValidationError, match=r"Unknown runtime 'onx'; allowed: eager, .*Did you mean 'onnx'"):
        Measure(runtime="onx")

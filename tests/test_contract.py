"""Every registered component, on a whole model and on one with blocks that have lost all their units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.models.layout import layout_of, scope_names
from sparsebert.models.surgeon import shrink
from sparsebert.pruning.calibration import calibrate
from sparsebert.pruning.target_kinds import CountedTarget, DenseCost, TimedTarget, weakest_first
from sparsebert.recipe.schema import Rule, Target, Training
from sparsebert.sparse.schedules import Times
from sparsebert.sparse.scope import select
from sparsebert.sparse.sparsifier import Sparsifier
from sparsebert.training.finetune import fine_tune
from tiny import FAMILIES, HEADS, LAYERS, NEURONS, tiny_batch, tiny_model
from toy import toy_collate, toy_rows

STEPS = 6
KINDS = ("criterion", "structure", "budget", "schedule", "update", "gate", "penalty")
COMPONENTS = [(kind, name) for kind in KINDS for name in registry.names(kind)]
OPTIONS: dict[str, dict[str, Any]] = {
    "n:m": {"n": 2, "m": 4},
    "block": {"rows": 4, "cols": 8},
    "fisher": {"block": 8, "gradients": 2},
}
HEADS_ONLY = {"scope": ["attention"], "structure": "head"}
# What a component needs besides itself.
BESIDES: dict[str, dict[str, Any]] = {
    "mean_activation": HEADS_ONLY,
    "loss_increase": HEADS_ONLY,
    "fisher": {"every": {"steps": 3}},
    "head": HEADS_ONLY,
    "neuron": {"scope": ["ffn"]},
    "layer": {"sparsity": 0.34},
    "soft_movement": {"penalty": "l0"},
    "hard_concrete": {"penalty": "lagrangian"},
    "l0": {"gate": "soft_movement"},
    "lagrangian": {"gate": "hard_concrete"},
}
# These gates and deletion meet no target, or hold none.
OFF_TARGET = {"soft_movement", "hard_concrete", "l0", "lagrangian", "delete"}


def rule_of(kind: str, name: str) -> Rule:
    plain = {"sparsity": 0.5, "every": {"steps": 1}, "start": {"steps": 1}, "stop": {"steps": 4}}
    return Rule.model_validate(plain | BESIDES.get(name, {}) | {kind: {"kind": name, **OPTIONS.get(name, {})}})


def emptied(family: str = "bert") -> PreTrainedModel:
    """A model whose first layer has no heads, and whose second has no neurons."""
    none = {"layer.0.heads": torch.zeros(HEADS, dtype=torch.bool), "layer.1.neurons": torch.zeros(NEURONS) > 0}
    return shrink(tiny_model(family, num_labels=2), none)


def train(model: PreTrainedModel, rule: Rule) -> dict[str, torch.Tensor]:
    """The masks that hold after a few steps."""
    names = [name for name, _ in model.named_parameters()]
    batch = tiny_batch() | {"labels": torch.tensor([0, 1, 0])}

    def loss() -> float:
        with torch.no_grad():
            return float(model(**batch).loss)

    sparsifier = Sparsifier(model, [rule], scope_names(model), layout_of(model).groups, loss=loss)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    sparsifier.begin(Times(total=STEPS, per_epoch=2))
    for step in range(STEPS):
        optimizer.zero_grad()
        penalty = sparsifier.penalty(step)
        (model(**batch).loss + (0.0 if penalty is None else penalty)).backward()
        sparsifier.before_step(step, optimizer)
        optimizer.step()
        sparsifier.after_step()
        sparsifier.check()
    sparsifier.finish(STEPS)
    masks = sparsifier.bake()
    assert [name for name, _ in model.named_parameters()] == names
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
    assert all(not bool(model.get_parameter(name)[~mask].count_nonzero()) for name, mask in masks.items())
    return masks


def sparsity(masks: dict[str, torch.Tensor]) -> float:
    matrices = [mask for mask in masks.values() if mask.dim() == 2]
    return 1 - sum(int(mask.sum()) for mask in matrices) / sum(mask.numel() for mask in matrices)


@pytest.mark.parametrize("make", [lambda: tiny_model("bert", num_labels=2), emptied], ids=["whole", "emptied"])
@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_a_rule_with_it_trains(kind: str, name: str, make: Any):
    model, rule = make(), rule_of(kind, name)
    masks = train(model, rule)
    assert all(mask.numel() for mask in masks.values())
    # The target of layers is a number of layers, and those of an emptied model are of different sizes.
    if name not in OFF_TARGET and (name, make) != ("layer", emptied):
        assert sparsity(masks) == pytest.approx(rule.sparsity, abs=0.03)


def test_every_component_was_tried():
    tried = {kind: sum(one == kind for one, _ in COMPONENTS) for kind in KINDS}
    assert tried == {
        "criterion": 9,
        "structure": 6,
        "budget": 3,
        "schedule": 7,
        "update": 5,
        "gate": 5,
        "penalty": 4,
    }


@pytest.mark.parametrize("family", registry.names("family"))
def test_an_emptied_model_of_every_family_trains(family: str, tmp_path: Path):
    model = emptied(family)
    rule, training = rule_of("criterion", "magnitude"), Training(max_steps=STEPS, batch_size=8)
    outcome = fine_tune(model, toy_rows(16), toy_collate, training, tmp_path, 0, "test", rules=[rule])
    assert sparsity(outcome.masks) == pytest.approx(0.5, abs=0.01)
    assert outcome.run.steps == STEPS and not any("layer.0.attention" in name for name in outcome.run.left_dense)


def test_every_family_was_tried():
    assert list(FAMILIES) == registry.names("family")


@pytest.mark.parametrize("name", registry.names("unit_criterion"))
def test_units_of_an_emptied_model_are_ranked(name: str):
    model = emptied()
    found = calibrate(model, model, toy_rows(16), toy_collate, name, 16, 8, seed=0)
    groups = ["layer.0.neurons", "layer.1.heads", "layer.2.heads", "layer.2.neurons"]
    assert list(found.candidates) == groups
    assert all(
        0 in candidates and torch.isfinite(candidates[0].bias_shift).all() for candidates in found.candidates.values()
    )


def test_every_unit_criterion_was_tried():
    assert len(registry.names("unit_criterion")) == 6


# A weaker and a stronger value of each target kind.
TARGETS = {"speedup": (2, 4), "latency_ms": (100, 40), "size": (0.8, 0.3), "sparsity": (0.3, 0.8)}


@pytest.mark.parametrize("name", registry.names("target"))
def test_a_target_kind_reaches_what_its_budget_allows_and_asks_for_less_with_more(name: str):
    kind, fixed = registry.get("target", name), 0.0 if name == "sparsity" else 30.0
    dense, (weak, strong) = DenseCost(126.0, fixed), (Target(kind=name, value=value) for value in TARGETS[name])
    assert weakest_first([strong, weak]) == (weak, strong)
    assert kind.budget(strong.value, dense) < kind.budget(weak.value, dense) < 156.0
    for target in (weak, strong):
        assert target.label == f"{target.value:g}{kind.suffix}"
        assert kind.value_at(kind.budget(target.value, dense), dense) == pytest.approx(target.value)
        assert kind.reached(target.value, target.value) == pytest.approx(1)
    assert isinstance(kind, TimedTarget) != isinstance(kind, CountedTarget)
    assert not isinstance(kind, TimedTarget) or kind.corrected(90.0, 30.0, 1.0) == 90.0


def test_every_target_kind_was_tried():
    assert list(TARGETS) == registry.names("target")


def test_a_scope_of_empty_blocks_alone_says_so():
    heads = torch.zeros(HEADS, dtype=torch.bool)
    model = shrink(tiny_model("bert", num_labels=2), {f"layer.{index}.heads": heads for index in range(LAYERS)})
    with pytest.raises(UserError, match=r"'attention' matches only weights without entries; got bert\.encoder"):
        train(model, Rule(scope=("attention",), sparsity=0.5))
    with pytest.raises(UserError, match=r"The scope 'q\*' matches only weights without entries; got query"):
        select(["q*"], {}, {"query": (0, 8), "key": (8, 8)}, [])
    assert list(select(["q*", "key"], {}, {"query": (0, 8), "qkv": (8, 8), "key": (8, 8)}, []).matrices) == [
        "qkv",
        "key",
    ]

"""What a Sparsifier does around optimiser steps that nothing else shows: rewinding, overflow, the last moment."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.models.layout import layout_of, scope_names
from sparsebert.recipe.schema import Rule
from sparsebert.sparse.schedules import Times
from sparsebert.sparse.sparsifier import Sparsifier
from tiny import tiny_batch, tiny_model

QUERY, KEY = (f"bert.encoder.layer.0.attention.self.{name}.weight" for name in ("query", "key"))
END = {"percent": 100}


def rule(**values: Any) -> Rule:
    window = {"every": {"steps": 1}, "start": {"steps": 0}, "stop": {"steps": 2}}
    return Rule.model_validate({"sparsity": 0.5, "scope": [QUERY], **window, **values})


def ready(model: PreTrainedModel, *rules: Rule, total: int = 10) -> Sparsifier:
    sparsifier = Sparsifier(model, rules, scope_names(model), layout_of(model).groups)
    sparsifier.begin(Times(total=total, per_epoch=4))
    return sparsifier


def step(model: PreTrainedModel, sparsifier: Sparsifier, optimizer: torch.optim.Optimizer, number: int) -> None:
    optimizer.zero_grad()
    model(**tiny_batch(number), labels=torch.tensor([0, 1, 0])).loss.backward()
    sparsifier.before_step(number, optimizer)
    optimizer.step()
    sparsifier.after_step()


def values_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_all_weights_go_back_and_what_is_pruned_is_chosen_by_what_was_learnt():
    model = tiny_model("bert", num_labels=2)
    often = {"update": "rewind", "schedule": "one_shot", "start": {"steps": 3}, "stop": {"steps": 3}}
    sparsifier = ready(model, rule(**often), rule(**often, scope=[KEY]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5, weight_decay=0.1)
    first = values_of(model)
    for number in range(3):
        step(model, sparsifier, optimizer, number)
    learnt = values_of(model)
    step(model, sparsifier, optimizer, 3)
    masks = sparsifier.masks
    for name in (QUERY, KEY):
        gone = learnt[name][~masks[name]].abs().max()
        assert gone <= learnt[name][masks[name]].abs().min() and int(masks[name].sum()) == 512
    for name, value in values_of(model).items():
        assert torch.equal(value, first[name] * masks[name] if name in masks else first[name]), name
        assert not torch.equal(learnt[name], first[name])
    # Adam without a memory: the first step that moves anything is of the size that a second step has.
    step(model, sparsifier, optimizer, 4)
    assert all(int(state["step"]) <= 2 for state in optimizer.state.values())
    assert not torch.equal(model.get_parameter("classifier.weight"), first["classifier.weight"])


@pytest.mark.parametrize("criterion", ["gradient", "taylor", "fisher"])
def test_a_change_after_the_last_step_reads_the_last_gradients(criterion: str):
    model = tiny_model("bert", num_labels=2)
    options = {"fisher": {"kind": "fisher", "block": 8, "gradients": 2}}
    late = rule(criterion=options.get(criterion, criterion), schedule="one_shot", start=END, stop=END)
    sparsifier = ready(model, late, total=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for number in range(3):
        step(model, sparsifier, optimizer, number)
    grad = model.get_parameter(QUERY).grad
    assert grad is not None
    last = grad.abs().clone()
    optimizer.zero_grad()
    sparsifier.finish(3)
    mask = sparsifier.masks[QUERY]
    assert int(mask.sum()) == 512 and 0.3 < float(mask[:16].float().mean()) < 0.7
    if criterion == "gradient":
        assert last[~mask].max() <= last[mask].min()


def test_nothing_is_swapped_after_the_last_step():
    model = tiny_model("bert", num_labels=2)
    swap = {"kind": "swap", "grow": "gradient", "fraction": 0.5}
    sparsifier = ready(model, rule(update=swap, schedule="constant", stop=END), total=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for number in range(3):
        step(model, sparsifier, optimizer, number)
    before = sparsifier.masks[QUERY].clone()
    optimizer.zero_grad()
    sparsifier.finish(3)
    assert torch.equal(sparsifier.masks[QUERY], before)
    assert int(model.get_parameter(QUERY).count_nonzero()) == 512


def test_masks_that_change_before_any_gradient_was_seen_are_refused():
    model = tiny_model("bert", num_labels=2)
    sparsifier = ready(model, rule(criterion="gradient", schedule="one_shot"))
    with pytest.raises(UserError, match=r"before any gradient of .*query\.weight was seen; got step 0"):
        sparsifier.before_step(0, None)
    model.get_parameter(QUERY).requires_grad_(False)
    with pytest.raises(UserError, match=r"has none of frozen weights; got .*query\.weight"):
        ready(model, rule(criterion="movement"))


@pytest.mark.parametrize("criterion", ["movement", "gradient", "fisher"])
def test_a_step_that_overflows_is_not_looked_at_and_its_change_of_masks_is_made_later(criterion: str):
    model = tiny_model("bert", num_labels=2)
    sparsifier = ready(model, rule(criterion=criterion, schedule="one_shot", stop={"steps": 0}))
    model(**tiny_batch(), labels=torch.tensor([0, 1, 0])).loss.backward()
    grad = model.get_parameter(QUERY).grad
    assert grad is not None
    good = grad.clone()
    grad[0, 0] = torch.inf
    sparsifier.before_step(0, None)
    sparsifier.after_step()
    assert all(bool(torch.isfinite(value).all()) for value in sparsifier.state_dict().values())
    assert bool(sparsifier.masks[QUERY].all())
    resumed = ready(model, *sparsifier.rules)
    resumed.load_state_dict(sparsifier.state_dict(), sparsifier.made_with)
    grad.copy_(good)
    resumed.before_step(1, None)
    assert int(resumed.masks[QUERY].sum()) == 512


def test_nothing_is_learnt_of_what_earlier_masks_removed():
    model = tiny_model("bert", num_labels=2)
    mask = torch.arange(1024).view(32, 32) % 2 == 0
    sparsifier = Sparsifier(model, [], scope_names(model), layout_of(model).groups, held={QUERY: mask})
    sparsifier.begin(Times(total=10, per_epoch=4))
    optimizer = torch.optim.Adam(model.parameters())
    step(model, sparsifier, optimizer, 0)
    moved = optimizer.state[model.get_parameter(QUERY)]["exp_avg"]
    assert not bool(moved[~mask].any()) and bool(moved[mask].all())


def test_gradients_from_before_a_change_of_masks_do_not_count_after_it():
    model = tiny_model("bert", num_labels=2)
    change = {"start": {"steps": 2}, "stop": {"steps": 4}, "every": {"steps": 2}}
    averaged = {"criterion": {"kind": "gradient", "window": 3}, "schedule": "one_shot"}
    sparsifier = ready(model, rule(**averaged, **change))

    def seen() -> bool:
        state = sparsifier.state_dict()
        return any(bool(value.any()) for key, value in state.items() if key.startswith("rule0/criterion/"))

    found = []
    for number in range(4):
        step(model, sparsifier, torch.optim.SGD(model.parameters(), lr=1e-3), number)
        found.append(seen())
    assert found == [True, True, False, True]


def test_windows_end_at_every_moment_also_where_nothing_is_removed():
    model = tiny_model("bert", num_labels=2)
    bird = {"update": {"kind": "early_bird", "window": 50}, "criterion": {"kind": "gradient", "window": 1}}
    sparsifier = ready(model, rule(**bird, stop={"steps": 8}))
    for number in range(3):
        step(model, sparsifier, torch.optim.SGD(model.parameters(), lr=1e-3), number)
        state = sparsifier.state_dict()
        sums = [value for key, value in state.items() if key.startswith("rule0/criterion/")]
        assert sums and not any(bool(value.any()) for value in sums)


def test_momentum_of_what_is_pruned_is_cleared():
    model = tiny_model("bert", num_labels=2)
    sparsifier = ready(model, rule(schedule="one_shot", start={"steps": 2}))
    optimizer = torch.optim.AdamW(model.parameters())
    for number in range(4):
        step(model, sparsifier, optimizer, number)
    mask, state = sparsifier.masks[QUERY], optimizer.state[model.get_parameter(QUERY)]
    assert not bool(state["exp_avg"][~mask].any()) and not bool(state["exp_avg_sq"][~mask].any())
    assert bool(state["exp_avg"][mask].any())


RISING = {"kind": "linear", "initial": 0.0, "final": 8.0, "stop": {"steps": 4}}


@pytest.mark.parametrize("gate", [None, "hard_concrete"])
def test_the_weight_of_a_penalty_follows_its_schedule(gate: str | None):
    def values(weight: object) -> list[float]:
        penalty = {"kind": "l0" if gate else "l1", "weight": weight}
        sparsifier = ready(tiny_model("bert", num_labels=2), rule(gate=gate, penalty=penalty))
        return [float(value.detach()) for number in range(6) if (value := sparsifier.penalty(number)) is not None]

    one = values(1.0)
    assert min(one) > 0.1 and values(RISING) == pytest.approx(
        [0, *(w * v for w, v in zip((2, 4, 6, 8, 8), one[1:], strict=True))]
    )
    weight = tiny_model("bert", num_labels=2).get_parameter(QUERY).detach()
    assert gate or one == pytest.approx([float(weight.abs().sum())] * 6)


PATTERN = {"structure": {"kind": "n:m", "n": 1, "m": 4}, "sparsity": 0.75}
REFUSED = {
    "swap": (PATTERN | {"update": "swap"}, r"'swap' does not keep n:m patterns; got .*query"),
    "soft movement": (PATTERN | {"gate": "soft_movement"}, "'soft_movement' does not keep n:m patterns"),
    "hard concrete": (PATTERN | {"gate": "hard_concrete"}, "'hard_concrete' does not keep n:m patterns"),
    "target": (PATTERN | {"sparsity": 0.6}, r"decides its sparsity itself; got 0\.6; allowed: 0\.75"),
    "less": (PATTERN | {"sparsity": 0.5}, r"decides its sparsity itself; got 0\.5; allowed: 0\.75"),
    "embeddings": ({"scope": ["all"], "criterion": "activation"}, r"are of linear layers; got .* of Embedding"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_silently_become_something_else_is_refused(name: str):
    values, words = REFUSED[name]
    with pytest.raises(UserError, match=words):
        ready(tiny_model("bert", num_labels=2), rule(**values))


FITTING = {
    "prune": {},
    "movement": {"gate": "movement"},
    "soft mask": {"gate": "soft_mask"},
    "almost": {"sparsity": 0.75001},
}


@pytest.mark.parametrize("name", FITTING)
def test_a_pattern_is_met_in_every_group(name: str):
    model = tiny_model("bert", num_labels=2)
    sparsifier = ready(model, rule(**(PATTERN | FITTING[name])))
    for number in range(10):
        model(**tiny_batch(), labels=torch.tensor([0, 1, 0])).loss.backward()
        sparsifier.before_step(number, None)
        sparsifier.after_step()
    sparsifier.finish(10)
    assert bool((sparsifier.bake()[QUERY].view(-1, 4).sum(dim=1) == 1).all())


@pytest.mark.parametrize("gate", ["movement", "soft_movement", "hard_concrete", "soft_mask"])
def test_gates_of_a_model_in_bfloat16(gate: str):
    model = tiny_model("bert", num_labels=2).to(torch.bfloat16)
    sparsifier = ready(model, rule(gate=gate, schedule="one_shot"))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for number in range(3):
        step(model, sparsifier, optimizer, number)
    sparsifier.finish(10)
    with torch.no_grad():
        expected = model(**tiny_batch()).logits
    sparsifier.bake()
    assert model.get_parameter(QUERY).dtype == torch.bfloat16
    assert torch.equal(model(**tiny_batch()).logits, expected)


def test_two_rules_on_one_tensor_are_refused():
    model = tiny_model("bert", num_labels=2)
    with pytest.raises(UserError, match="Rules 1 and 2 cover the same tensor"):
        ready(model, rule(), rule(scope=["*query*"]))


def test_held_masks_must_fit():
    model = tiny_model("bert", num_labels=2)
    for held, words in (
        ({"nowhere": torch.ones(2)}, "nowhere"),
        ({"classifier.weight": torch.ones(3, 3)}, "does not fit"),
    ):
        with pytest.raises(UserError, match=words):
            Sparsifier(model, [], scope_names(model), layout_of(model).groups, held=held)


def test_a_step_that_swaps_moves_no_weight():
    """Evci et al. 2020, Algorithm 1: masks or weights, never both; a first mask is a change of masks too."""
    model = tiny_model("bert", num_labels=2)
    swap = {"kind": "swap", "grow": "gradient", "fraction": 0.3}
    often = {"schedule": "constant", "every": {"steps": 2}, "stop": {"steps": 4}}
    sparsifier = ready(model, rule(update=swap, **often))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for number in range(6):
        before, old = values_of(model), sparsifier.masks
        step(model, sparsifier, optimizer, number)
        masks, after = sparsifier.masks, values_of(model)
        swaps = number in (0, 2, 4)
        assert torch.equal(masks[QUERY], old[QUERY]) is not swaps
        for name, value in after.items():
            expected = before[name] * masks[QUERY] if name == QUERY else before[name]
            assert torch.equal(value, expected) is swaps, (number, name)
        # What grows starts at zero, and waits for the next step.
        assert int(masks[QUERY].sum()) == 512 and not bool(after[QUERY][masks[QUERY] & ~old[QUERY]].any())
    assert {int(state["step"]) for state in optimizer.state.values()} == {3}


def test_other_updates_go_on_moving_weights_where_masks_change():
    model = tiny_model("bert", num_labels=2)
    sparsifier, optimizer = ready(model, rule()), torch.optim.AdamW(model.parameters(), lr=0.1)
    before = values_of(model)
    step(model, sparsifier, optimizer, 2)
    assert int(sparsifier.masks[QUERY].sum()) == 512
    assert not torch.equal(model.get_parameter(KEY), before[KEY])

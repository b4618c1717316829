"""Gates and penalties: formulas by hand, gradients by hand, and gated rules on a small network."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import nn
from torch.utils.checkpoint import checkpoint

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.recipe.schema import Rule, When
from sparsebert.sparse.budgets import Uniform
from sparsebert.sparse.gated import GATES, GatedRule
from sparsebert.sparse.gates import Coefficient, Draw, HardConcrete, Movement, SoftMask, SoftMovement
from sparsebert.sparse.penalties import PenaltyView
from sparsebert.sparse.schedules import Times
from sparsebert.sparse.sites import Masks
from test_structures import HEADS, NAMED, NEURONS, scope, select, sites

TIMES = Times(total=20, per_epoch=10)
NAMES = registry.names("gate")
PENALTIES = registry.names("penalty")


class Net(nn.Module):
    """Layers with the names and shapes of the structures' tests."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.o = nn.Linear(6, 4), nn.Linear(4, 6, bias=False)
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Two blocks, each with a residual."""
        x = x + self.o(torch.tanh(self.q(x)))
        return x + self.down(torch.relu(self.up(x)))


def parameters_of(rule: GatedRule) -> list[nn.Parameter]:
    return [parameter for group in rule.parameter_groups() for parameter in group["params"]]


def gated(
    net: Net,
    gate: object,
    structure: object = "element",
    begin: bool = True,
    held: Masks | None = None,
    **values: object,
) -> GatedRule:
    every = {"start": When(steps=0), "stop": When(steps=10), "every": When(steps=1), "schedule": "one_shot"}
    rule = Rule.model_validate({"gate": gate, "structure": structure, "sparsity": 0.5, **every, **values})
    shapes = {name: tuple(parameter.shape) for name, parameter in net.named_parameters()}
    chosen = select(rule.scope, NAMED, shapes, [HEADS, NEURONS])
    made = registry.make("structure", rule.structure.kind, rule.structure.options).sites(chosen)
    found = GatedRule(net, rule, "rule0", made, seed=3, held=held or {})
    found.attach()
    if begin:
        found.begin(TIMES)
    return found


def draw(*scores: list[float], sparsity: float = 0.5) -> Draw:
    parts = [torch.tensor(one) for one in scores]
    return Draw(sites("neuron")[: len(parts)], parts, Uniform(), sparsity, seed=0, step=0)


def test_hard_concrete_by_hand():
    gate = HardConcrete()
    zero = torch.zeros(1)
    assert float(gate.training(zero, zero)) == pytest.approx(0.5)
    assert float(gate.training(zero, zero + 6)) == 1 and float(gate.training(zero, zero - 6)) == 0
    scores = torch.tensor([-5.0, 0.0, 5.0])
    assert gate.settled(scores, scores).tolist() == pytest.approx([0, 0.5, 1 / (1 + math.exp(-6))])
    edge = stats.logistic.cdf(scores.numpy() - 2 / 3 * math.log(0.1 / 1.1))
    assert gate.open(scores, scores).tolist() == pytest.approx(edge.tolist(), abs=1e-6)


def test_hard_concrete_is_open_as_often_as_it_says():
    gate = HardConcrete()
    scores = torch.full((200_000,), -1.0)
    uniform = torch.rand(len(scores), generator=torch.Generator().manual_seed(0))
    share = float((gate.training(scores, torch.logit(uniform)) > 0).float().mean())
    assert share == pytest.approx(float(gate.open(scores, scores)[0]), abs=0.005)


def test_as_many_hard_concrete_gates_are_closed_as_are_expected_to_be():
    gate, scores = HardConcrete(), torch.linspace(-3, 1, 50)
    closed = gate.settled(scores, scores) == 0
    assert int(closed.sum()) == round(float((1 - gate.open(scores, scores)).sum()))
    assert scores[closed].max() < scores[~closed].min()


def test_movement_keeps_the_highest_scores_and_soft_movement_those_above_the_threshold():
    [mask] = Movement().draw(draw([0.1, 5, 3, 4, 0, 0.3, 9, 8]))
    assert mask.tolist() == [0, 1, 0, 1, 0, 0, 1, 1]
    above = math.log(0.1 / 0.9)
    [mask] = SoftMovement().draw(draw([above - 0.01, above + 0.01, -9, 0, 1, 2, 3, 4]))
    assert mask.tolist() == [0, 1, 0, 1, 1, 1, 1, 1]


def test_gradients_pass_straight_through():
    drawn = torch.tensor([1.0, 0.0])
    scores = torch.tensor([2.0, -1.0], requires_grad=True)
    value = Movement().training(scores, drawn)
    assert value.tolist() == [1, 0]
    (value * torch.tensor([3.0, 7.0])).sum().backward()
    assert scores.grad is not None and scores.grad.tolist() == [3, 7]
    scores.grad = None
    opened = SoftMovement().open(scores, drawn)
    assert opened.tolist() == [1, 0]
    opened.sum().backward()
    sigmoid = torch.sigmoid(scores.detach())
    torch.testing.assert_close(scores.grad, sigmoid * (1 - sigmoid))


def test_movement_scores_get_minus_what_a_weight_moves_by():
    """d loss / d score = weight * d loss / d masked weight (arXiv:2005.07683, eq. 3), masked weights included."""
    net = Net()
    rule = gated(net, "movement", scope=("q.weight",))
    [scores] = parameters_of(rule)
    weight = net.q.parametrizations.weight.original
    assert isinstance(weight, torch.Tensor)
    upstream = torch.arange(24.0).view(4, 6)
    (net.q.weight * upstream).sum().backward()
    torch.testing.assert_close(scores.grad, (weight.detach() * upstream).flatten())
    torch.testing.assert_close(weight.grad, upstream * rule.masks()["q.weight"])


def test_a_soft_mask_leaves_the_gradient_whole_and_lets_weights_come_back():
    net = Net()
    rule = gated(net, "soft_mask", scope=("q.weight",))
    weight = net.q.parametrizations.weight.original
    assert isinstance(weight, torch.Tensor)
    mask = rule.masks()["q.weight"]
    assert int(mask.sum()) == 12 and torch.equal(net.q.weight, weight * mask)
    net.q.weight.sum().backward()
    assert torch.equal(weight.grad, torch.ones(4, 6))
    smallest = int(weight.abs().argmin())
    assert not bool(mask.flatten()[smallest]) and rule.log() == {"reactivated": 0.0}
    with torch.no_grad():
        weight.view(-1)[smallest] = 9.0
    rule.before_step(0, None)
    rule.after_step()
    assert rule.log() == {"reactivated": 1.0} and bool(rule.masks()["q.weight"].flatten()[smallest])
    assert float(net.q.weight.detach().flatten()[smallest]) == 9.0


@pytest.mark.parametrize("structure", ["element", "head", {"kind": "block", "rows": 2, "cols": 2}])
@pytest.mark.parametrize("gate", NAMES)
def test_baking_leaves_a_plain_model_with_the_same_outputs(gate: str, structure: object):
    net, x = Net(), torch.randn(5, 6)
    before = [name for name, _ in net.named_parameters()]
    kinds = [type(module) for module in net.modules()]
    rule = gated(net, gate, structure, scope=("attention",))
    with torch.no_grad():
        for scores in parameters_of(rule):
            scores.copy_(torch.randn(len(scores)) * 3)
    rule.before_step(4, None)
    rule.after_step()
    with torch.no_grad():
        expected = net(x)
    masks = rule.bake()
    assert [name for name, _ in net.named_parameters()] == before
    assert [type(module) for module in net.modules()] == kinds and GATES not in dict(net.named_children())
    torch.testing.assert_close(net(x), expected)
    assert masks and all(not bool(net.get_parameter(name)[~mask].any()) for name, mask in masks.items())
    assert all(net.get_parameter(name).requires_grad for name in before)


@pytest.mark.parametrize("gate", NAMES)
def test_every_gate_learns_under_accumulation_and_checkpointing(gate: str):
    def gradients(parts: int, checkpointed: bool) -> list[torch.Tensor]:
        net, x = Net(), torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
        gated(net, gate)
        for piece in x.chunk(parts):
            output = checkpoint(net, piece, use_reentrant=False) if checkpointed else net(piece)
            output.square().sum().backward()
        return [parameter.grad for parameter in net.parameters() if parameter.grad is not None]

    whole = gradients(1, False)
    assert len(whole) == 6 + (0 if gate == "soft_mask" else 4)
    for other in (gradients(2, False), gradients(1, True)):
        assert len(other) == len(whole)
        for one, two in zip(whole, other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_draws_depend_on_seed_and_step_alone():
    one, two = Net(), Net()
    first, second = gated(one, "hard_concrete"), gated(two, "hard_concrete")
    x = torch.randn(2, 6)
    assert torch.equal(one(x), one(x)) and torch.equal(one(x), two(x))
    first.before_step(0, None)
    first.after_step()
    assert not torch.equal(one(x), two(x))
    second.load_state_dict(first.state_dict())
    second.begin(TIMES)
    assert torch.equal(one(x), two(x))


@pytest.mark.parametrize("gate", ["movement", "soft_mask", "soft_movement"])
def test_saved_masks_come_back(gate: str):
    one, two = Net(), Net()
    first, second = gated(one, gate), gated(two, gate, begin=False)
    for scores in parameters_of(first):
        scores.data.normal_()
    first.before_step(0, None)
    first.after_step()
    second.load_state_dict(first.state_dict())
    second.begin(TIMES)
    assert all(torch.equal(mask, second.masks()[name]) for name, mask in first.masks().items())
    broken = first.state_dict() | {"drawn/0": torch.ones(3, dtype=torch.bool)}
    with pytest.raises(UserError, match=r"mask of q\.weight does not fit the model; got 3 units; allowed: 24 units"):
        second.load_state_dict(broken)


def test_a_budget_opens_nothing_that_earlier_masks_closed():
    held = {"q.weight": torch.arange(24).view(4, 6) >= 18}
    mask = gated(Net(), "movement", scope=("q.weight", "o.weight"), held=held).masks()["q.weight"]
    assert int(mask.sum()) == 6 and not bool((mask & ~held["q.weight"]).any())


def test_scores_and_multipliers_learn_at_rates_of_their_own_and_do_not_decay():
    rule = gated(Net(), {"kind": "hard_concrete", "lr": 0.3}, penalty={"kind": "lagrangian", "lr": 0.7})
    groups = [(group["lr"], group["weight_decay"], len(group["params"])) for group in rule.parameter_groups()]
    assert groups == [(0.3, 0.0, 4), (0.7, 0.0, 1)]


def test_scores_have_one_place_in_the_state():
    net = Net()
    gated(net, "hard_concrete", penalty="lagrangian")
    names = set(net.state_dict())
    assert {f"{GATES}.rule0.scores.{index}" for index in range(4)} <= names
    assert len([name for name in names if "score" in name]) == 4


@pytest.mark.parametrize("target", [0.3, 0.8])
@pytest.mark.parametrize("gate", ["hard_concrete", "soft_movement"])
def test_a_lagrangian_leads_to_the_target(gate: str, target: float):
    net = Net()
    rule = gated(net, {"kind": gate, "lr": 0.1}, scope=("ffn",), penalty="lagrangian", sparsity=target)
    for scores in parameters_of(rule)[:2]:
        scores.data += torch.linspace(-0.5, 0.5, len(scores))
    optimizer = torch.optim.Adam(parameters_of(rule), lr=0.05)
    for step in range(600):
        penalty = rule.penalty(step)
        assert penalty is not None
        optimizer.zero_grad()
        penalty.backward()
        rule.before_step(step, optimizer)
        optimizer.step()
        rule.after_step()
    masks = rule.masks()
    kept = sum(float(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())
    assert 1 - kept == pytest.approx(target, abs=0.08)


def view(opened: list[torch.Tensor] | None = None, **values) -> PenaltyView:
    net = Net()
    chosen = registry.make("structure", values.pop("structure", "neuron"), {}).sites(scope("ffn"))
    weights = {name: net.get_parameter(name) for site in chosen for name in site.scored}
    base = {"sparsity": 0.5, "multipliers": None}
    return PenaltyView(chosen, weights, opened, **{**base, **values})


def test_penalties_by_hand():
    at = view()
    up, down = at.weights["up.weight"].detach(), at.weights["down.weight"].detach()
    total = float(up.abs().sum() + down.abs().sum())
    assert registry.make("penalty", "l1", {}).value(at).item() == pytest.approx(total)
    norms = (up.square().sum(dim=1) + down.square().sum(dim=0)).sqrt().sum()
    found = registry.make("penalty", "group_lasso", {}).value(at)
    assert found.item() == pytest.approx(math.sqrt(12) * norms.item(), rel=1e-5)
    opened = [torch.tensor([1.0, 1, 0, 0, 0, 0, 0, 0])]
    assert registry.make("penalty", "l0", {}).value(view(opened)).item() == pytest.approx(0.25)
    multipliers = torch.tensor([2.0, 3.0], requires_grad=True)
    found = registry.make("penalty", "lagrangian", {}).value(view(opened, multipliers=multipliers))
    assert found.item() == pytest.approx(2 * 0.25 + 3 * 0.25**2)
    found.backward()
    assert multipliers.grad is not None and multipliers.grad.tolist() == pytest.approx([-0.25, -0.0625])


def test_group_lasso_has_a_gradient_where_a_unit_is_zero():
    at = view()
    with torch.no_grad():
        at.weights["up.weight"][0] = 0
        at.weights["down.weight"][:, 0] = 0
    registry.make("penalty", "group_lasso", {}).value(at).backward()
    grad = at.weights["up.weight"].grad
    assert grad is not None and bool(torch.isfinite(grad).all()) and not bool(grad[0].any()) and bool(grad[1].any())


@pytest.mark.parametrize("name", PENALTIES)
def test_every_penalty_is_a_scalar_that_grows_with_what_it_is_of(name: str):
    penalty = registry.make("penalty", name, {})
    multipliers = torch.ones(penalty.multipliers) if penalty.multipliers else None
    few, many = (view([torch.full((8,), share)], multipliers=multipliers, sparsity=0.0) for share in (0.3, 0.9))
    with torch.no_grad():
        for weight in few.weights.values():
            weight.mul_(0.5)
    values = [penalty.value(at) for at in (few, many)]
    assert all(value.dim() == 0 and bool(torch.isfinite(value)) for value in values)
    assert penalty.needs_gate == (name in ("l0", "lagrangian"))
    # A lagrangian is of the distance from the target, which here is to remove nothing.
    assert bool(values[0] < values[1]) == (name != "lagrangian")


def test_everything_registered_was_covered():
    assert (len(NAMES), len(PENALTIES)) == (5, 4)
    assert {Coefficient, SoftMask, HardConcrete, Movement, SoftMovement} == {
        registry.get("gate", name) for name in NAMES
    }


@pytest.mark.parametrize("gate", ["movement", "soft_mask"])
def test_nothing_is_masked_before_the_start(gate: str):
    net = Net()
    rule = gated(net, gate, schedule="constant", start=When(steps=5), scope=["up*"])
    assert all(bool(keep.all()) for keep in rule.keeps())
    for step in range(6):
        rule.before_step(step, None)
        rule.after_step()
        assert bool(rule.keeps()[0].all()) == (step < 4)


def test_scores_that_have_learned_nothing_mask_the_smallest_weights():
    net = Net()
    [keep] = gated(net, "movement", schedule="constant", scope=["up*"]).keeps()
    weight = net.get_parameter("up.parametrizations.weight.original").detach().abs().flatten()
    assert int(keep.sum()) == 24 and weight[keep].min() > weight[~keep].max()


def test_rates_are_numbers_above_zero():
    assert registry.make("gate", "movement", {"lr": "1e-2"}).lr == 0.01
    for kind, name in (("gate", "movement"), ("gate", "hard_concrete"), ("penalty", "lagrangian")):
        with pytest.raises(UserError, match="lr must be above 0, got -1"):
            registry.make(kind, name, {"lr": -1})
        with pytest.raises(UserError, match=f"lr of the {kind} {name} does not fit: .*; got quick"):
            registry.make(kind, name, {"lr": "quick"})


def test_a_shared_tensor_takes_no_gate():
    net = Net()
    net.twin = nn.Linear(6, 4)
    net.twin.weight = net.q.weight
    with pytest.raises(UserError, match=r"shared; got q\.weight = twin\.weight"):
        gated(net, "movement", scope=("q.weight",))


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [("hard_concrete", {"low": 0.1}, "low < 0"), ("soft_movement", {"threshold": 0.7}, "between 0 and 0.5")],
)
def test_bad_options(kind: str, options: dict, words: str):
    with pytest.raises(UserError, match=words):
        registry.make("gate", kind, options)

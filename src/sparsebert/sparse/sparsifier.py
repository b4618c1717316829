"""The Sparsifier: the one owner of masks. A trainer calls it three times a step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.groups import Group
from sparsebert.recipe.schema import Rule
from sparsebert.sparse.gated import GatedRule
from sparsebert.sparse.hard import HardRule, Loss
from sparsebert.sparse.schedules import Times
from sparsebert.sparse.scope import left_dense, select
from sparsebert.sparse.sites import Masks, Site
from sparsebert.sparse.structures import SLACK
from sparsebert.sparse.views import State, part_of

RULES = "rules"


class LeakError(RuntimeError):
    """A weight that the mask says is gone is not zero: something outside changed it."""


class Sparsifier:
    """Carries out rules on a model.

    `named` gives the tensor names of the scopes that have names; `groups` the model's heads and
    neurons; `held` masks of earlier training that stay; `sparsity` the target of rules that name none; `loss` the
    mean loss on fixed examples, for criteria that want it. Steps are counted from 0; `finish` comes after the last.

    `loose` is the fraction of all that rules cover that is zero from the start without a mask, and so will not stay.

    Raises UserError for a scope that matches nothing, for two rules on one tensor, and for what a component refuses.
    """

    def __init__(
        self,
        model: nn.Module,
        rules: Sequence[Rule],
        named: Mapping[str, Sequence[str]],
        groups: Sequence[Group],
        *,
        seed: int = 0,
        sparsity: float | None = None,
        held: Mapping[str, torch.Tensor] | None = None,
        loss: Loss | None = None,
    ) -> None:
        self._model, self._seed = model, seed
        self._total, self._resumed_total, self._stepped = 0, 0, False
        self.rules = tuple(_with_target(rule, sparsity) for rule in rules)
        shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        device = next(model.parameters()).device
        held = {name: mask.to(device, torch.bool) for name, mask in (held or {}).items()}
        _check_held(held, shapes)
        self._sites = [_sites(rule, named, shapes, groups) for rule in self.rules]
        _check_overlap(self._sites)
        covered = {name for sites in self._sites for site in sites for name in site.scored}
        self.left_dense = left_dense(covered | held.keys(), shapes)
        self._runners: list[HardRule | GatedRule] = []
        for index, (rule, sites) in enumerate(zip(self.rules, self._sites, strict=True)):
            name = f"rule{index}"
            if rule.gate is None:
                self._runners.append(HardRule(model, rule, name, sites, seed + index, held, loss))
            else:
                self._runners.append(GatedRule(model, rule, name, sites, seed + index, held))
        self._held = dict(held)
        for runner in self._runners:
            taken = {name for site in runner.sites for name in site.tensors}
            rest = {name: mask for name, mask in runner.untaken(held).items() if not bool(mask.all())}
            self._held = {name: mask for name, mask in self._held.items() if name not in taken} | rest
        self.loose = _loose(self.covered, {name: model.get_parameter(name) for name in covered})
        # A gate gives its tensor another name, and the parameter under the old one is then a product of it.
        self._holders = {name: model.get_parameter(name) for name in self._held}
        for runner in self._runners:
            if isinstance(runner, GatedRule):
                runner.attach()

    @property
    def gated(self) -> tuple[GatedRule, ...]:
        """The rules whose masks are learned; their parameters want a learning rate of their own."""
        return tuple(runner for runner in self._runners if isinstance(runner, GatedRule))

    def begin(self, times: Times) -> None:
        """Turn moments into steps.

        Raises UserError for a schedule that does not fit into them, for other steps than those of a saved state, and
        where steps have been taken already, as their masks cannot be undone.
        """
        if self._stepped:
            raise UserError(
                "A training cannot start again on masks that have changed already",
                fix="resume from a checkpoint or start with the model as it was; instead of auto_find_batch_size, give "
                "the batch size",
            )
        if self.rules and self._resumed_total not in (0, times.total):
            raise UserError(
                "The checkpoint was made for a training of another length",
                got=f"{times.total} steps",
                allowed=f"{self._resumed_total} steps",
                fix="resume with as many, or start in another folder",
            )
        self._total = times.total
        for runner in self._runners:
            runner.begin(times)

    def settled(self, steps: int) -> bool:
        """Whether all rules have come to their stop in the first `steps` steps, the last of them with final masks."""
        return all(runner.stop < steps for runner in self._runners)

    def penalty(self, step: int) -> torch.Tensor | None:
        """The sum of the rules' penalties, to be added to the loss; None if no rule has one."""
        parts = [part for runner in self._runners if (part := runner.penalty(step)) is not None]
        return torch.stack(parts).sum() if parts else None

    def before_step(self, step: int, optimizer: torch.optim.Optimizer | None) -> None:
        """See the accumulated, unscaled, clipped gradients and change the masks that are due."""
        self._stepped = True
        for runner in self._runners:
            runner.before_step(step, optimizer)
        for runner in self._runners:
            if isinstance(runner, HardRule):
                runner.rewind(optimizer)
        if any(isinstance(runner, HardRule) and runner.replaced_step for runner in self._runners):
            self._skip_step(optimizer)
        with torch.no_grad():
            for name, mask in self._held.items():
                grad = self._holders[name].grad
                if grad is not None:
                    grad.mul_(mask)

    def _skip_step(self, optimizer: torch.optim.Optimizer | None) -> None:
        # Without a gradient optimisers leave a weight and its moments alone; with one of zero, AdamW would decay the
        # weight and go on along its momentum.
        for group in () if optimizer is None else optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def after_step(self) -> None:
        """Set what is pruned to zero again."""
        for runner in self._runners:
            if isinstance(runner, HardRule):
                runner.stay_back()
        for runner in self._runners:
            runner.after_step()
        for name, mask in self._held.items():
            self._holders[name].data.mul_(mask)

    def finish(self, step: int) -> None:
        """Change the masks that are due after the last step."""
        self.before_step(step, None)
        self.after_step()
        for gated in self.gated:
            gated.finish()

    @property
    def masks(self) -> Masks:
        """All masks, True = keep, by parameter."""
        return self._joined([runner.masks() for runner in self._runners])

    @torch.no_grad()
    def check(self) -> None:
        """Raise LeakError if a pruned weight is not exactly zero: seen through gates, and earlier ones behind them too.

        Units that a gate keeps out by their output alone are zero in their other tensors after `bake`, which checks.
        """
        for runner in self._runners:
            for name, mask in runner.visible().items():
                owner, _, leaf = name.rpartition(".")
                _check(name, getattr(self._model.get_submodule(owner), leaf), mask)
        for name, mask in self._held.items():
            _check(name, self._holders[name], mask)

    @property
    def sparsity(self) -> float | None:
        """Fraction pruned of all that rules cover, None where they hold nothing."""
        return _sparsity(list(self.covered.values()))

    def log(self) -> dict[str, float]:
        """`sparsity` of all that rules cover, `sparsity/TENSOR` for each matrix, and what single rules add."""
        covered = self.covered
        found = {"sparsity": _sparsity(list(covered.values()))}
        found |= {f"{runner.name}/{key}": value for runner in self._runners for key, value in runner.log().items()}
        found |= {f"sparsity/{name}": _sparsity([mask]) for name, mask in covered.items()}
        return {key: round(value, 6) for key, value in found.items() if value is not None}

    @property
    @torch.no_grad()
    def covered(self) -> Masks:
        """The masks of the matrices that rules cover."""
        masks = self.masks
        names = dict.fromkeys(name for sites in self._sites for site in sites for name in site.scored)
        return {name: masks[name] for name in names if name in masks}

    def state_dict(self) -> State:
        """Everything that is needed to go on, apart from what the model's own state holds."""
        state: State = {f"held/{name}": mask for name, mask in self._held.items()}
        for runner in self._runners:
            state |= {f"{runner.name}/{key}": value for key, value in runner.state_dict().items()}
        return {key: value.contiguous() for key, value in state.items()}

    def load_state_dict(self, state: State, made_with: Mapping[str, str]) -> None:
        """Go on from a saved state; `made_with` as it was when the state was saved.

        Raises UserError for other rules, another seed or other held masks (naming what differs), and for masks that do
        not fit.
        """
        now, held = self.made_with, {name.removeprefix("held/") for name in state if name.startswith("held/")}
        differing = _differing(json.loads(made_with[RULES]), json.loads(now[RULES]))
        differing += ["seed"] if made_with["seed"] != now["seed"] else []
        differing += [f"held {name}" for name in sorted(held ^ self._held.keys())]
        if differing:
            raise UserError(
                f"The checkpoint was made with other sparsity rules; different: {', '.join(differing)}",
                fix="resume with the same rules, or start in another folder",
            )
        self._resumed_total, self._stepped = int(made_with["steps"]), False
        for name in self._held:
            self._held[name] = state[f"held/{name}"].to(self._held[name])
        for runner in self._runners:
            runner.load_state_dict(part_of(state, f"{runner.name}/"))

    @property
    def made_with(self) -> dict[str, str]:
        """What a saved state must meet again: the rules as JSON, the seed and the steps of the training."""
        rules = json.dumps([rule.model_dump(mode="json") for rule in self.rules], sort_keys=True)
        return {RULES: rules, "seed": str(self._seed), "steps": str(self._total)}

    def bake(self) -> Masks:
        """Leave a plain model: gates are folded into the weights and removed. Returns the masks."""
        found = self._joined([runner.bake() for runner in self._runners])
        for name, mask in found.items():
            _check(name, self._model.get_parameter(name), mask)
        return found

    def _joined(self, masks_by_rule: Sequence[Masks]) -> Masks:
        """The rules' masks and the earlier ones."""
        found = dict(self._held)
        for masks in masks_by_rule:
            found |= {name: mask & self._held[name] if name in self._held else mask for name, mask in masks.items()}
        return found


def _sparsity(masks: Sequence[torch.Tensor]) -> float | None:
    total = sum(mask.numel() for mask in masks)
    return 1 - sum(float(mask.sum()) for mask in masks) / total if total else None


@torch.no_grad()
def _loose(masks: Masks, weights: Mapping[str, torch.Tensor]) -> float:
    total = sum(weight.numel() for weight in weights.values())
    zeros = sum(int(((weight == 0) & masks[name]).sum()) for name, weight in weights.items() if name in masks)
    return zeros / total if total else 0.0


def _with_target(rule: Rule, sparsity: float | None) -> Rule:
    if rule.sparsity is not None:
        return rule
    if sparsity is None:
        raise UserError("A rule has no target", fix="give the rule, or the recipe, a sparsity")
    return rule.model_copy(update={"sparsity": sparsity})


def _sites(
    rule: Rule, named: Mapping[str, Sequence[str]], shapes: Mapping[str, Sequence[int]], groups: Sequence[Group]
) -> list[Site]:
    scope = select(rule.scope, named, shapes, groups)
    sites = registry.make("structure", rule.structure.kind, rule.structure.options).sites(scope)
    for own in (site.pattern for site in sites if site.pattern is not None):
        if rule.sparsity is None or abs(rule.sparsity - own) > SLACK:
            what = "An n:m pattern decides its sparsity itself"
            raise UserError(what, got=rule.sparsity, allowed=f"{own:.4g}", fix="set that sparsity, or another n and m")
    return sites


def _check(name: str, tensor: torch.Tensor, mask: torch.Tensor) -> None:
    leaked = int(tensor.masked_fill(mask, 0).count_nonzero())
    if leaked:
        raise LeakError(f"{leaked} pruned weights of {name} are not zero")


def _check_overlap(sites_by_rule: Sequence[Sequence[Site]]) -> None:
    owner: dict[str, int] = {}
    for index, sites in enumerate(sites_by_rule):
        for name in (name for site in sites for name in site.tensors):
            if owner.setdefault(name, index) != index:
                both = f"Rules {owner[name] + 1} and {index + 1} cover the same tensor"
                raise UserError(both, got=name, fix="narrow their scopes")


def _check_held(held: Mapping[str, torch.Tensor], shapes: Mapping[str, Sequence[int]]) -> None:
    for name, mask in held.items():
        if name not in shapes:
            raise UserError("A mask names a tensor that the model does not have", got=name)
        if tuple(mask.shape) != tuple(shapes[name]):
            raise UserError(
                f"The mask of {name} does not fit the model", got=tuple(mask.shape), allowed=tuple(shapes[name])
            )


def _differing(old: list[dict], new: list[dict]) -> list[str]:
    if len(old) != len(new):
        return [f"{RULES} ({len(old)} then, {len(new)} now)"]
    return [
        f"{RULES}.{index}.{key}"
        for index, (before, now) in enumerate(zip(old, new, strict=True))
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]

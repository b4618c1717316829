"""Hard masks: weights are zero after every optimiser step; the dense gradient stays there for criteria to see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.recipe.schema import Component, Rule
from sparsebert.sparse.penalties import Penalty, PenaltyView
from sparsebert.sparse.schedules import Schedule, Times, moment, moments, schedule_of, window
from sparsebert.sparse.sites import Masks, Site
from sparsebert.sparse.updates import Moment
from sparsebert.sparse.views import Criterion, State, View, Views, part_of
from sparsebert.sparse.watch import InputWatch

Loss = Callable[[], float]


class HardRule:
    """One rule without a gate: its masks, its criteria's state, and when they change. Owned by a Sparsifier.

    `replaced_step`: masks have just changed in the place of weights, so that the optimiser takes no step.
    """

    def __init__(
        self,
        model: nn.Module,
        rule: Rule,
        name: str,
        sites: Sequence[Site],
        seed: int,
        held: Mapping[str, torch.Tensor],
        loss: Loss | None,
    ) -> None:
        self.rule, self.name, self.sites = rule, name, tuple(sites)
        self._model, self._seed, self._loss = model, seed, loss
        self._tensors = {tensor: model.get_parameter(tensor) for site in sites for tensor in site.tensors}
        self._update = registry.make("update", rule.update.kind, rule.update.options)
        self._budget = registry.make("budget", rule.budget.kind, rule.budget.options)
        self._penalty: Penalty | None = None if rule.penalty is None else make_penalty(rule.penalty, gated=False)
        self._criteria = {role: _criterion(spec) for role, spec in self._update.roles(rule.criterion).items()}
        self._check_needs()
        if not self._update.keeps_patterns:
            refuse_patterns(sites, rule.update.kind)
        scored = [tensor for site in sites for tensor in site.scored]
        reads = any(criterion.reads_inputs for criterion in self._criteria.values())
        self._watch = InputWatch(model, scored if reads else ())
        self._states = {
            (role, tensor): criterion.start(self._tensors[tensor].detach())
            for role, criterion in self._criteria.items()
            for tensor in scored
        }
        self._update_state: State = {}
        self._late = False
        self.replaced_step = False
        # Taken before gates give tensors other names: what goes back is all of the model, not scores.
        self._whole = dict(model.named_parameters()) if self._update.rewinds else {}
        self._snapshot: State = {}
        self._rewinding = False
        self._keeps = [keep_of(site, held, self._tensors[site.tensors[0]].device) for site in sites]
        self._masks = _expand(self.sites, self._keeps)
        self._holding = self._update.holds and any(not bool(keep.all()) for keep in self._keeps)

    def untaken(self, held: Masks) -> Masks:
        """What earlier masks remove and this rule does not take over: weights inside units that stay.

        A rule that holds nothing takes nothing over.
        """
        if not self._update.holds:
            return {name: held[name] for name in self._tensors if name in held}
        return {name: held[name] | ~mask for name, mask in self._masks.items() if name in held}

    def begin(self, times: Times) -> None:
        """Resolve the schedule, once the number of steps is known. Raises UserError if it does not fit into them."""
        rule = self.rule
        assert rule.sparsity is not None
        self._check_gradients()
        self._times, self._final = times, rule.sparsity
        self._start, self.stop = window(rule.start, rule.stop, times)
        every = max(1, moment(rule.every, times))
        self._schedule: Schedule = make_schedule(rule, times)
        self._weight = schedule_of(0.0 if self._penalty is None else self._penalty.weight, times)
        self._is_moment = moments(self._start, self.stop, every)
        self._windows = {role: _window(criterion, times.total) for role, criterion in self._criteria.items()}

    def penalty(self, step: int) -> torch.Tensor | None:
        """The penalty of this step, if the rule has one."""
        if self._penalty is None:
            return None
        view = PenaltyView(self.sites, self._tensors, None, self._schedule(step), None)
        return self._weight(step) * self._penalty.value(view)

    @torch.no_grad()
    def before_step(self, step: int, optimizer: torch.optim.Optimizer | None) -> None:
        """See the gradients, change the masks if it is time, and keep gradients off what is pruned."""
        overflowed, self.replaced_step = not self._observe(step), False
        if self._update.rewinds and step == self._update.snapshot_step(self._times):
            self._snapshot = {name: tensor.detach().clone() for name, tensor in self._whole.items()}
        if self._is_moment(step) or self._late:
            # A step that overflows, as in float16, is skipped by its optimiser; what was due then waits for the next.
            self._late = overflowed
            if not overflowed:
                self._change(step, optimizer)
        # Only now: criteria want the dense gradient (RigL grows by it), and the optimiser's moments must not.
        if self._holding:
            for name, tensor in self._tensors.items():
                if tensor.grad is not None:
                    tensor.grad.mul_(self._masks[name])

    @torch.no_grad()
    def rewind(self, optimizer: torch.optim.Optimizer | None) -> None:
        """Put the model back to the snapshot if masks have just changed; called once all rules have chosen."""
        if not self._rewinding:
            return
        self._go_back()
        for tensor in self._whole.values():
            if tensor.grad is not None:
                tensor.grad.zero_()
            if optimizer is not None:
                optimizer.state.pop(tensor, None)
        self._apply()

    @torch.no_grad()
    def stay_back(self) -> None:
        """Undo the decay of weights that have just gone back; called before all rules apply their masks."""
        if self._rewinding:
            self._rewinding = False
            self._go_back()

    @torch.no_grad()
    def after_step(self) -> None:
        """Set to zero again what the optimiser may have moved."""
        if self._holding:
            self._apply()

    def masks(self) -> Masks:
        """The masks that hold now, by tensor; nothing for information deletion, which holds nothing."""
        return dict(self._masks) if self._update.holds else {}

    def visible(self) -> Masks:
        """The masks that the weights show now."""
        return self.masks()

    def keeps(self) -> list[torch.Tensor]:
        """The units kept, by site."""
        return list(self._keeps)

    def log(self) -> dict[str, float]:
        """What the log says of this rule."""
        return {}

    def state_dict(self) -> State:
        """Masks and the state of criteria and update, flat."""
        state: State = {f"keep/{index}": keep for index, keep in enumerate(self._keeps)}
        state["holding"] = torch.tensor(self._holding)
        if self._late:
            state["late"] = torch.ones(1)
        for (role, tensor), values in self._states.items():
            state |= {f"criterion/{role}/{tensor}/{key}": value for key, value in values.items()}
        state |= {f"update/{key}": value for key, value in self._update_state.items()}
        state |= {f"snapshot/{key}": value for key, value in self._snapshot.items()}
        return state | {f"inputs/{key}": value for key, value in self._watch.state().items()}

    def load_state_dict(self, state: State) -> None:
        """Go on from a saved state. Raises UserError if its masks do not fit."""
        for index, (site, keep) in enumerate(zip(self.sites, self._keeps, strict=True)):
            saved = state.get(f"keep/{index}")
            if saved is None or saved.shape != keep.shape:
                got = "nothing" if saved is None else f"{len(saved)} units"
                what = f"The saved mask of {site.name} does not fit the model"
                raise UserError(what, got=got, allowed=f"{len(keep)} units")
        self._keeps = [state[f"keep/{index}"].to(keep.device) for index, keep in enumerate(self._keeps)]
        self._masks = _expand(self.sites, self._keeps)
        self._holding = bool(state["holding"])
        self._late = "late" in state
        for (role, tensor), values in self._states.items():
            for key, value in values.items():
                value.copy_(state[f"criterion/{role}/{tensor}/{key}"])
        for key, value in self._watch.state().items():
            value.copy_(state[f"inputs/{key}"])
        device = next(iter(self._tensors.values())).device
        self._update_state = {key: value.to(device) for key, value in part_of(state, "update/").items()}
        self._snapshot = {key: value.to(device) for key, value in part_of(state, "snapshot/").items()}

    def bake(self) -> Masks:
        """Masks for good; the weights are plain already."""
        self._watch.close()
        return self.masks()

    def _go_back(self) -> None:
        for name, values in self._snapshot.items():
            self._whole[name].data.copy_(values)

    def _apply(self) -> None:
        for name, tensor in self._tensors.items():
            tensor.data.mul_(self._masks[name])

    def _observe(self, step: int) -> bool:
        """Show gradients to the criteria that look at this step; False if they are not finite, and so not shown."""
        self._watch.fold()
        due = {
            role: criterion.observe
            for role, criterion in self._criteria.items()
            if criterion.observe is not None and (self._late or self._windows[role](step, self._is_moment))
        }
        if not due:
            return True
        scored = {tensor for site in self.sites for tensor in site.scored}
        grads = {name: grad for name in scored if (grad := self._tensors[name].grad) is not None}
        if grads and not bool(torch.stack([torch.isfinite(grad).all() for grad in grads.values()]).all()):
            return False
        for role, observe in due.items():
            for name in grads:
                observe(self._view(role, name, step))
        return True

    def _change(self, step: int, optimizer: torch.optim.Optimizer | None) -> None:
        now = Moment(
            step=step,
            sparsity=self._schedule(step),
            sites=self.sites,
            keeps=self._keeps,
            budget=self._budget,
            score=lambda role: self._scores(role, step),
            state=self._update_state,
            times=self._times,
            start=self._start,
            stop=self.stop,
            final=self._final,
        )
        before, keeps = self._keeps, self._update.masks(now)
        if not all(bool(keep.all()) for keep in keeps):
            self._adopt(keeps, step, optimizer)
            changed = any(not torch.equal(old, new) for old, new in zip(before, keeps, strict=True))
            self.replaced_step = changed and self._update.replaces_step
        self._forget_windows()

    def _adopt(self, keeps: list[torch.Tensor], step: int, optimizer: torch.optim.Optimizer | None) -> None:
        # First, as the correction makes up for weights whose values are gone once the masks are applied.
        self._correct(keeps, step)
        self._keeps, self._masks = keeps, _expand(self.sites, keeps)
        self._rewinding = self._update.rewinds
        self._apply()
        self._holding = self._update.holds
        if optimizer is not None:
            for name, tensor in self._tensors.items():
                _clear_momentum(optimizer.state.get(tensor, {}), self._masks[name])

    def _correct(self, keeps: Sequence[torch.Tensor], step: int) -> None:
        for role, criterion in self._criteria.items():
            if criterion.correct is None:
                continue
            for site, keep in zip(self.sites, keeps, strict=True):
                for name, values in criterion.correct(site, self._views(role, site, step), keep).items():
                    self._tensors[name].data.copy_(values)

    def _forget_windows(self) -> None:
        # A window's gradients were taken at the weights before this change, and say nothing of those after it.
        for (role, tensor), values in self._states.items():
            if self._criteria[role].window is not None:
                fresh = self._criteria[role].start(self._tensors[tensor].detach())
                for key, value in values.items():
                    value.copy_(fresh[key])

    def _scores(self, role: str, step: int) -> list[torch.Tensor]:
        """Unit scores by site for a role; what is gone already is not -inf here, since updates may let it return."""
        criterion = self._criteria[role]
        more: dict[str, Any] = {"loss": self._loss} if criterion.reads_loss else {}
        return [criterion.score(site, self._views(role, site, step), **more) for site in self.sites]

    def _views(self, role: str, site: Site, step: int) -> Views:
        return {tensor: self._view(role, tensor, step) for tensor in site.scored}

    def _view(self, role: str, tensor: str, step: int) -> View:
        weight = self._tensors[tensor]
        state, inputs = self._states[role, tensor], self._watch.sums(tensor)
        return View(tensor, weight.detach(), weight.grad, self._masks[tensor], state, step, self._seed, inputs)

    def _check_needs(self) -> None:
        if self._loss is None and any(criterion.reads_loss for criterion in self._criteria.values()):
            raise UserError(
                f"The criterion '{self.rule.criterion.kind}' needs the training loss",
                fix="train with SparseTrainer, or give the Sparsifier a loss",
            )

    def _check_gradients(self) -> None:
        frozen = [name for site in self.sites for name in site.scored if not self._tensors[name].requires_grad]
        for criterion in self._criteria.values():
            if frozen and criterion.observe is not None:
                raise UserError(
                    "A criterion that reads gradients has none of frozen weights",
                    got=frozen[0],
                    fix="let them learn, narrow the scope, or use another criterion",
                )


def make_schedule(rule: Rule, times: Times) -> Schedule:
    """The rule's sparsity as a function of the step."""
    if rule.schedule.kind == "constant":
        return registry.make("schedule", "constant", rule.schedule.options, value=rule.sparsity)
    spec = {"kind": rule.schedule.kind, "initial": rule.initial, "final": rule.sparsity, **rule.schedule.options}
    ends = {"start": rule.start.model_dump(exclude_none=True), "stop": rule.stop.model_dump(exclude_none=True)}
    return schedule_of(spec | ends, times)


def make_penalty(spec: Component, gated: bool) -> Penalty:
    """The penalty of a rule. Raises UserError if it needs a gate and there is none."""
    penalty = registry.make("penalty", spec.kind, spec.options)
    if penalty.needs_gate and not gated:
        raise UserError(f"The penalty '{spec.kind}' needs a gate", fix="give the rule a gate, or use l1 or group_lasso")
    return penalty


def refuse_patterns(sites: Sequence[Site], kind: str) -> None:
    """Raise UserError if a site has an n:m pattern, which an update or gate of this kind would not keep."""
    for site in sites:
        if site.pattern is not None:
            raise UserError(
                f"'{kind}' does not keep n:m patterns", got=site.name, fix="prune them, or set structure: element"
            )


def _criterion(spec: Component) -> Criterion:
    return registry.make("criterion", spec.kind, spec.options)


def _window(criterion: Criterion, total: int) -> Callable[[int, Callable[[int], bool]], bool]:
    """Whether a criterion looks at the gradients of a step; those of the last one serve a change after it."""
    if criterion.window is None:
        return lambda step, is_moment: True
    window = criterion.window

    def looks(step: int, is_moment: Callable[[int], bool]) -> bool:
        ahead = [*range(window), *([window] if step + window == total else [])]
        return any(is_moment(step + steps) for steps in ahead)

    return looks


def keep_of(site: Site, held: Mapping[str, torch.Tensor], device: torch.device) -> torch.Tensor:
    """Units that earlier masks leave, all where there are none."""
    if not all(name in held for name in site.scored):
        return torch.ones(site.units, dtype=torch.bool, device=device)
    return site.pool({name: held[name].to(device).float() for name in site.scored}) > 0


def _expand(sites: Sequence[Site], keeps: Sequence[torch.Tensor]) -> Masks:
    masks: Masks = {}
    for site, keep in zip(sites, keeps, strict=True):
        for name, mask in site.expand(keep).items():
            masks[name] = masks[name] & mask if name in masks else mask
    return masks


def _clear_momentum(state: Mapping[str, Any], mask: torch.Tensor) -> None:
    # The optimiser's moments of a pruned weight are stale. They would push it off zero for many steps, and if it grows
    # back it would first follow an old direction. Step counts have another shape, and are kept.
    for value in state.values():
        if isinstance(value, torch.Tensor) and value.shape == mask.shape:
            value.mul_(mask)

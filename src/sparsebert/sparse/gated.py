"""Gated rules: weights are multiplied with gates in every forward pass, by parametrisations that `bake` takes away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.recipe.schema import Rule
from sparsebert.sparse.gates import Draw, Gate
from sparsebert.sparse.hard import keep_of, make_penalty, make_schedule, refuse_patterns
from sparsebert.sparse.penalties import Penalty, PenaltyView
from sparsebert.sparse.schedules import Times, moment, schedule_of, window
from sparsebert.sparse.sites import Masks, Site
from sparsebert.sparse.updates import refuse_return
from sparsebert.sparse.views import State, part_of

GATES = "sparsity_gates"
# A score whose sigmoid is exactly zero, and finite, so that differences of it are numbers.
SHUT = -1e4


class GatedRule:
    """One rule with a gate: its scores, what is drawn for this step, and when. Owned by a Sparsifier.

    Scores are parameters of the model, under `sparsity_gates`; multipliers are not, since no forward pass reads them
    and their gradients, which no data enters, are the same on all processes. Gates sit on the tensors through which
    a unit reaches the rest of the model (a head's columns of the output projection); `bake` empties the others too.
    Draws depend on seed and step alone, so they are the same on all processes, in every micro-batch and after a resume.
    Units that earlier masks (`held`) removed stay closed; that their weights stay zero is the Sparsifier's part.
    """

    def __init__(
        self,
        model: nn.Module,
        rule: Rule,
        name: str,
        sites: Sequence[Site],
        seed: int,
        held: Mapping[str, torch.Tensor],
    ) -> None:
        assert rule.gate is not None
        self.rule, self.name, self.sites = rule, name, tuple(sites)
        self._model, self._seed = model, seed
        self._gate: Gate = registry.make("gate", rule.gate.kind, rule.gate.options)
        if not self._gate.scheduled:
            # What is kept is decided unit by unit, not by a budget.
            refuse_patterns(sites, rule.gate.kind)
        self._budget = registry.make("budget", rule.budget.kind, rule.budget.options)
        self._penalty: Penalty | None = None if rule.penalty is None else make_penalty(rule.penalty, gated=True)
        if self._penalty is not None and self._penalty.needs_scores and not self._gate.learned:
            raise UserError("A gate that learns nothing has no scores for a penalty", got=rule.gate.kind)
        self._tensors = {tensor: model.get_parameter(tensor) for site in sites for tensor in site.tensors}
        device = next(iter(self._tensors.values())).device
        self._learned = nn.ParameterList()
        if self._gate.learned:
            self._learned.extend(nn.Parameter(torch.full((s.units,), self._gate.start, device=device)) for s in sites)
        count = 0 if self._penalty is None else self._penalty.multipliers
        self._multipliers = nn.Parameter(torch.zeros(count, device=device)) if count else None
        self._alive = [keep_of(site, held, device) for site in sites]
        self._closes = any(not bool(alive.all()) for alive in self._alive)
        self._drawn = [alive.float() for alive in self._alive]
        self._next, self._reactivated, self._loaded = 0, 0, False
        self._gated = {site.name: tuple(site.spread(torch.ones(site.units))) for site in sites}
        self._refuse_shared()

    def untaken(self, held: Masks) -> Masks:
        """What earlier masks remove and this rule does not take over: everything, as no gate can open it."""
        return {name: held[name] for name in self._tensors if name in held}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Scores, and the multipliers of the penalty, with their learning rates, as optimisers take them.

        The multipliers are the only parameters here that are not the model's too.
        """
        groups = [{"params": list(self._learned), "lr": self._gate.learning_rate}]
        if self._penalty is not None and self._multipliers is not None:
            groups.append({"params": [self._multipliers], "lr": self._penalty.learning_rate})
        return [group | {"weight_decay": 0.0} for group in groups if group["params"]]

    def attach(self) -> None:
        """Put the gates on the model."""
        if GATES not in dict(self._model.named_children()):
            self._model.add_module(GATES, nn.ModuleDict())
        gates = self._model.get_submodule(GATES)
        assert isinstance(gates, nn.ModuleDict)
        gates[self.name] = nn.ModuleDict({"scores": self._learned})
        for index, site in enumerate(self.sites):
            for tensor in self._gated[site.name]:
                owner, _, leaf = tensor.rpartition(".")
                gated = _Gated(self, index, tensor)
                parametrize.register_parametrization(self._model.get_submodule(owner), leaf, gated, unsafe=True)

    def begin(self, times: Times) -> None:
        """Resolve the schedule, once the number of steps is known.

        Raises UserError if it does not fit into them, and for a target under what earlier masks removed.
        """
        rule = self.rule
        self._schedule = make_schedule(rule, times)
        self._weight = schedule_of(0.0 if self._penalty is None else self._penalty.weight, times)
        self._start, self.stop = window(rule.start, rule.stop, times)
        self._every = max(1, moment(rule.every, times))
        assert rule.sparsity is not None
        refuse_return(self.sites, self._alive, self._schedule(0) if self._gate.scheduled else rule.sparsity)
        # Noise is not saved, as step and seed give it again. A mask is: the scores have moved since it was drawn.
        waits = self._gate.scheduled and self._next < self._start
        if self._gate.noisy or not (self._loaded or waits):
            self._draw()

    def penalty(self, step: int) -> torch.Tensor | None:
        """The penalty of this step, if the rule has one."""
        if self._penalty is None:
            return None
        opened = [self._gate.open(self._scores(index), drawn) for index, drawn in enumerate(self._drawn)]
        view = PenaltyView(
            self.sites, self._tensors, opened, self._schedule(step), self._multipliers, list(self._learned)
        )
        return self._weight(step) * self._penalty.value(view)

    def before_step(self, step: int, optimizer: torch.optim.Optimizer | None) -> None:
        """Remember which step it is."""
        self._next = step + 1

    @torch.no_grad()
    def after_step(self) -> None:
        """Draw for the next step."""
        if self._multipliers is not None:
            # A trainer clears the gradients of the model, and these are not the model's.
            self._multipliers.grad = None
        if not self._gate.scheduled or self._is_moment(self._next):
            self._draw()

    def finish(self) -> None:
        """Draw from the last scores, whatever the moment."""
        if not self._gate.noisy:
            self._draw()

    def masks(self) -> Masks:
        """What would be kept if the training ended now, by tensor."""
        masks: Masks = {}
        for site, keep in zip(self.sites, self.keeps(), strict=True):
            masks |= site.expand(keep)
        return masks

    def visible(self) -> Masks:
        """The masks that what the model computes with shows before gates are folded in: of tensors that carry gates."""
        carry = {name for names in self._gated.values() for name in names}
        return {name: mask for name, mask in self.masks().items() if name in carry}

    @torch.no_grad()
    def keeps(self) -> list[torch.Tensor]:
        """The units that would be kept if the training ended now, by site."""
        return [self._settled(index) != 0 for index in range(len(self.sites))]

    def log(self) -> dict[str, float]:
        """Units that came back so far, where what is drawn is a mask."""
        return {} if self._gate.noisy else {"reactivated": float(self._reactivated)}

    def state_dict(self) -> State:
        """What is not among the model's parameters."""
        state: State = {"next": torch.tensor(self._next), "reactivated": torch.tensor(self._reactivated)}
        if self._multipliers is not None:
            state["multipliers"] = self._multipliers.detach().clone()
        if self._gate.noisy:
            return state
        return state | {f"drawn/{index}": drawn.bool() for index, drawn in enumerate(self._drawn)}

    def load_state_dict(self, state: State) -> None:
        """Go on from a saved state. Raises UserError if its masks do not fit."""
        saved = part_of(state, "drawn/")
        for index, (site, drawn) in enumerate(zip(self.sites, self._drawn, strict=True)):
            if not self._gate.noisy and saved[str(index)].shape != drawn.shape:
                what = f"The saved mask of {site.name} does not fit the model"
                raise UserError(what, got=f"{len(saved[str(index)])} units", allowed=f"{len(drawn)} units")
        if not self._gate.noisy:
            self._drawn = [saved[str(index)].to(drawn) for index, drawn in enumerate(self._drawn)]
        if self._multipliers is not None:
            self._multipliers.data.copy_(state["multipliers"])
        self._next, self._reactivated = int(state["next"]), int(state["reactivated"])
        self._loaded = True

    @torch.no_grad()
    def bake(self) -> Masks:
        """Fold the gates into the weights, and take them off the model."""
        masks = self.masks()
        values = {n: v for index, site in enumerate(self.sites) for n, v in site.spread(self._settled(index)).items()}
        for name, tensor in self._tensors.items():
            if name in values:
                _remove_gate(self._model, name)
                tensor.data.mul_(values[name].to(tensor.dtype))
            # Also tensors that carried no gate: a head that is closed at its output has queries, keys and values left.
            tensor.data.mul_(masks[name])
        self._leave()
        return masks

    def multiplier(self, index: int, tensor: str) -> torch.Tensor:
        """What a tensor of a site is multiplied with in a forward pass."""
        # Not `training`: without dropout a model is trained in evaluation mode. Passes without gradients are evaluation
        # and probing, which must see the model that would be saved.
        if not torch.is_grad_enabled():
            return self.sites[index].spread(self._settled(index))[tensor]
        values = self._gate.training(self._scores(index), self._drawn[index])
        return self.sites[index].spread(values)[tensor]

    @property
    def straight(self) -> bool:
        """Whether masked weights keep the gradient that they would have if they were open."""
        return not self._gate.learned

    @property
    def noisy(self) -> bool:
        """Whether a forward pass with gradients draws noise."""
        return self._gate.noisy

    def _leave(self) -> None:
        gates = self._model.get_submodule(GATES)
        assert isinstance(gates, nn.ModuleDict)
        del gates[self.name]
        if not len(gates):
            delattr(self._model, GATES)

    def _is_moment(self, step: int) -> bool:
        return step >= self._start and ((step - self._start) % self._every == 0 or step == self.stop)

    def _draw(self) -> None:
        with torch.no_grad():
            sparsity = self._schedule(self._next)
            draw = Draw(self.sites, self._ranks(), self._budget, sparsity, self._seed, self._next)
            fresh = [new.to(old.device) for new, old in zip(self._gate.draw(draw), self._drawn, strict=True)]
            if not self._gate.noisy:
                # A budget that wants less of a site than earlier masks took would open what they closed.
                fresh = [self._closed(index, new, 0.0) for index, new in enumerate(fresh)]
                pairs = zip(fresh, self._drawn, strict=True)
                self._reactivated += sum(int(((new > 0) & (old == 0)).sum()) for new, old in pairs)
            for old, new in zip(self._drawn, fresh, strict=True):
                old.copy_(new)

    def _ranks(self) -> list[torch.Tensor]:
        """What is drawn from: the learned scores, or the pooled |w|; -inf for what earlier masks removed.

        Scores that have not learned anything yet are all alike, and would say nothing but the order of rows.
        """
        ranks = list(self._learned)
        untaught = self._gate.scheduled and all(bool((scores == self._gate.start).all()) for scores in ranks)
        if untaught:
            weights = {name: self._tensors[name].abs().float() for site in self.sites for name in site.scored}
            ranks = [site.pool(weights) for site in self.sites]
        return [self._closed(index, rank, -torch.inf) for index, rank in enumerate(ranks)]

    def _scores(self, index: int) -> torch.Tensor:
        """The learned scores, low for what earlier masks removed; where nothing is learned, what was drawn says all."""
        return self._closed(index, self._learned[index], SHUT) if self._gate.learned else self._drawn[index]

    def _closed(self, index: int, values: torch.Tensor, shut: float) -> torch.Tensor:
        return values.masked_fill(~self._alive[index], shut) if self._closes else values

    def _settled(self, index: int) -> torch.Tensor:
        return self._gate.settled(self._scores(index), self._drawn[index])

    def _refuse_shared(self) -> None:
        places: dict[int, list[str]] = {}
        for name, parameter in self._model.named_parameters(remove_duplicate=False):
            places.setdefault(id(parameter), []).append(name)
        for names in self._gated.values():
            for name in names:
                shared = places[id(self._tensors[name])]
                if len(shared) > 1:
                    both = " = ".join(shared)
                    raise UserError("A gate cannot sit on a tensor that is shared", got=both, fix="narrow the scope")


class _Gated(nn.Module):
    """The parametrisation of one tensor; its rule is no submodule, so that scores have one place in the state."""

    def __init__(self, rule: GatedRule, index: int, tensor: str) -> None:
        super().__init__()
        self._of = (rule, index, tensor)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight, multiplied with its gates."""
        rule, index, tensor = self._of
        # Scores are float32 also in a model that is not, where steps of bfloat16 would be too coarse.
        masked = weight * rule.multiplier(index, tensor).to(weight.dtype)
        # Without scores only the weight itself can earn its return, so a masked weight goes on learning.
        # Exact for multipliers 0 and 1, which are the only ones here.
        return weight + (masked - weight).detach() if rule.straight else masked


def _remove_gate(model: nn.Module, tensor: str) -> None:
    """Make a weight plain again, at its old place among its module's parameters."""
    owner, _, leaf = tensor.rpartition(".")
    module = model.get_submodule(owner)
    others = dict(module.named_parameters(recurse=False))
    parametrize.remove_parametrizations(module, leaf, leave_parametrized=False)
    for name, parameter in others.items():
        delattr(module, name)
        module.register_parameter(name, parameter)

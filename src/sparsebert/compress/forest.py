"""Fast feedforward layers in place of a model's feedforward blocks, and the controls that say what they are worth."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel
from safetensors.torch import save
from transformers import PreTrainedModel, set_seed

from sparsebert.compress.assemble import assemble
from sparsebert.compress.calibrate import calibrate, sample_rows
from sparsebert.compress.family import Dense, Trained, recover, trained_stage
from sparsebert.compress.stages import Stage, once
from sparsebert.compress.workbench import Workbench
from sparsebert.errors import UserError
from sparsebert.files import write_bytes_atomically
from sparsebert.models.fff import DEEPEST, Routing
from sparsebert.models.layout import layout_of
from sparsebert.models.load import save_model
from sparsebert.models.routes import Routes
from sparsebert.oneshot.budgets import Choice
from sparsebert.parts import Trees
from sparsebert.records import VISITS, Score, TreeFit
from sparsebert.surgeon import plant, set_routing
from sparsebert.train.collate import Batch, batches_by_length
from sparsebert.train.trees import Lessons, routes_of, teach, trees_of

TEACHING_BATCH = 32
# A model before its training, and the error of each tree after teaching.
Made = tuple[PreTrainedModel, dict[int, float]]


class Started(BaseModel):
    """A model before its training: its scores, and by layer how near its trees came to the blocks."""

    scores: tuple[Score, ...]
    errors: dict[int, float] = {}


@dataclass(frozen=True)
class Grown:
    """A finished model of the forest: the trees themselves, or a control."""

    name: str
    folder: Path
    model: PreTrainedModel
    one_shot_scores: tuple[Score, ...]
    trained: Trained
    trees: tuple[TreeFit, ...]


def grow(bench: Workbench, dense: Dense) -> list[Grown]:
    """The model with trees, and its controls: as many dense neurons as a token uses, and no neurons at all.

    All have the same teacher and the same training. How many tokens visit each node of the finished trees is written
    to `visits.safetensors`. Raises UserError for layers that cannot be.
    """
    wanted = _wanted(bench)
    depth, layers = _depth(wanted, dense), layers_to_change(wanted, dense.model)
    used = wanted.trees * (depth + 1)
    found = [_grown(bench, dense, f"fff-{wanted.trees}x{depth}", lambda: _taught(bench, dense, depth, layers))]
    counts = (used, 0) if wanted.controls else ()
    for count in counts:
        name = f"dense-{count}" if count else "no-ffn"
        found.append(_grown(bench, dense, name, lambda n=count: (_thinned(bench, dense, n, layers), {})))
    return found


def _wanted(bench: Workbench) -> Trees:
    assert bench.recipe.trees is not None
    return bench.recipe.trees


def _depth(wanted: Trees, dense: Dense) -> int:
    if wanted.depth is not None:
        return wanted.depth
    neurons = max(dense.shape.neurons)
    return next(d for d in range(DEEPEST + 1) if wanted.trees * (2 ** (d + 1) - 1) >= neurons)


def layers_to_change(wanted: Trees, model: PreTrainedModel) -> tuple[int, ...]:
    """The layers whose blocks give way. Raises UserError for one that is not there, or has no such block."""
    every = [layer.index for layer in layout_of(model).layers if layer.ffn is not None]
    chosen = every if wanted.layers is None else sorted(set(wanted.layers))
    if not chosen or not set(chosen) <= set(every):
        raise UserError("There is no such layer with a feedforward block", got=chosen, allowed=every)
    return tuple(chosen)


def _grown(bench: Workbench, dense: Dense, name: str, make: Callable[[], Made]) -> Grown:
    work, folder = bench.work / name, bench.folder / name

    last = trained_stage(work, folder)

    def start() -> Started:
        model, errors = make()
        save_model(model, bench.tokenizer, work / "one-shot")
        return Started(scores=bench.score(bench.predict(model)), errors=errors)

    first = Stage(work / "started.json", (work / "one-shot",))
    bench.steps.begin(f"{name}: in place of the dense blocks")
    started = once(first, Started, start, after=dense.digest, later=[last])
    if bench.recipe.finetune is not None:
        bench.steps.begin(f"{name}: training all layers together")
    trained = once(last, Trained, lambda: recover(bench, dense, work, folder, dense.origin), after=started.digest)
    model = bench.load(folder)
    fits = _fits(bench, model, started.result.errors)
    return Grown(name, folder, model, started.result.scores, trained.result, fits)


def _taught(bench: Workbench, dense: Dense, depth: int, layers: Sequence[int]) -> Made:
    wanted = _wanted(bench)
    set_seed(bench.recipe.seed)
    planted = plant(dense.model, depth, wanted.trees, layers, wanted.activation)
    set_routing(planted, Routing(wanted.soft, wanted.hardening, wanted.balance))
    lessons = Lessons(wanted.steps, wanted.tokens, wanted.learning_rate, bench.recipe.seed)
    fits = teach(dense.model, planted, _batches(bench), lessons)
    return planted, {fit.layer: fit.error for fit in fits}


def _thinned(bench: Workbench, dense: Dense, neurons: int, layers: Sequence[int]) -> PreTrainedModel:
    """The dense model with the best `neurons` of each block, by the recipe's criterion."""
    recipe = bench.recipe
    calibrated = calibrate(
        copy.deepcopy(dense.model),
        dense.model,
        bench.train,
        bench.collate,
        recipe.criterion,
        recipe.search.examples,
        recipe.search.score_examples,
        recipe.seed,
        lambda units, width: [units] if width > 1 else [units, min(neurons, units)],
    )
    choices = []
    for layer in calibrated.layout.layers:
        heads = layer.attention.units if layer.attention else 0
        units = layer.ffn.units if layer.ffn else 0
        kept = min(neurons, units) if layer.index in layers else units
        choices.append(Choice(heads, kept, dropped=False, cost=0.0, error=0.0))
    return assemble(dense.model, calibrated.options, choices)


def _batches(bench: Workbench) -> list[Batch]:
    """Texts of like length meet, but what comes last, and is held out, has texts of all lengths."""
    rows = sample_rows(bench.train, _wanted(bench).examples, bench.recipe.seed)
    found = [batch for _, batch in batches_by_length(rows, bench.collate, TEACHING_BATCH)]
    random.Random(bench.recipe.seed).shuffle(found)
    return found


def _fits(bench: Workbench, model: PreTrainedModel, errors: dict[int, float]) -> tuple[TreeFit, ...]:
    if not errors:
        return ()
    trees, routes = trees_of(model), routes_of(model, _batches(bench))
    write_bytes_atomically(bench.folder / VISITS, save(_visits(routes)))
    return tuple(_fit(layer, trees[layer].name, error, routes[layer]) for layer, error in errors.items())


def _visits(routes: Mapping[int, Sequence[Routes]]) -> dict[str, torch.Tensor]:
    """Tokens by node [nodes] of every tree: `layer.3.tree.0`, both from 0."""
    return {
        f"layer.{layer}.tree.{index}": way.visits for layer, ways in routes.items() for index, way in enumerate(ways)
    }


def _fit(layer: int, name: str, error: float, ways: Sequence[Routes]) -> TreeFit:
    def mean(values: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
        return tuple(torch.tensor(values, dtype=torch.double).mean(dim=0).tolist())

    return TreeFit(
        layer=layer,
        name=name,
        error=error,
        dead=sum(way.dead for way in ways) / len(ways),
        dead_subtrees=mean([way.dead_subtrees for way in ways]),
        entropy=mean([way.entropy for way in ways]),
        agreement=mean([way.agreement for way in ways]),
        chance=mean([way.chance for way in ways]),
    )

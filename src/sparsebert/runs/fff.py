"""Fast feedforward layers in place of a model's feedforward blocks, and the controls that say what they are worth."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence

import torch
from pydantic import BaseModel
from safetensors.torch import save
from transformers import PreTrainedModel, set_seed

from sparsebert.errors import UserError
from sparsebert.fast_feedforward.convert import BlockDistillation, distill_blocks, path_statistics_of, trees_of
from sparsebert.fast_feedforward.layer import DEEPEST, Routing
from sparsebert.fast_feedforward.routing import PathStatistics
from sparsebert.files import write_bytes_atomically
from sparsebert.models.layout import layout_of
from sparsebert.models.load import save_model
from sparsebert.models.surgeon import convert_ffn, set_routing
from sparsebert.pruning.assemble import assemble
from sparsebert.pruning.calibration import calibrate, sample_rows
from sparsebert.pruning.knapsack import LayerChoice
from sparsebert.pruning.shapes import shape_of
from sparsebert.recipe.fff import FffRecipe
from sparsebert.recipe.schema import Trees
from sparsebert.records import VISITS, Score, TreeFit
from sparsebert.runs.context import RunContext
from sparsebert.runs.dense import Dense, Recovering, Trained, dense_entry, dense_model
from sparsebert.runs.run_type import Entry, Made, RunType
from sparsebert.runs.sparse_model import packing_of
from sparsebert.runs.stages import Stage, once
from sparsebert.training.collate import Batch, batches_by_length

DISTILLATION_BATCH = 32
FffContext = RunContext[FffRecipe]
# A model before its training, and the error of the trees of each layer after block-wise distillation.
Converted = tuple[PreTrainedModel, dict[int, float]]


class Started(BaseModel):
    """A model before its training: its scores, and by layer how well it reproduces the dense block."""

    scores: tuple[Score, ...]
    errors: dict[int, float] = {}


class Fff(RunType[FffRecipe]):
    """Fast feedforward layers by block-wise distillation, then training of all layers together, beside controls."""

    recipe = FffRecipe

    def check(self, context: FffContext) -> int:
        """The dense model, and for each model that is made of it a conversion and a training."""
        trees = context.recipe.trees
        layers_to_change(trees, context.start())
        return 1 + (3 if trees.controls else 1) * (1 if context.recipe.finetune is None else 2)

    def make(self, context: FffContext) -> Made:
        """The dense model, the converted one, and two controls: as many neurons as a token uses, and none at all.

        All have the same teacher and the same training. How many tokens visit each node of the finished trees is
        written to `visits.safetensors`.
        """
        dense = dense_model(context, context.recipe.dense)
        first, wanted = dense_entry(context, dense), context.recipe.trees
        depth, layers = _depth(wanted, dense), layers_to_change(wanted, dense.model)
        converted = _entry(
            context, dense, f"fff-{wanted.trees}x{depth}", lambda: _distilled(context, dense, depth, layers)
        )
        entries = [first, converted]
        for count in (wanted.trees * (depth + 1), 0) if wanted.controls else ():
            name = f"dense-{count}" if count else "no-ffn"
            entries.append(_entry(context, dense, name, lambda n=count: (_thinned(context, dense, n, layers), {})))
        return Made(entries)


def _depth(wanted: Trees, dense: Dense) -> int:
    if wanted.depth is not None:
        return wanted.depth
    neurons = max(dense.shape.neurons)
    return next(d for d in range(DEEPEST + 1) if wanted.trees * (2 ** (d + 1) - 1) >= neurons)


def layers_to_change(wanted: Trees, model: PreTrainedModel) -> tuple[int, ...]:
    """The layers whose blocks are replaced. Raises UserError for one that is not there, or has no such block."""
    every = [layer.index for layer in layout_of(model).layers if "neuron" in layer.groups]
    chosen = every if wanted.layers is None else sorted(set(wanted.layers))
    if not chosen or not set(chosen) <= set(every):
        raise UserError("There is no such layer with a feedforward block", got=chosen, allowed=every)
    return tuple(chosen)


def _entry(context: FffContext, dense: Dense, name: str, make: Callable[[], Converted]) -> Entry:
    work, folder = context.work / name, context.folder / name
    recipe = context.recipe
    recovery = Recovering(dense, recipe.finetune, recipe.distill, packing_of(recipe))
    last = recovery.stage(work, folder)

    def start() -> Started:
        model, errors = make()
        save_model(model, context.tokenizer, work / "one-shot")
        return Started(scores=context.score(context.predict(model)), errors=errors)

    first = Stage(work / "started.json", (work / "one-shot",))
    context.steps.begin(f"{name}: in place of the dense blocks")
    started = once(first, Started, start, after=dense.digest, later=[last])
    if recovery.training is not None:
        context.steps.begin(f"{name}: training all layers together")
    trained = once(
        last, Trained, lambda: recovery.train(context, work, folder, dense.origin), after=started.digest
    ).result
    model = context.load(folder)
    predictions = context.predict(model)
    context.say(name, predictions)
    facts = {
        "shape": shape_of(model, dense.origin, dense.model),
        "one_shot_scores": started.result.scores if trained.run else (),
        "trees": _fits(context, model, started.result.errors),
        "training": trained.run,
    }
    return Entry(name, folder, model, predictions, facts)


def _distilled(context: FffContext, dense: Dense, depth: int, layers: Sequence[int]) -> Converted:
    wanted = context.recipe.trees
    set_seed(context.recipe.seed)
    converted = convert_ffn(dense.model, depth, wanted.trees, layers, wanted.activation)
    set_routing(converted, Routing(wanted.soft, wanted.hardening, wanted.balance))
    distillation = BlockDistillation(wanted.steps, wanted.tokens, wanted.learning_rate, context.recipe.seed)
    fits = distill_blocks(dense.model, converted, _batches(context), distillation)
    return converted, {fit.layer: fit.error for fit in fits}


def _thinned(context: FffContext, dense: Dense, neurons: int, layers: Sequence[int]) -> PreTrainedModel:
    """The dense model with the best `neurons` of each block, by the recipe's criterion."""
    recipe = context.recipe
    calibrated = calibrate(
        copy.deepcopy(dense.model),
        dense.model,
        context.train,
        context.collate,
        recipe.criterion,
        recipe.search.examples,
        recipe.search.score_examples,
        recipe.seed,
        lambda units, width: [units] if width > 1 else [units, min(neurons, units)],
        context.kind,
    )
    choices = []
    for layer in calibrated.layout.layers:
        kept = dict(layer.units)
        if layer.index in layers:
            kept["neuron"] = min(neurons, kept["neuron"])
        choices.append(LayerChoice(kept, dropped=False, cost=0.0, error=0.0))
    return assemble(dense.model, calibrated.candidates, choices)


def _batches(context: FffContext) -> list[Batch]:
    """Texts of like length meet, but what comes last, and is held out, has texts of all lengths."""
    rows = sample_rows(context.train, context.recipe.trees.examples, context.recipe.seed)
    found = [batch for _, batch in batches_by_length(rows, context.collate, DISTILLATION_BATCH)]
    random.Random(context.recipe.seed).shuffle(found)
    return found


def _fits(context: FffContext, model: PreTrainedModel, errors: dict[int, float]) -> tuple[TreeFit, ...]:
    if not errors:
        return ()
    trees, routes = trees_of(model), path_statistics_of(model, _batches(context))
    write_bytes_atomically(context.folder / VISITS, save(_visits(routes)))
    return tuple(_fit(layer, trees[layer].name, error, routes[layer]) for layer, error in errors.items())


def _visits(routes: Mapping[int, Sequence[PathStatistics]]) -> dict[str, torch.Tensor]:
    """Tokens by node [nodes] of every tree: `layer.3.tree.0`, both from 0."""
    return {
        f"layer.{layer}.tree.{index}": path.visits
        for layer, paths in routes.items()
        for index, path in enumerate(paths)
    }


def _fit(layer: int, name: str, error: float, paths: Sequence[PathStatistics]) -> TreeFit:
    def mean(values: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
        return tuple(torch.tensor(values, dtype=torch.double).mean(dim=0).tolist())

    return TreeFit(
        layer=layer,
        name=name,
        error=error,
        dead=sum(path.dead for path in paths) / len(paths),
        dead_subtrees=mean([path.dead_subtrees for path in paths]),
        entropy=mean([path.entropy for path in paths]),
        agreement=mean([path.agreement for path in paths]),
        chance=mean([path.chance for path in paths]),
    )

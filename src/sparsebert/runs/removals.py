"""The ways to remove parts of one network: what goes at each step, by method and criterion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from pydantic import BaseModel
from transformers import PreTrainedModel

from sparsebert.data.labels import labels_of
from sparsebert.models.layout import encoder_linear_names, layout_of, scope_names
from sparsebert.pruning.calibration import CALIBRATION_BATCH, sample_rows
from sparsebert.pruning.successive import (
    l1_scores,
    layers_by_loss,
    layers_by_loss_anew,
    layers_by_size,
    loss_scores,
    lowest_of_all,
    without_layers,
    without_weights,
)
from sparsebert.recipe.prune_curve import PruneCriterion, PruneMethod
from sparsebert.records import LayerRank
from sparsebert.runs.curve_points import CurveContext
from sparsebert.runs.stages import Stage, once
from sparsebert.training.collate import batches_by_length
from sparsebert.training.evaluate import predict_logits


class Ranking(BaseModel):
    """Layers, the first to go first."""

    layers: tuple[LayerRank, ...]


@dataclass(frozen=True)
class Step:
    """A point to come: `asked` of single weights or the layers skipped, and the network that is left."""

    make: Callable[[], PreTrainedModel]
    asked: float | None = None
    skipped: tuple[int, ...] = ()


@dataclass(frozen=True)
class Way:
    """One curve to come, its steps in the order of removal."""

    method: PruneMethod
    criterion: PruneCriterion
    steps: tuple[Step, ...]
    ranking: tuple[LayerRank, ...] = ()

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.method}-{self.criterion}"


def way(
    context: CurveContext, model: PreTrainedModel, digest: str, method: PruneMethod, criterion: PruneCriterion
) -> Way:
    """The steps of one method by one criterion. A ranking of layers is a stage, after the network with this digest."""
    return _WAYS[method](context, model, digest, criterion)


def weights_in_scope(model: PreTrainedModel, scope: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the matrices whose single weights may go: those of the encoder, of embeddings, or all there are."""
    named = {
        "encoder": encoder_linear_names(model),
        "embeddings": scope_names(model)["embeddings"],
        "all": tuple(name for name, parameter in model.named_parameters() if parameter.dim() > 1),
    }
    chosen = (name for part in scope for name in named[part] if model.get_parameter(name).numel())
    return tuple(dict.fromkeys(chosen))


def loss_rows(context: CurveContext) -> int:
    """How many train rows the loss is measured on that weights and layers are ranked by."""
    return min(context.recipe.loss_examples, len(context.train))


def _unstructured(context: CurveContext, model: PreTrainedModel, digest: str, criterion: PruneCriterion) -> Way:
    names = weights_in_scope(model, context.recipe.scope)

    @cache
    def scores() -> Mapping[str, torch.Tensor]:
        return l1_scores(model, names) if criterion == "l1" else _loss_scores(context, model, names)

    def step(share: float) -> Step:
        if share == 0:
            return Step(lambda: model, asked=share)
        return Step(lambda: without_weights(model, lowest_of_all(scores(), share)), asked=share)

    return Way("unstructured", criterion, tuple(map(step, context.recipe.steps)))


def _layers(context: CurveContext, model: PreTrainedModel, digest: str, criterion: PruneCriterion) -> Way:
    stage = Stage(context.work / f"ranking-{criterion}.json")
    found = once(stage, Ranking, lambda: _rank(context, model, criterion), after=digest).result.layers
    order = tuple(one.layer for one in found)
    # The last layer that is left stays.
    skipped = [order[:count] for count in range(len(layout_of(model).layers))]
    return Way("layers", criterion, tuple(_skipping(model, gone) for gone in skipped), found)


def _skipping(model: PreTrainedModel, gone: tuple[int, ...]) -> Step:
    return Step(lambda: without_layers(model, gone), skipped=gone)


_WAYS: dict[PruneMethod, Callable[[CurveContext, PreTrainedModel, str, PruneCriterion], Way]] = {
    "unstructured": _unstructured,
    "layers": _layers,
}


def _rank(context: CurveContext, model: PreTrainedModel, criterion: PruneCriterion) -> Ranking:
    if criterion == "l1":
        return Ranking(layers=tuple(layers_by_size(model)))
    rows = sample_rows(context.train, loss_rows(context), context.recipe.data_seed)
    labels = labels_of(rows)

    def loss(left: PreTrainedModel) -> float:
        return context.kind.mean_loss(predict_logits(left, rows, context.collate, kind=context.kind), labels)

    rank = layers_by_loss_anew if context.recipe.greedy else layers_by_loss
    return Ranking(layers=tuple(rank(model, loss)))


def _loss_scores(context: CurveContext, model: PreTrainedModel, names: tuple[str, ...]) -> Mapping[str, torch.Tensor]:
    rows = sample_rows(context.train, loss_rows(context), context.recipe.data_seed)
    batches = [batch for _, batch in batches_by_length(rows, context.collate, CALIBRATION_BATCH)]
    return loss_scores(model, names, batches, context.kind)

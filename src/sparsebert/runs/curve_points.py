"""What a point of a prune curve is worth: scores on train and validation, sparsities, bytes, and times."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from pydantic import BaseModel
from safetensors.torch import save
from transformers import PreTrainedModel

from sparsebert.counts import Footprint, footprint, sparsity
from sparsebert.data.labels import labels_of
from sparsebert.measurement.bench import bench
from sparsebert.models.layout import encoder_linear_names
from sparsebert.models.pack import METADATA, pack
from sparsebert.progress import busy
from sparsebert.recipe.prune_curve import PruneCurveRecipe
from sparsebert.records import TRAIN, PrunePoint, Score, Timing
from sparsebert.runs.context import Predictions, RunContext
from sparsebert.runs.scoring import split_scores
from sparsebert.runs.sparse_model import WORTH_PACKING

MACRO_F1 = "macro_f1"
WHOLE = "whole"
# Models in memory at a time: of a large network more would not fit.
AT_ONCE = 6
CurveContext = RunContext[PruneCurveRecipe]


class Timed(BaseModel):
    """Times by the name of a point."""

    timings: dict[str, tuple[Timing, ...]]


@dataclass(frozen=True)
class PointScorer:
    """Compares what is left of a network with the whole of it."""

    context: CurveContext
    whole: PreTrainedModel

    @cached_property
    def before(self) -> Predictions:
        """What metrics take of what the whole network says."""
        return self.context.margins(self.whole, self._said)

    def point(
        self, model: PreTrainedModel, asked: float | None = None, skipped_layers: Sequence[int] = ()
    ) -> PrunePoint:
        """One point, without its times."""
        said = self._said if model is self.whole else self._predict(model)
        taken = self.context.margins(model, said)
        files = bytes_as_saved(model)
        left = footprint(model, encoder_linear_names(model), files)
        return PrunePoint(
            asked=asked,
            skipped_layers=tuple(skipped_layers),
            sparsity=sparsity(self._start, left),
            bytes_on_disk=files,
            losses={split: self.context.kind.mean_loss(logits, self._labels(split)) for split, logits in said.items()},
            scores=tuple(self._scores(taken, None if model is self.whole else self.before)),
        )

    @cached_property
    def _said(self) -> Predictions:
        return self._predict(self.whole)

    @cached_property
    def _start(self) -> Footprint:
        return footprint(self.whole, encoder_linear_names(self.whole), bytes_as_saved(self.whole))

    def _predict(self, model: PreTrainedModel) -> Predictions:
        context = self.context
        rows = {**context.validations, TRAIN: context.train}
        return {split: context.outputs(model, own) for split, own in rows.items()}

    def _labels(self, split: str) -> np.ndarray:
        return labels_of(self.context.train) if split == TRAIN else self.context.labels(split)

    def _scores(self, said: Predictions, before: Predictions | None) -> Iterator[Score]:
        spec, kind = self.context.spec, self.context.kind
        more = [MACRO_F1] if kind.exclusive and not kind.by_word and MACRO_F1 not in spec.metrics else []
        spec = replace(spec, metrics=(*spec.metrics, *more))
        for split, logits in said.items():
            labels, dense = self._labels(split), None if before is None else before[split]
            yield from split_scores(spec, split, logits, labels, self.context.constant, dense)


def bytes_as_saved(model: PreTrainedModel) -> int:
    """Bytes of the file that `save_sparse` would write, without writing it: packed where that is clearly smaller."""
    tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in model.named_parameters()}
    plain = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    stored, contents = pack(tensors)
    if sum(tensor.numel() * tensor.element_size() for tensor in stored.values()) < WORTH_PACKING * plain:
        return len(save(stored, metadata={METADATA: json.dumps(contents, sort_keys=True)}))
    return len(save(tensors))


def time_points(
    context: CurveContext, whole: PreTrainedModel, points: Mapping[str, Callable[[], PreTrainedModel]]
) -> dict[str, tuple[Timing, ...]]:
    """Times of some points by name, and of the whole network under WHOLE, which is in the same rounds."""
    measure = context.recipe.measure
    models = {WHOLE: whole, **{name: make() for name, make in points.items()}}
    runtimes = list(dict.fromkeys(["eager", measure.runtime]))
    with busy("Timing") as update:
        rows = bench(
            models, context.settings, runtimes, rounds=measure.rounds, threads=measure.threads, progress=update
        )
    return {name: tuple(one for row in rows if row.model == name for one in row.timings) for name in models}

"""Calibration: from examples to the candidates of every group of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from sparsebert import registry
from sparsebert.data.batches import inputs_of
from sparsebert.groups import Group
from sparsebert.models.heads import kind_of
from sparsebert.models.layout import Layout, layout_of
from sparsebert.progress import tracked
from sparsebert.pruning.candidates import Candidate, levels
from sparsebert.pruning.criteria import UnitCriterion
from sparsebert.pruning.statistics import CalibrationBatch, CalibrationStatistics, collect_statistics
from sparsebert.tasks.kind import TaskKind
from sparsebert.training.collate import Collator, batches_by_length
from sparsebert.training.evaluate import predict_logits

CALIBRATION_BATCH = 32


@dataclass(frozen=True)
class Calibrated:
    """For every group its candidates by units kept, for every layer the error of skipping it, and examples to score on.

    `teacher_logits` [rows, labels] are the dense model's on `score_rows`, and `kind` says what they are.
    """

    layout: Layout
    candidates: dict[str, dict[int, Candidate]]
    skip_errors: tuple[float, ...]
    score_rows: Dataset
    teacher_logits: np.ndarray
    kind: TaskKind


def sample_rows(encoded: Dataset, count: int, seed: int) -> Dataset:
    """`count` rows (or all), drawn with the seed."""
    order = np.random.default_rng(seed).permutation(len(encoded))[:count]
    return encoded.select(order.tolist())


def calibrate(
    model: PreTrainedModel,
    teacher: PreTrainedModel,
    encoded: Dataset,
    collate: Collator,
    criterion_name: str,
    examples: int,
    score_examples: int,
    seed: int,
    counts_of: Callable[[int, int], list[int]] = levels,
    kind: TaskKind | None = None,
) -> Calibrated:
    """Gather statistics on `examples` rows of the train split and work out every group's candidates.

    `counts_of` gives the numbers of units to look at, most first, for a group's units and their width. `kind`
    is that of the task, none = what the model's configuration tells.
    """
    kind = kind or kind_of(model)
    layout = layout_of(model)
    rows = sample_rows(encoded, examples, seed)
    # `rows` are in random order, so the first of them are a fair sample.
    score_rows = rows.select(range(min(score_examples, len(rows))))
    # Sums do not depend on the order, and batches of like length hold little padding.
    batches = [batch for _, batch in batches_by_length(rows, collate, CALIBRATION_BATCH)]
    paths = [layer.path for layer in layout.layers]
    collected = collect_statistics(model, layout.groups, paths, tracked(batches, "Calibrating"), kind, seed)
    criterion: UnitCriterion = registry.get("unit_criterion", criterion_name)
    candidates = {}
    for group in tracked(layout.groups, f"Ranking units ({criterion_name})"):
        statistics = collected.groups[group.name]
        if criterion.wants_loss:
            statistics = with_loss_rise(statistics, model, group, batches, kind)
        counts = counts_of(group.units, group.output.width)
        found = criterion.candidates(statistics, counts)
        candidates[group.name] = dict(zip(counts, found, strict=True))
    return Calibrated(
        layout,
        candidates,
        tuple(collected.skip_errors[path] for path in paths),
        score_rows,
        predict_logits(teacher, score_rows, collate, kind=kind),
        kind,
    )


def with_loss_rise(
    statistics: CalibrationStatistics,
    model: PreTrainedModel,
    group: Group,
    batches: Sequence[CalibrationBatch],
    kind: TaskKind,
) -> CalibrationStatistics:
    """Statistics that can also tell the rise of the mean training loss when units lose their output columns.

    `batches` are those that the statistics were collected on.
    """
    weight = model.get_parameter(group.output.tensor)

    def loss() -> float:
        with torch.inference_mode():
            sums = [len(batch["labels"]) * float(_loss(kind, model, batch)) for batch in batches]
        return sum(sums) / sum(len(batch["labels"]) for batch in batches)

    before = loss()

    def rise(units: Sequence[int]) -> float:
        columns = statistics.columns(torch.tensor(list(units)))
        kept = weight.data[:, columns].clone()
        # In place and back again: a copy of the model for each unit would cost more than the pass.
        weight.data[:, columns] = 0
        try:
            return loss() - before
        finally:
            weight.data[:, columns] = kept

    return replace(statistics, loss_rise=rise)


def _loss(kind: TaskKind, model: PreTrainedModel, batch: CalibrationBatch) -> torch.Tensor:
    return kind.loss(kind.outputs(model(**inputs_of(batch))), batch["labels"])

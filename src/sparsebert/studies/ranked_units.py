"""How every criterion of post-training pruning ranks the units of a model, from one pass over calibration rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from transformers import PreTrainedModel

from sparsebert import registry
from sparsebert.models.layout import layout_of
from sparsebert.pruning.calibration import CALIBRATION_BATCH, with_loss_rise
from sparsebert.pruning.candidates import levels
from sparsebert.pruning.criteria import Scored, UnitCriterion
from sparsebert.pruning.statistics import CalibrationStatistics, collect_statistics
from sparsebert.studies.criteria_agreement import GroupRanks
from sparsebert.studies.task_rows import TokenRows
from sparsebert.tasks.kind import TaskKind
from sparsebert.training.collate import batches_by_length


def ranked_units(
    model: PreTrainedModel,
    tokens: TokenRows,
    kind: TaskKind,
    names: Sequence[str],
    seed: int,
    progress: Callable[[str], None] = lambda text: None,
) -> list[GroupRanks]:
    """Of every group with two units and more, by the criteria named. The model is left as it was."""
    layout = layout_of(model)
    batches = [batch for _, batch in batches_by_length(tokens.rows, tokens.collate, CALIBRATION_BATCH)]
    progress("Calibrating")
    collected = collect_statistics(model, layout.groups, [layer.path for layer in layout.layers], batches, kind, seed)
    found = []
    for group in (group for group in layout.groups if group.units > 1):
        scores, half = {}, {}
        for name in names:
            progress(f"Ranking {group.name} by {name}")
            criterion: UnitCriterion = registry.get("unit_criterion", name)
            statistics = collected.groups[group.name]
            if criterion.wants_loss:
                statistics = with_loss_rise(statistics, model, group, batches, kind)
            scores[name], half[name] = _ranked(criterion, statistics)
        number = layout.layers[group.layer].original_index
        found.append(GroupRanks(f"{group.kind}s", number, scores, half))
    return found


def _ranked(criterion: UnitCriterion, statistics: CalibrationStatistics) -> tuple[np.ndarray, frozenset[int]]:
    """A score for each unit [units], and the half that is kept."""
    units = statistics.units
    if isinstance(criterion, Scored):
        scores = criterion.score(statistics).numpy()
        return scores, frozenset(np.argsort(-scores, kind="stable")[: units // 2].tolist())
    # One that makes up for what it removes gives no scores: what it keeps at fewer units is what it holds on to.
    counts = sorted({*levels(units, statistics.width), units // 2}, reverse=True)
    kept = [one.units.numpy() for one in criterion.candidates(statistics, counts)]
    scores = np.zeros(units)
    for own in kept:
        scores[own] += 1
    return scores, frozenset(kept[counts.index(units // 2)].tolist())

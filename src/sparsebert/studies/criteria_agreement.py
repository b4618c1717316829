"""Whether the criteria of post-training pruning would keep the same heads and neurons of one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from sparsebert.errors import UserError
from sparsebert.reports.charts import HeatPanel, StudyChart, written
from sparsebert.reports.study import StudyColumn, StudyResult, StudyRow
from sparsebert.studies.ranks import rank_correlation
from sparsebert.studies.study import CheckpointStudy

if TYPE_CHECKING:
    from sparsebert.studies.checkpoints import AskedCheckpoints

QUESTION = "Do the criteria agree on what to keep?"
DEFINITION = (
    "Each criterion ranks the units of each layer's block, from the same calibration examples, by its scores. One that "
    "has none, as `obs`, which makes up for what it removes, ranks a unit the higher the more of the numbers of units "
    "that it looks at the unit is kept at: all numbers of heads, of neurons a grid, so that many share a rank. Rank "
    "correlation: Spearman's, equal ones sharing their mean rank, by layer; mean, least and most are over layers. "
    "Kept in common: of the half of the units that each keeps, the part that both keep; by chance it is that half. "
    "`random` shows what no agreement looks like."
)
# Some criteria ask for the loss on all of them some hundred times.
EXAMPLES = 64
_COLUMNS = (
    StudyColumn("criteria", "Criteria"),
    StudyColumn("layers", "Layers", form="count"),
    StudyColumn("mean_correlation", "Rank corr.", "mean; least, most", "correlation"),
    StudyColumn("least_correlation", "Rank corr.", "", "correlation", True),
    StudyColumn("most_correlation", "Rank corr.", "", "correlation", True),
    StudyColumn("in_common", "Kept in common", form="percent"),
    StudyColumn("in_common_by_chance", "Kept in common", "chance", "percent"),
)


@dataclass(frozen=True)
class GroupRanks:
    """The units of one group by criterion: a score each [units], higher = kept longer, and which the half keeps.

    kind: `heads` or `neurons`. layer: from 0, in the dense model.
    """

    kind: str
    layer: int
    scores: Mapping[str, np.ndarray]
    half: Mapping[str, frozenset[int]]


@dataclass(frozen=True)
class Agreement:
    """Of two criteria over the groups of one kind; None where one of them ranks all units alike in every layer."""

    layers: int
    correlations: tuple[float, ...]
    in_common: float
    by_chance: float

    @property
    def mean(self) -> float | None:
        """The mean rank correlation."""
        return float(np.mean(self.correlations)) if self.correlations else None


def agreement(groups: Sequence[GroupRanks], first: str, second: str) -> Agreement:
    """Over groups of one kind."""
    found = [rank_correlation(group.scores[first], group.scores[second]) for group in groups]
    common = [len(group.half[first] & group.half[second]) / max(1, len(group.half[first])) for group in groups]
    chance = [len(group.half[first]) / len(group.scores[first]) for group in groups]
    known = tuple(one for one in found if one is not None)
    return Agreement(len(groups), known, float(np.mean(common)), float(np.mean(chance)))


def criteria_agreement(
    name: str, groups: Sequence[GroupRanks], settings: Mapping[str, str] | None = None
) -> StudyResult:
    """Of one checkpoint. Raises UserError where it has no groups with units to choose from."""
    kinds = [kind for kind in ("heads", "neurons") if any(group.kind == kind for group in groups)]
    if not kinds:
        raise UserError("The checkpoint has neither heads nor neurons that could be ranked", got=name)
    criteria = list(groups[0].scores)
    pairs = list(combinations(criteria, 2))
    found = {
        (kind, *pair): agreement([group for group in groups if group.kind == kind], *pair)
        for kind in kinds
        for pair in pairs
    }
    rows = [
        StudyRow(kind, (f"{first}, {second}", one.layers, one.mean, *_ends(one), one.in_common, one.by_chance))
        for (kind, first, second), one in found.items()
    ]
    return StudyResult(
        "criteria-agreement",
        QUESTION,
        _sentence(found),
        DEFINITION,
        (name,),
        _COLUMNS,
        tuple(rows),
        StudyChart(tuple(_panel(kind, criteria, found) for kind in kinds)),
        heading="units",
        settings=settings or {},
    )


_Found = Mapping[tuple[str, str, str], Agreement]


def _ends(one: Agreement) -> tuple[float | None, float | None]:
    return (min(one.correlations), max(one.correlations)) if one.correlations else (None, None)


def _panel(kind: str, criteria: Sequence[str], found: _Found) -> HeatPanel:
    def cell(first: str, second: str) -> float | None:
        if first == second:
            return 1.0
        one = found.get((kind, first, second)) or found[(kind, second, first)]
        return one.mean

    cells = tuple(tuple(cell(first, second) for second in criteria) for first in criteria)
    title = f"Rank correlation over {kind}, mean of layers"
    return HeatPanel(title, tuple(criteria), tuple(criteria), cells, "correlation", low=0.0, high=1.0)


def _sentence(found: _Found) -> str:
    parts = []
    for kind in dict.fromkeys(kind for kind, _, _ in found):
        every = {key[1:]: one.mean for key, one in found.items() if key[0] == kind}
        # Chance is no criterion that could agree, but where nothing else was asked about.
        own = {pair: mean for pair, mean in every.items() if "random" not in pair} or every
        known = {pair: mean for pair, mean in own.items() if mean is not None}
        if known:
            most, least = max(known, key=lambda pair: known[pair]), min(known, key=lambda pair: known[pair])
            parts.append(
                f"of {kind} {' and '.join(most)} agree most (rank correlation {written(known[most], 'correlation')}), "
                f"{' and '.join(least)} least ({written(known[least], 'correlation')})"
            )
    text = "; ".join(parts) or "no two criteria can be compared"
    return f"{text[0].upper()}{text[1:]}."


def _ask(asked: AskedCheckpoints) -> StudyResult:
    from sparsebert import registry
    from sparsebert.studies.ranked_units import ranked_units
    from sparsebert.studies.task_rows import common_length, drawn, task_model, task_of, token_rows
    from sparsebert.tasks.kind import task_kind

    names = asked.options.criterion or tuple(registry.names("unit_criterion"))
    for one in names:
        registry.check("unit_criterion", one)
    task, [(name, source)] = task_of(asked.options), asked.sources.items()
    kind, length = task_kind(task.spec.kind), common_length([source])
    model = task_model(source, task.spec)
    rows = drawn(task.train, asked.options.examples or EXAMPLES, asked.options.seed)
    tokens = token_rows(source, rows, length, kind)
    groups = ranked_units(model, tokens, kind, names, asked.options.seed, asked.progress)
    where = f"{len(rows):,} train rows of {task.spec.name}, up to {length} tokens each, seed {asked.options.seed}"
    return criteria_agreement(name, groups, {"Calibration": where})


CRITERIA_AGREEMENT = CheckpointStudy(
    "whether criteria of pruning would keep the same heads and neurons",
    _ask,
    most=1,
    takes=("task", "examples", "criterion"),
)

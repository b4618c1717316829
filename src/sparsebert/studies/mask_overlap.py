"""How much the masks of checkpoints overlap, matrix by matrix, beside what chance would give.

Gordon et al. 2020, arXiv:2002.08307, figure 3, compare masks from pretraining and after fine-tuning by the weights that
are in one of them only; intersection over union and Cohen's kappa say the same beside chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from sparsebert.errors import UserError
from sparsebert.reports.charts import ChartLine, HeatPanel, LinePanel, Panel, StudyChart, written
from sparsebert.reports.study import StudyColumn, StudyResult, StudyRow
from sparsebert.studies.study import CheckpointStudy
from sparsebert.studies.weights import (
    EncoderWeights,
    check_comparable,
    check_sparsities,
    layer_panel,
    same_shapes,
    smallest,
    zeros,
)

if TYPE_CHECKING:
    from sparsebert.studies.checkpoints import AskedCheckpoints

QUESTION = "How much do the masks overlap?"
DEFINITION = (
    "Removed is a weight that is exactly zero, or with --sparsity one of the smallest magnitudes of its matrix. "
    "Differ: part of all weights that is removed in one of the two only. "
    "IoU: weights removed in both over those removed in either. "
    "Chance: the same for masks that are drawn at random, independently, with the sparsities that each matrix has. "
    "Kappa (Cohen 1960): (agreement - chance agreement) / (1 - chance agreement), where agreement is the part that is "
    "removed, or kept, in both."
)
_MOST_PANELS = 6
_COLUMNS = (
    StudyColumn("matrix", "Matrix"),
    StudyColumn("weights", "Weights", form="count"),
    StudyColumn("removed_first", "Removed", "first", "percent"),
    StudyColumn("removed_second", "Removed", "second", "percent"),
    StudyColumn("differ", "Differ", form="percent"),
    StudyColumn("differ_by_chance", "Differ", "chance", "percent"),
    StudyColumn("iou", "IoU", form="percent"),
    StudyColumn("iou_by_chance", "IoU", "chance", "percent"),
    StudyColumn("kappa", "Kappa", form="correlation"),
)


@dataclass(frozen=True)
class Overlap:
    """Of `count` places, how many are removed in the first, the second, and in both; `chance` = both, expected."""

    count: int
    first: int
    second: int
    both: int
    chance: float

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray) -> Overlap:
        """Of two masks of one shape, True where something is removed."""
        one, other = int(first.sum()), int(second.sum())
        return cls(first.size, one, other, int((first & second).sum()), one * other / max(1, first.size))

    @classmethod
    def of_all(cls, parts: Iterable[Overlap]) -> Overlap:
        """Of several matrices together; chance is drawn in each of them."""
        kept = list(parts)
        return cls(
            sum(one.count for one in kept),
            sum(one.first for one in kept),
            sum(one.second for one in kept),
            sum(one.both for one in kept),
            sum(one.chance for one in kept),
        )

    @property
    def differ(self) -> float:
        """Part of all places that is removed in one only."""
        return (self.first + self.second - 2 * self.both) / self.count

    @property
    def differ_by_chance(self) -> float:
        """The same, expected of independent masks."""
        return (self.first + self.second - 2 * self.chance) / self.count

    @property
    def iou(self) -> float | None:
        """Removed in both over removed in either; None where nothing is removed."""
        return _ratio(self.both, self.first + self.second - self.both)

    @property
    def iou_by_chance(self) -> float | None:
        """The same with the expected number that is removed in both."""
        return _ratio(self.chance, self.first + self.second - self.chance)

    @property
    def kappa(self) -> float | None:
        """1 for equal masks, 0 for what chance gives; None where chance can only agree."""
        return _ratio(self.differ_by_chance - self.differ, self.differ_by_chance)


Parts = dict[str, Overlap]
Compare = Callable[[EncoderWeights, EncoderWeights, float | None], Parts]


def mask_overlap(weights: Sequence[EncoderWeights], sparsities: Sequence[float] = ()) -> StudyResult:
    """All pairs of checkpoints; without `sparsities` their zeros, else what magnitude pruning would remove at each.

    Checkpoints of different shapes are compared by the heads that are left, where these are known. Raises UserError
    where they are not, for models of different families, numbers of layers or heads, and as `check_sparsities` does.
    """
    by_weight = same_shapes(weights) or bool(sparsities)
    if by_weight:
        check_comparable(weights)
        check_sparsities(weights, sparsities)
    compare = _by_matrix if by_weight else _by_heads
    pairs = list(combinations(weights, 2))
    found = {(a.name, b.name, s): compare(a, b, s) for a, b in pairs for s in sparsities or (None,)}
    whole = {key: Overlap.of_all(parts.values()) for key, parts in found.items()}
    rows = [
        StudyRow(_heading(*key), _row(name, one))
        for key, parts in found.items()
        for name, one in {"all": whole[key], **parts}.items()
    ]
    chart = _lines(whole, pairs, sparsities) if len(sparsities) > 1 else _cells(found, weights, by_weight)
    unit = "weights" if by_weight else "heads"
    return StudyResult(
        "mask-overlap",
        QUESTION,
        _sentence(whole, unit),
        DEFINITION if by_weight else f"{DEFINITION} Here whole heads take the place of weights.",
        tuple(one.name for one in weights),
        _COLUMNS if by_weight else (StudyColumn("layer", "Heads of"), *_COLUMNS[1:]),
        tuple(rows),
        chart,
        heading="pair",
        settings={"Masks": "magnitude, matrix by matrix" if sparsities else "exact zeros"},
        notes=() if len(pairs) <= _MOST_PANELS else (f"The figure shows {_MOST_PANELS} of {len(pairs)} pairs.",),
    )


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _by_matrix(first: EncoderWeights, second: EncoderWeights, sparsity: float | None) -> Parts:
    removed = zeros if sparsity is None else lambda values: smallest(values, sparsity)
    return {
        name.label: Overlap.of(removed(values), removed(second.matrices[name]))
        for name, values in first.matrices.items()
        if values.size
    }


def _by_heads(first: EncoderWeights, second: EncoderWeights, sparsity: float | None) -> Parts:
    masks = []
    for one in (first, second):
        if one.kept_heads is None:
            raise UserError(
                "Which heads were cut away is not known, so that masks of different shapes cannot be compared",
                got=one.name,
                fix="give the model in the folder of the run that made it, which keeps a record",
            )
        masks.append(np.array([[head not in kept for head in range(one.heads)] for kept in one.kept_heads]))
    if first.family != second.family or masks[0].shape != masks[1].shape:
        check_comparable([first, second])
    return {f"layer {layer + 1}": Overlap.of(*pair) for layer, pair in enumerate(zip(*masks, strict=True))}


def _heading(first: str, second: str, sparsity: float | None) -> str:
    return f"{first} vs {second}" + ("" if sparsity is None else f", {sparsity:.0%} smallest")


def _row(name: str, one: Overlap) -> tuple[str | float | int | None, ...]:
    removed = (one.first / one.count, one.second / one.count)
    return (name, one.count, *removed, one.differ, one.differ_by_chance, one.iou, one.iou_by_chance, one.kappa)


def _cells(found: dict[tuple[str, str, float | None], Parts], weights: Sequence[EncoderWeights], by_weight: bool):
    panels: list[Panel] = []
    for key, parts in list(found.items())[:_MOST_PANELS]:
        chance = written(Overlap.of_all(parts.values()).iou_by_chance, "percent")
        title = f"IoU of {_heading(*key)} (chance {chance})"
        if by_weight:
            values = {name: parts[name.label].iou for name in weights[0].matrices if name.label in parts}
            panels.append(layer_panel(title, values, "percent", 0.0, 1.0))
        else:
            cells = tuple((one.iou, one.iou_by_chance) for one in parts.values())
            panels.append(HeatPanel(title, tuple(parts), ("IoU", "chance"), cells, "percent", low=0.0, high=1.0))
    return StudyChart(tuple(panels))


def _lines(
    whole: dict[tuple[str, str, float | None], Overlap],
    pairs: Sequence[tuple[EncoderWeights, EncoderWeights]],
    sparsities: Sequence[float],
) -> StudyChart:
    x = tuple(100 * one for one in sorted(sparsities))
    lines = []
    for first, second in pairs:
        found = [whole[(first.name, second.name, one)] for one in sorted(sparsities)]
        name = _heading(first.name, second.name, None)
        lines.append(ChartLine(name, x, tuple(100 * one.differ for one in found)))
    chance = [whole[(pairs[0][0].name, pairs[0][1].name, one)].differ_by_chance for one in sorted(sparsities)]
    lines.append(ChartLine("random masks", x, tuple(100 * one for one in chance), reference=True))
    return StudyChart((LinePanel("Removed in one of two only", "Sparsity, %", "% of all weights", tuple(lines)),))


def _sentence(whole: dict[tuple[str, str, float | None], Overlap], unit: str) -> str:
    """Of the pair that differs most."""
    key = max(whole, key=lambda one: (whole[one].differ, one[:2]))
    one = whole[key]
    several = len({written(other.differ, "percent") for other in whole.values()}) > 1
    most = f"{_heading(*key)} differ most: " if several else f"{_heading(*key)}: "
    differ = f"{written(one.differ, 'percent')} of all {unit} are removed in one only"
    if one.iou is None:
        return f"{most}nothing is removed in either, so there is no mask to compare."
    beside = f"{written(one.iou, 'percent')} in both (chance {written(one.iou_by_chance, 'percent')})"
    return f"{most}{differ}, and of those removed in either {beside}."


def _ask(asked: AskedCheckpoints) -> StudyResult:
    return mask_overlap(asked.weights(), asked.options.sparsity)


MASK_OVERLAP = CheckpointStudy(
    "which weights are removed in one of two checkpoints only, beside chance", _ask, fewest=2, takes=("sparsity",)
)

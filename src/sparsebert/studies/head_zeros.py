"""How zeros are spread over attention heads: the least, the mean and the most of a head, by layer and matrix.

Gordon et al. 2020, arXiv:2002.08307, figure 4 (left): whether pruning weights prunes some heads more than others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparsebert.errors import UserError
from sparsebert.reports.charts import ChartLine, ChartRange, LinePanel, RangePanel, StudyChart, written
from sparsebert.reports.study import StudyColumn, StudyResult, StudyRow
from sparsebert.studies.study import CheckpointStudy
from sparsebert.studies.weights import HeadBlock, check_zeros, smallest

if TYPE_CHECKING:
    from sparsebert.studies.checkpoints import AskedCheckpoints

QUESTION = "How are zeros spread over attention heads?"
DEFINITION = (
    "Part of a head's weights that is exactly zero, or with --sparsity among the smallest magnitudes of its matrix: "
    "of its rows of query, key and value, its columns of the output projection, and of these together. Least, mean and "
    "most are over heads. SD: over heads; chance: what it would be where each weight of a matrix is removed with the "
    "same probability, sqrt(s (1 - s) / n) for a head of n weights at a sparsity of s."
)
TOGETHER = "all together"
_COLUMNS = (
    StudyColumn("heads_of", "Heads of"),
    StudyColumn("matrix", "Matrix"),
    StudyColumn("heads", "Heads", form="count"),
    StudyColumn("least", "Least", form="percent"),
    StudyColumn("mean", "Mean", form="percent"),
    StudyColumn("most", "Most", form="percent"),
    StudyColumn("sd", "SD", form="percent"),
    StudyColumn("sd_by_chance", "SD", "chance", "percent"),
)


@dataclass(frozen=True)
class HeadShares:
    """Of some heads: the part of each that is zero [heads], and the variance that chance would give each [heads]."""

    shares: np.ndarray
    variances: np.ndarray

    @classmethod
    def of(cls, removed: Sequence[np.ndarray]) -> HeadShares:
        """Of the matrices of one layer, each True where a weight is removed, [heads, weights of a head]."""
        total = sum(one.shape[1] for one in removed)
        shares = np.sum([one.sum(axis=1) for one in removed], axis=0) / total
        expected = sum(float(one.mean()) * (1 - float(one.mean())) * one.shape[1] for one in removed)
        return cls(shares, np.full(len(shares), expected / total**2))

    @classmethod
    def of_all(cls, parts: Sequence[HeadShares]) -> HeadShares:
        """Of the heads of several layers."""
        return cls(np.concatenate([one.shares for one in parts]), np.concatenate([one.variances for one in parts]))

    @property
    def row(self) -> tuple[int, float, float, float, float, float]:
        """Number of heads; least, mean, most, standard deviation; that of chance."""
        part = self.shares
        spread = (float(part.std()), float(self.variances.mean() ** 0.5))
        return (len(part), float(part.min()), float(part.mean()), float(part.max()), *spread)


# By layer, from 0, and matrix.
Shares = dict[tuple[int, str], HeadShares]


def head_zeros(blocks: Mapping[str, Sequence[HeadBlock]], sparsities: Sequence[float] = ()) -> StudyResult:
    """Of each checkpoint's heads; with `sparsities` what magnitude pruning, matrix by matrix, would remove at each.

    Raises UserError where a checkpoint has no heads, or more zeros than a sparsity.
    """
    for name, own in blocks.items():
        _check(name, own, sparsities)
    asked = sorted(sparsities) or [None]
    found = {_heading(name, one): _shares(own, one) for name, own in blocks.items() for one in asked}
    rows = [StudyRow(heading, values) for heading, shares in found.items() for values in _rows(shares)]
    chart = _lines(blocks, found, sorted(sparsities)) if len(sparsities) > 1 else _ranges(found)
    return StudyResult(
        "head-zeros",
        QUESTION,
        _sentence(found),
        DEFINITION,
        tuple(blocks),
        _COLUMNS,
        tuple(rows),
        chart,
        settings={"Zeros": "of magnitude pruning, matrix by matrix" if sparsities else "exact zeros"},
    )


def _check(name: str, blocks: Sequence[HeadBlock], sparsities: Sequence[float]) -> None:
    if not blocks:
        raise UserError("The checkpoint has no attention heads", got=name)
    for own in _by_matrix(blocks):
        where = f"layer {own[0].layer + 1} {', '.join(one.kind for one in own)}"
        check_zeros(name, where, _joined(own), sparsities)


def _heading(name: str, sparsity: float | None) -> str:
    return name if sparsity is None else f"{name}, {sparsity:.0%} smallest"


def _shares(blocks: Sequence[HeadBlock], sparsity: float | None) -> Shares:
    removed = [
        (one.layer, one.kind, mask)
        for own in _by_matrix(blocks)
        for one, mask in zip(own, _removed(own, sparsity), strict=True)
    ]
    found = {(layer, kind): HeadShares.of([mask]) for layer, kind, mask in removed}
    for layer in dict.fromkeys(layer for layer, _, _ in removed):
        found[(layer, TOGETHER)] = HeadShares.of([mask for place, _, mask in removed if place == layer])
    return found


def _by_matrix(blocks: Sequence[HeadBlock]) -> list[list[HeadBlock]]:
    """Blocks of one matrix together: some families have queries, keys and values in one."""
    found: dict[tuple[int, str], list[HeadBlock]] = {}
    for one in blocks:
        found.setdefault((one.layer, one.matrix), []).append(one)
    return list(found.values())


def _joined(blocks: Sequence[HeadBlock]) -> np.ndarray:
    return np.concatenate([one.values.ravel() for one in blocks])


def _removed(blocks: Sequence[HeadBlock], sparsity: float | None) -> list[np.ndarray]:
    """What is zero of each block of a matrix, or what pruning of the whole matrix would take of it."""
    if sparsity is None:
        return [one.values == 0 for one in blocks]
    mask = smallest(_joined(blocks), sparsity)
    parts = np.split(mask, np.cumsum([one.values.size for one in blocks])[:-1])
    return [part.reshape(one.values.shape) for part, one in zip(parts, blocks, strict=True)]


def _rows(shares: Shares) -> list[tuple[str | float | int, ...]]:
    layers, kinds = dict.fromkeys(layer for layer, _ in shares), dict.fromkeys(kind for _, kind in shares)
    rows = [("all layers", kind, *_over_layers(shares, kind).row) for kind in kinds]
    return rows + [
        (f"layer {layer + 1}", kind, *shares[(layer, kind)].row)
        for layer in layers
        for kind in kinds
        if (layer, kind) in shares
    ]


def _over_layers(shares: Shares, kind: str) -> HeadShares:
    return HeadShares.of_all([one for (_, own), one in shares.items() if own == kind])


def _ranges(found: Mapping[str, Shares]) -> StudyChart:
    panels = []
    for heading, shares in found.items():
        ranges = []
        for (layer, kind), one in shares.items():
            if kind == TOGETHER:
                _, least, mean, most, *_ = one.row
                ranges.append(ChartRange(f"layer {layer + 1}", 100 * mean, 100 * least, 100 * most))
        panels.append(RangePanel(f"{heading}: least, mean, most", "Zeros of a head, %", tuple(ranges)))
    return StudyChart(tuple(panels))


def _lines(
    blocks: Mapping[str, Sequence[HeadBlock]], found: Mapping[str, Shares], sparsities: Sequence[float]
) -> StudyChart:
    lines = []
    for name in blocks:
        rows = [_over_layers(found[_heading(name, one)], TOGETHER).row for one in sparsities]
        x = tuple(100 * one for one in sparsities)
        least, mean, most = (tuple(100 * row[place] for row in rows) for place in (1, 2, 3))
        lines.append(ChartLine(name, x, mean, least, most))
    title = "Mean over heads, from the least to the most"
    return StudyChart((LinePanel(title, "Sparsity of each matrix, %", "Zeros of a head, %", tuple(lines)),))


def _sentence(found: Mapping[str, Shares]) -> str:
    """Of the checkpoint, or sparsity, whose heads differ most."""
    rows = {heading: _over_layers(shares, TOGETHER).row for heading, shares in found.items()}
    heading = max(rows, key=lambda one: (rows[one][4], one))
    heads, least, mean, most, spread, chance = (*rows[heading],)
    wrote = [written(one, "percent") for one in (least, most, mean, spread, chance)]
    return (
        f"{heading}: of a head {wrote[0]} to {wrote[1]} is zero, {wrote[2]} on average of {heads} heads "
        f"(sd {wrote[3]}, by chance {wrote[4]})."
    )


def _ask(asked: AskedCheckpoints) -> StudyResult:
    return head_zeros(asked.head_blocks(), asked.options.sparsity)


HEAD_ZEROS = CheckpointStudy("how zeros are spread over attention heads", _ask, takes=("sparsity",))

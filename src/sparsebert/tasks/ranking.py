"""Pairs of a query and a passage have a score by which passages are put in order, as a cross-encoder gives it.

There are no labels: what the model itself says before it is made smaller is what it is to say afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsebert.errors import UserError
from sparsebert.tasks.kind import TextColumn
from sparsebert.tasks.regression import Regression

if TYPE_CHECKING:
    import torch

_NOTHING = 1e-6


@dataclass(frozen=True)
class PairRanking(Regression):
    """Labels are the scores of the model that is made smaller.

    Its scores are logits of any scale, so that what a smaller one learns and how far it is are measured in their
    variance: of a batch while training, of all rows elsewhere.
    """

    metrics = ("spearman", "pearson")
    labelled = False
    texts = 2
    together = 0

    def from_text(self, column: TextColumn) -> tuple[Sequence[str], tuple[str, ...]]:
        """Raises UserError, as there is no column of labels."""
        raise _no_labels(column.where)

    def labels(self, values: Sequence[Any], names: tuple[str, ...], where: str) -> list[float]:
        """Raises UserError, as there is no column of labels."""
        raise _no_labels(where)

    def divergence(self, teacher: np.ndarray, student: np.ndarray) -> float:
        """Squared error, over the variance of what the teacher says."""
        return super().divergence(teacher, student) / max(float(np.var(teacher)), _NOTHING)

    def distillation(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """Squared error, over the variance of what the teacher says of the batch, or a tenth of its square if more.

        A batch of one row, or of like scores, would else count for more than all others.
        """
        spread = teacher.var(correction=0).maximum(0.1 * teacher.square().mean()).clamp_min(_NOTHING)
        return super().distillation(student, teacher, temperature) / spread


def _no_labels(where: str) -> UserError:
    return UserError(
        "Pairs of kind ranking have no labels",
        got=where,
        fix="to learn scores that you have, take --kind regression",
    )


RANKING = PairRanking()

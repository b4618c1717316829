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

    Its scores are logits of any scale, so that errors are measured in their variance: of a batch while training, of all
    rows elsewhere.
    """

    metrics = ("spearman", "pearson")
    labelled = False
    texts = 2
    by_first = True

    def from_text(self, column: TextColumn) -> tuple[Sequence[str], tuple[str, ...]]:
        """Raises UserError, as there is no column of labels."""
        raise _no_labels(column.where)

    def labels(self, values: Sequence[Any], names: tuple[str, ...], where: str) -> list[float]:
        """Raises UserError, as there is no column of labels."""
        raise _no_labels(where)

    def mean_loss(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Squared error, over the variance of the labels."""
        return super().mean_loss(outputs, labels) / max(float(np.var(labels)), _NOTHING)

    def divergence(self, teacher: np.ndarray, student: np.ndarray) -> float:
        """Squared error, over the variance of what the teacher says."""
        return super().divergence(teacher, student) / max(float(np.var(teacher)), _NOTHING)

    def distillation(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """Squared error, over the variance of what the teacher says of the batch."""
        spread = teacher.var(correction=0).clamp_min(_NOTHING)
        return super().distillation(student, teacher, temperature) / spread


def _no_labels(where: str) -> UserError:
    return UserError(
        "Pairs of kind ranking have no labels",
        got=where,
        fix="to learn scores that you have, take --kind regression",
    )


RANKING = PairRanking()
